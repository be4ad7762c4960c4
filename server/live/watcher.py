"""Watcher: one reader of the live feed, from its first event to its last.

It makes a frame, writes it, and only then looks at the clock: what the reader does not take is
never made. Knows nothing of what is in an event.
"""

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from server.config import ServerConfig
from server.live.frames import Frames
from server.live.journal import Journal
from server.sse import COMMENT, HEADERS

FRAME_S = 0.1
"""The least time between two frames."""
_MAX_SHARE = 1 / 200
"""Of one core, for the frames of all watchers together: dear ones come less often."""


class Watcher:
    """Sends frames while something is open, comments into silence, and a last event at the end."""

    def __init__(
        self, request: web.Request, frames: Frames, journal: Journal, config: ServerConfig
    ) -> None:
        self.response = web.StreamResponse(headers=HEADERS)
        self._request = request
        self._frames = frames
        self._journal = journal
        self._config = config
        self._num_ended = 0
        """The place of the last end that was told."""
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._is_writing = False

    def wake(self) -> None:
        """Say that a request came or ended."""
        self._news.set()

    def end(self) -> None:
        """Let the feed end; cut it off where the reader has let a write wait."""
        self._over.set()
        self._news.set()
        if self._is_writing:
            self._cut()

    async def run(self, count_watchers: Callable[[], int]) -> None:
        """Write events until the end; raises ConnectionResetError where nobody reads."""
        await self.response.prepare(self._request)
        await self._write(self._frames.hello(FRAME_S))
        while not self._over.is_set():
            self._news.clear()
            begun = time.perf_counter()
            events = self._make()
            cost_s = time.perf_counter() - begun
            await self._write(events)
            await self._wait(self._over, max(FRAME_S, cost_s * count_watchers() / _MAX_SHARE))
            await self._wait_for_news()
        await self._write(self._make() + self._frames.bye())
        await self.response.write_eof()

    def _make(self) -> bytes:
        ended = self._frames.ended_after(self._num_ended)
        self._num_ended = self._journal.num_ended
        return ended + self._frames.frame()

    async def _wait_for_news(self) -> None:
        """Wait while nothing is open, with a comment after each long silence."""
        while not (self._journal.open or self._news.is_set()):
            if not await self._wait(self._news, self._config.keep_alive_s):
                await self._write(COMMENT)

    async def _wait(self, event: asyncio.Event, timeout_s: float) -> bool:
        """Wait for an event; tell whether it came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await event.wait()
        except TimeoutError:
            return False

    async def _write(self, data: bytes) -> None:
        self._is_writing = True
        try:
            async with asyncio.timeout(self._config.max_stall_s):
                await self.response.write(data)
        except TimeoutError:
            self._cut()
            raise ConnectionResetError("the watcher takes nothing") from None
        finally:
            self._is_writing = False

    def _cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
