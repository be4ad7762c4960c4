"""StepHistory: what the last steps were like, for those who ask later why a sequence took its time.

Costs something for each step and each sequence, nothing for a token. Knows no sequence.
"""

from collections import deque
from typing import NamedTuple

from engine.outputs import LongStep

_MAX_KEPT = 256


class Mark(NamedTuple):
    """A moment in the history, to count from."""

    num_steps: int
    num_rows: int


class StepHistory:
    """Counts steps and their rows, and remembers the longest since any moment.

    Only steps that no later one outlasted are kept, each shorter than the one before it: the first
    that ended after a moment is the longest since.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self._num_rows = 0
        """Summed over all steps."""
        self._last_at: float | None = None
        self._longest: deque[tuple[float, LongStep]] = deque(maxlen=_MAX_KEPT)

    def add(self, now: float, num_rows: int, num_prefill_tokens: int) -> None:
        """Take in a step that ended now; it lasted since the one before it."""
        duration_s = 0.0 if self._last_at is None else now - self._last_at
        self._last_at = now
        self.num_steps += 1
        self._num_rows += num_rows
        longest = self._longest
        while longest and longest[-1][1].duration_s <= duration_s:
            longest.pop()
        longest.append((now, LongStep(duration_s, num_rows, num_prefill_tokens)))

    def mark(self) -> Mark:
        """Note where the history is now."""
        return Mark(self.num_steps, self._num_rows)

    def mean_rows_since(self, mark: Mark) -> float | None:
        """Say how many rows the steps after a mark had on average; None without such a step."""
        num_steps = self.num_steps - mark.num_steps
        return (self._num_rows - mark.num_rows) / num_steps if num_steps else None

    def longest_since(self, moment: float) -> LongStep | None:
        """Give the longest step of those that ended after a moment."""
        return next((step for ended_at, step in self._longest if ended_at > moment), None)
