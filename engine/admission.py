"""AdmissionQueue: the waiting room, bounded by sequences and by prompt tokens.

Refuses early, expires late; first come, first served. A preempted sequence waits first in line and
outside the bounds: it was admitted once and is never refused.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import dropwhile, takewhile

from engine.errors import Overloaded
from engine.sequence import Sequence


class AdmissionQueue:
    """Sequences that wait for their first step, or for their next after a preemption."""

    def __init__(
        self, max_waiting: int, max_waiting_tokens: int, max_queue_s: float | None
    ) -> None:
        self.max_waiting = max_waiting
        self.max_waiting_tokens = max_waiting_tokens
        self.max_queue_s = max_queue_s
        self._line: OrderedDict[int, Sequence] = OrderedDict()
        self.num_tokens = 0
        """Prompt tokens of all that wait for their first step."""

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._line.values())

    def push(self, sequence: Sequence, num_free_rows: int) -> None:
        """Let a new sequence in, or raise Overloaded.

        `num_free_rows` may start at the next step: so many more than may wait are let in.
        """
        if len(self._line) >= self.max_waiting + num_free_rows:
            raise Overloaded(
                f"the waiting room is full: {len(self._line)} sequences wait, "
                f"at most {self.max_waiting} may"
            )
        if self.num_tokens and self.num_tokens + sequence.num_prompt > self.max_waiting_tokens:
            raise Overloaded(
                f"the waiting room is full: {self.num_tokens} prompt tokens wait, "
                f"at most {self.max_waiting_tokens} may. Given: {sequence.num_prompt}"
            )
        sequence.move("admit")
        self._line[sequence.sequence_id] = sequence
        self.num_tokens += sequence.num_prompt

    def push_front(self, sequence: Sequence) -> None:
        """Take back a sequence that was preempted; it goes on before all others."""
        self._line[sequence.sequence_id] = sequence
        self._line.move_to_end(sequence.sequence_id, last=False)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, to start it or because it ended."""
        del self._line[sequence.sequence_id]
        if sequence.started_at is None:
            self.num_tokens -= sequence.num_prompt

    def expired(self, now: float) -> list[Sequence]:
        """List those that have waited too long for their first step; looks at no others.

        The new ones stand in the order of their submission, behind those that were preempted.
        """
        if self.max_queue_s is None:
            return []
        due = now - self.max_queue_s
        new = dropwhile(lambda sequence: sequence.started_at is not None, self._line.values())
        return list(takewhile(lambda sequence: sequence.submitted_at < due, new))
