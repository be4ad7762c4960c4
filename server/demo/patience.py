"""patiently: reads a stream for somebody who may leave, or change their mind, while it is silent.

Gradio looks whether its client is still there only between two values of a generator. A server
that makes us wait gives none, so there is a value without news every second.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TypeVar

_SILENCE_S = 1.0

Item = TypeVar("Item")


async def patiently(
    items: AsyncGenerator[Item, None], newer: asyncio.Event | None = None
) -> AsyncGenerator[Item | None, None]:
    """Yield each item, None after each silent second, and nothing more once `newer` is set.

    Closing it closes `items`.
    """
    overtaken = asyncio.create_task((newer or asyncio.Event()).wait())
    following = asyncio.create_task(_next(items))
    try:
        while True:
            await asyncio.wait(
                (following, overtaken), timeout=_SILENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if overtaken.done():
                return
            if not following.done():
                yield None
            elif (item := following.result()) is None:
                return
            else:
                yield item
                following = asyncio.create_task(_next(items))
    finally:
        overtaken.cancel()
        following.cancel()
        await asyncio.wait((overtaken, following))
        await items.aclose()


class Newest:
    """Lets only the newest run of each person go on; an older one is told by its event."""

    def __init__(self) -> None:
        self._running: dict[str | None, asyncio.Event] = {}

    @contextmanager
    def run(self, session_id: str | None) -> Iterator[asyncio.Event]:
        """Begin a run: set the event of the one before, and give this one's."""
        if (older := self._running.get(session_id)) is not None:
            older.set()
        newer = self._running[session_id] = asyncio.Event()
        try:
            yield newer
        finally:
            if self._running.get(session_id) is newer:
                del self._running[session_id]


async def _next(items: AsyncGenerator[Item, None]) -> Item | None:
    return await anext(items, None)
