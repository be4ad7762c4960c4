"""Progress: what a run has come to so far, read off its recordings while they fill.

Made to be cheap, since it runs beside the measurement: it counts events and does not read them. The
final figures come from elsewhere.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from server.recording import Recording
from server.report import Percentiles

NUM_RECENT = 2000
"""So many of the latest delays are ranked."""
_EVENT = b"data:"
_STATUS = slice(9, 12)
"""Where the status stands in the first line of an answer of HTTP/1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look."""

    num_requests: int
    num_running: int
    num_done: int
    """Ended in any way."""
    num_refused: int
    num_failed: int
    tokens_per_s: float
    """Since the look before."""
    pace: tuple[float, ...]
    """The same of the latest looks, this one last."""
    first_token_ms: Percentiles | None
    gap_ms: Percentiles | None
    """Between reads that brought events."""


@dataclass(eq=False, slots=True)
class _Cursor:
    """How far a recording has been read."""

    recording: Recording
    at: int = 0
    last: float | None = None
    """When the last event came."""


class Progress:
    """Follows one list of recordings; each look reads only what is new."""

    def __init__(self, num_requests: int, recordings: Sequence[Recording], now: float) -> None:
        self._num_requests = num_requests
        self._recordings = recordings
        self._num_seen = 0
        self._open: list[_Cursor] = []
        self._counts = {"done": 0, "refused": 0, "failed": 0}
        self._first_token_s: deque[float] = deque(maxlen=NUM_RECENT)
        self._gap_s: deque[float] = deque(maxlen=NUM_RECENT)
        self._pace: deque[float] = deque(maxlen=40)
        self._looked = now

    def look(self, now: float) -> Snapshot:
        """Read what came since the last look."""
        self._open += [_Cursor(recording) for recording in self._recordings[self._num_seen :]]
        self._num_seen = len(self._recordings)
        num_tokens = sum(self._read(cursor) for cursor in self._open)
        for cursor in self._open:
            if cursor.recording.is_ended:
                self._close(cursor.recording)
        self._open = [cursor for cursor in self._open if not cursor.recording.is_ended]
        self._pace.append(num_tokens / max(now - self._looked, 1e-3))
        self._looked = now
        return Snapshot(
            num_requests=self._num_requests,
            num_running=len(self._open),
            num_done=self._counts["done"],
            num_refused=self._counts["refused"],
            num_failed=self._counts["failed"],
            tokens_per_s=self._pace[-1],
            pace=tuple(self._pace),
            first_token_ms=Percentiles.of(self._first_token_s),
            gap_ms=Percentiles.of(self._gap_s),
        )

    def _read(self, cursor: _Cursor) -> int:
        """Count the events of the reads that are new."""
        num_events = 0
        reads = cursor.recording.reads
        for when, data in reads[cursor.at :]:
            num = data.count(_EVENT)
            if num and cursor.last is None:
                self._first_token_s.append(when - cursor.recording.due)
            elif num and cursor.last is not None:
                self._gap_s.append(when - cursor.last)
            cursor.last = when if num else cursor.last
            num_events += num
        cursor.at = len(reads)
        return num_events

    def _close(self, recording: Recording) -> None:
        self._counts["done"] += 1
        status = recording.reads[0][1][_STATUS] if recording.reads else b""
        if status == b"429":
            self._counts["refused"] += 1
        elif status != b"200" or recording.failure is not None:
            self._counts["failed"] += 1
