"""Journal: which requests are open, and how the last ones ended; for those who watch.

A request costs it a few words at its arrival and at its end, a token nothing. It keeps numbers and
words of ours, never a text or a name that a client chose. Knows no HTTP.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from server.live.why import Story
from server.millrace_metrics import Refusal

MAX_ENDED = 100
MAX_REFUSED = 20
"""Kept apart, so that a flood of refusals does not push out what was served."""


@dataclass(eq=False, slots=True)
class OpenRequest:
    """A request that has not ended; changed by its Exchange alone."""

    number: int
    """Counts from 1 since the server started."""
    route: str
    arrived_at: float
    """In seconds of the engine's clock."""
    is_stream: bool = False
    sequence_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request that has ended; `place` counts ends, as `number` counts arrivals."""

    place: int
    number: int
    route: str
    is_stream: bool
    arrived_at: float
    story: Story


class Journal:
    """Everything that was asked of the server, from the moment it comes until it is forgotten."""

    def __init__(self) -> None:
        self.open: dict[int, OpenRequest] = {}
        self.num_requests = 0
        self.num_ended = 0
        self.num_refused = dict.fromkeys(Refusal, 0)
        self._ended: deque[EndedRequest] = deque(maxlen=MAX_ENDED)
        self._refused: deque[EndedRequest] = deque(maxlen=MAX_REFUSED)
        self._watchers: set[Callable[[], None]] = set()

    def begin(self, route: str, arrived_at: float) -> OpenRequest:
        """Note a request at its arrival; the route is one of the server's own."""
        self.num_requests += 1
        request = OpenRequest(self.num_requests, route, arrived_at)
        self.open[request.number] = request
        self._tell()
        return request

    def end(self, request: OpenRequest, story: Story) -> None:
        """Note how it ended."""
        del self.open[request.number]
        self.num_ended += 1
        kept = self._ended
        if story.refusal is not None:
            self.num_refused[story.refusal] += 1
            kept = self._refused
        kept.append(
            EndedRequest(
                self.num_ended,
                request.number,
                request.route,
                request.is_stream,
                request.arrived_at,
                story,
            )
        )
        self._tell()

    def ended_after(self, place: int) -> list[EndedRequest]:
        """List, in order, what ended after that many others, as far as it is remembered."""
        if place >= self.num_ended:
            return []
        both: Iterable[EndedRequest] = (*self._ended, *self._refused)
        return sorted((ended for ended in both if ended.place > place), key=attrgetter("place"))

    def watch(self, tell: Callable[[], None]) -> None:
        """Call this at each arrival and end, from now on."""
        self._watchers.add(tell)

    def unwatch(self, tell: Callable[[], None]) -> None:
        """Leave it."""
        self._watchers.remove(tell)

    def _tell(self) -> None:
        for tell in self._watchers:
            tell()
