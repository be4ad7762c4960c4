"""EventStream: one response of server-sent events, and the watch over its reader.

The headers leave with the first event, or with the first keep-alive comment after a long wait, so
that what is known before is answered with a real status. Knows no dialect.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from engine import Delta, Taker
from server.config import ServerConfig
from server.metrics import Metrics
from server.outbox import Outbox

Render = Callable[[int, Delta], bytes]
"""Writes the events of one sequence's gain."""

COMMENT = b":\n\n"
"""What is sent into silence; every client skips it."""
_TICK_S = 1.0
_EVENT_BYTES = 150
"""About one token's event, for what waits unrendered."""
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class Feed(Protocol):
    """Where a stream's events come from, as far as the stream looks at it."""

    @property
    def num_pending(self) -> int:
        """Count the tokens that wait for the stream's writer."""
        ...

    def nudge(self) -> None:
        """Wake the writer, so that it sends a comment."""
        ...


class EventStream:
    """Sends events as they come; use it as a context, so that its timer ends with it.

    Each second it looks at the clock: after a silence it nudges the feed, whose reader then sends a
    comment; a reader that lets too much pile up, or takes nothing for too long, is cut off.
    """

    def __init__(
        self,
        request: web.Request,
        feed: Feed,
        headers: Mapping[str, str],
        config: ServerConfig,
        metrics: Metrics,
    ) -> None:
        self.response = web.StreamResponse(headers={**HEADERS, **headers})
        self.num_bytes = 0
        self.is_started = False
        """The headers were handed over, so that the status is settled."""
        self.is_stalled = False
        """The reader did not read, and was cut off."""
        self._request = request
        self._feed = feed
        self._config = config
        self._metrics = metrics
        self._outbox: Outbox | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._is_chunked = False
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._is_writing = False
        self._waiting_bytes = 0
        """What the transport still held when a write last made progress."""
        self._progress_at = 0.0
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    async def send(self, events: bytes) -> None:
        """Write events, all of one burst at once; raises ConnectionResetError if nobody is there.

        Without events it writes a comment.
        """
        if not self.is_started:
            self.is_started = True
            self._metrics.stream_opened()  # before what may fail: the end of it is counted too
            await self.response.prepare(self._request)
            self._transport = self._request.transport
            self._is_chunked = "Transfer-Encoding" in self.response.headers
        if not events:
            self._metrics.keep_alive_sent()
        data = events or COMMENT
        self._write_posted()
        self.num_bytes += len(data)
        self._sent_at = self._loop.time()
        self._is_writing = True
        try:
            await self.response.write(data)
        finally:
            self._is_writing = False

    def taker(self, render: Render, outbox: Outbox) -> Taker:
        """Give the short way: it renders and posts while the client has taken all before.

        What it does not take is to be sent, which waits for the client.
        """
        self._outbox = outbox

        def take(index: int, delta: Delta) -> bool:
            transport = self._transport
            if transport is None or transport.get_write_buffer_size():
                return False
            if events := render(index, delta):
                num_bytes = len(events)
                self.num_bytes += num_bytes
                self._sent_at = self._loop.time()
                if self._is_chunked:  # as aiohttp's own writer does it
                    events = b"%x\r\n%b\r\n" % (num_bytes, events)
                outbox.post(transport, events)
            return True

        return take

    async def finish(self, events: bytes) -> None:
        """Write the last events and end the stream; a client that has left by now has it all."""
        if events:
            await self.send(events)
        self._write_posted()
        with suppress(ConnectionResetError):  # Python's OpenAI client hangs up at [DONE]
            await self.response.write_eof()

    def cut(self) -> web.StreamResponse:
        """End the connection in the middle, so that nobody takes the stream for whole."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return self.response

    def _write_posted(self) -> None:
        if self._outbox is not None:
            self._outbox.write_all()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._tick)
        now = self._loop.time()
        if self._is_writing:
            self._watch_reader(now)
        elif now - self._sent_at >= self._config.keep_alive_s:
            self._feed.nudge()

    def _watch_reader(self, now: float) -> None:
        """Cut off a reader who lets more pile up than is allowed, or for longer."""
        waiting_bytes = self._buffered()
        if self._progress_at < self._sent_at:
            self._waiting_bytes, self._progress_at = waiting_bytes, self._sent_at
        elif waiting_bytes < self._waiting_bytes:
            self._waiting_bytes, self._progress_at = waiting_bytes, now
        backlog = waiting_bytes + self._feed.num_pending * _EVENT_BYTES
        is_slow = now - self._progress_at >= self._config.max_stall_s
        if is_slow or backlog > self._config.max_backlog_bytes:
            self.is_stalled = True
            self.cut()

    def _buffered(self) -> int:
        transport = self._request.transport
        return 0 if transport is None else transport.get_write_buffer_size()
