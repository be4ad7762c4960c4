"""TokenStream: the hand-off from the step loop to one reader, in bursts.

A list and a future: the queue of one request at half an asyncio.Queue's cost per token, since a
reader that was busy takes all that has come in one wake-up. The writer never waits. A reader with
nothing else to do need not be woken at all: its taker takes a delta inside the writer's call.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from engine.outputs import Delta, Finish

Taker = Callable[[int, Delta], bool]
"""Takes a delta of this index and returns True, or leaves it to the reader; never waits."""

Burst = list[tuple[int, Delta]]
"""Pairs (index of the sequence within its request, delta), in the order they came."""


class TokenStream:
    """What the sequences of one request gain, for one reader.

    Iterate for bursts; the iteration ends after every sequence's finish. An empty burst is a nudge.
    A reader that does not stream gets one burst, when all have finished or one has failed.
    Closing it aborts what has not finished: leave with `with`, however the reader ends.
    """

    def __init__(self, *, is_streamed: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_streamed = is_streamed
        self._pending: Burst = []
        self._waiter: asyncio.Future[None] | None = None
        self._taker: Taker | None = None
        self._aborts: dict[int, Callable[[], Finish | None]] = {}
        self._is_nudged = False
        self._has_failed = False
        self.num_pending = 0
        """Tokens that wait for the reader; the server bounds it."""

    def open(self, index: int, abort: Callable[[], Finish | None]) -> None:
        """Expect a sequence; `abort` ends it should the reader leave first."""
        self._aborts[index] = abort

    def take_by(self, taker: Taker) -> None:
        """Offer each delta that finds the reader waiting to `taker` first; ends are the reader's.

        What the taker raises is raised in the reader, so that the step loop goes on.
        """
        self._taker = taker

    def put(self, index: int, delta: Delta) -> None:
        """Hand over one step's gain; never waits for the reader."""
        waiter = self._waiter
        if (
            self._taker is not None
            and waiter is not None
            and delta.finish is None
            and not waiter.done()
        ):
            try:
                if self._taker(index, delta):
                    return
            except Exception as error:
                waiter.set_exception(error)
                return
        self._pending.append((index, delta))
        self.num_pending += len(delta.tokens)
        if delta.finish is not None:
            del self._aborts[index]
            self._has_failed |= delta.finish.error is not None
        if self._waiter is not None and self._is_ready():
            self._wake()

    def nudge(self) -> None:
        """Wake the reader with an empty burst, so that it can show the client a sign of life."""
        self._is_nudged = True
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Burst:
        while not self._is_ready():
            if not self._aborts and not self._pending:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._is_nudged = False
        if not self._has_burst():
            return []
        burst, self._pending = self._pending, []
        self.num_pending = 0
        return burst

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> list[Finish]:
        """Abort every sequence that has not finished and give their ends; harmless twice."""
        aborts, self._aborts = self._aborts, {}
        return [finish for abort in aborts.values() if (finish := abort()) is not None]

    def _is_ready(self) -> bool:
        return self._is_nudged or self._has_burst()

    def _has_burst(self) -> bool:
        if self._is_streamed or self._has_failed:
            return bool(self._pending)
        return bool(self._pending) and not self._aborts

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
