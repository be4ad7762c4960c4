"""EventsFeed: `GET /events`, what the server is doing now, to those who watch.

A frame is polled from the engine for each watcher while something runs, so nothing is paid for a
token and nothing at all while nobody watches. There is no queue: a watcher that reads slowly gets
fewer frames. Knows no dialect, and nothing of what is in an event.
"""

from contextlib import suppress

from aiohttp import web

from server.config import ServerConfig
from server.errors import ErrorType, Problem
from server.live.frames import Frames
from server.live.journal import Journal
from server.live.watcher import Watcher
from server.metrics import Metrics

MAX_WATCHERS = 16
_RETRY_AFTER_S = 5


class EventsFeed:
    """Keeps the watchers: lets a bounded number in, and ends them with the server."""

    def __init__(
        self, frames: Frames, journal: Journal, metrics: Metrics, config: ServerConfig
    ) -> None:
        self._frames = frames
        self._journal = journal
        self._metrics = metrics
        self._config = config
        self._watchers: set[Watcher] = set()
        self._is_over = False

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Serve one watcher until it leaves or the server stops."""
        if self._is_over or len(self._watchers) >= MAX_WATCHERS:
            raise Problem(
                ErrorType.OVERLOADED,
                f"At most {MAX_WATCHERS} may watch /events at once",
                retry_after_s=_RETRY_AFTER_S,
            )
        watcher = Watcher(request, self._frames, self._journal, self._config)
        self._watchers.add(watcher)
        self._journal.watch(watcher.wake)
        self._metrics.watchers_changed(len(self._watchers))
        try:
            with suppress(ConnectionResetError):  # raised on, aiohttp would log it
                await watcher.run(lambda: len(self._watchers))
            return watcher.response
        finally:
            self._journal.unwatch(watcher.wake)
            self._watchers.remove(watcher)
            self._metrics.watchers_changed(len(self._watchers))

    async def close(self, app: web.Application) -> None:
        """End every feed: with its last event, or by cutting it where nobody reads."""
        self._is_over = True
        for watcher in self._watchers:
            watcher.end()
