"""Sequence: one generation's tokens, counts and state; the transition table lives here.

There is no prefill state and no decode state: `num_computed` chases `num_tokens`.
"""

from collections.abc import Sequence as AbstractSequence
from enum import StrEnum
from typing import NamedTuple

from engine.batch import RowWork
from engine.blocks import Prefix, Root
from engine.detokenizer import Detokenizer
from engine.drafts import Drafts
from engine.history import Mark, StepHistory
from engine.outputs import Circumstances, Usage, WaitedFor
from engine.sampling_params import SamplingParams
from engine.stats import SequenceProgress


class State(StrEnum):
    """Where a sequence is; it is in exactly one container for it."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


_NEXT = {
    (State.NEW, "admit"): State.WAITING,
    (State.WAITING, "start"): State.RUNNING,
    (State.RUNNING, "preempt"): State.WAITING,
    (State.RUNNING, "finish"): State.FINISHED,
    (State.WAITING, "finish"): State.FINISHED,
}


class Awaited(NamedTuple):
    """A sequence whose beginning another one wants to share, and how much of it."""

    sequence: "Sequence"
    num_tokens: int


class Sequence:
    """One generation. Changed by the Scheduler alone, on the event loop."""

    __slots__ = (
        "awaited",
        "blocks",
        "decode",
        "detokenizer",
        "drafts",
        "first_token_at",
        "first_token_mark",
        "last_token_at",
        "num_ahead",
        "num_cached",
        "num_computed",
        "num_preempted",
        "num_prompt",
        "num_remembered",
        "params",
        "preempted_s",
        "prefix",
        "prompt_logprobs",
        "sequence_id",
        "started_at",
        "state",
        "submitted_at",
        "token_ids",
        "waited_for",
    )

    def __init__(
        self,
        sequence_id: int,
        prompt_ids: AbstractSequence[int],
        params: SamplingParams,
        detokenizer: Detokenizer,
        submitted_at: float = 0.0,
    ) -> None:
        self.sequence_id = sequence_id
        self.decode = RowWork(sequence_id, num_tokens=1, num_logits=1, is_sampled=True)
        """Its work in most steps: the last token, into a block that it has."""
        self.params = params
        self.detokenizer = detokenizer
        self.state = State.NEW
        self.token_ids = list(prompt_ids)
        """Prompt and output."""
        self.num_prompt = len(prompt_ids)
        self.num_computed = 0
        """Leading tokens whose keys and values lie in `blocks`."""
        self.num_cached = 0
        """Of the prompt, how many were found in the prefix cache at the first start."""
        self.blocks: list[int] = []
        self.prefix: Prefix | Root | None = None
        """The last block of this sequence that the prefix cache knows, or what they start from."""
        self.num_remembered = 0
        self.drafts: Drafts | None = None
        """Where its next tokens are guessed, once it has streamed with speculation on."""
        self.awaited: Awaited | None = None
        """Whose blocks it waits for, while it could start otherwise."""
        self.prompt_logprobs: list[float] = []
        self.submitted_at = submitted_at
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.first_token_mark: Mark | None = None
        """Where the history of steps was at its first token."""
        self.last_token_at: float | None = None
        self.num_ahead = 0
        self.waited_for: WaitedFor | None = None
        self.num_preempted = 0
        self.preempted_s = 0.0

    def __repr__(self) -> str:
        return (
            f"<{self.sequence_id} {self.state} {self.num_computed}/{self.num_tokens} tokens, "
            f"{self.num_output} out, {len(self.blocks)} blocks>"
        )

    @property
    def num_tokens(self) -> int:
        """Count prompt and output."""
        return len(self.token_ids)

    @property
    def num_behind(self) -> int:
        """Count the tokens that are not yet computed: 1 in a row that streams."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_output(self) -> int:
        """Count the generated tokens."""
        return len(self.token_ids) - self.num_prompt

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Tell whether prompt logprobs are still to be computed."""
        return self.params.prompt_logprobs and len(self.prompt_logprobs) < self.num_prompt - 1

    def move(self, event: str) -> None:
        """Take one step of the transition table; anything else is a bug."""
        state = _NEXT.get((self.state, event))
        if state is None:
            raise RuntimeError(f"This is a bug. {self!r} cannot {event}.")
        self.state = state

    def append(self, token_id: int, now: float) -> float | None:
        """Add one generated token; return the seconds since the last one, None for the first."""
        self.token_ids.append(token_id)
        last, self.last_token_at = self.last_token_at, now
        if last is None:
            self.first_token_at = now
            return None
        return now - last

    def resume(self, now: float) -> None:
        """Count the pause of a sequence that starts again after a preemption."""
        self.preempted_s += now - (self.last_token_at or self.started_at or now)

    def progress(self) -> SequenceProgress:
        """Say how far it has come."""
        return SequenceProgress(
            self.sequence_id,
            self.state is State.RUNNING,
            self.num_prompt,
            self.num_cached,
            self.num_computed,
            self.num_output,
            self.num_preempted,
            self.submitted_at,
            self.started_at,
            self.first_token_at,
        )

    def usage(self, now: float, history: StepHistory) -> Usage:
        """Add up what this sequence has cost by now."""
        started_at = now if self.started_at is None else self.started_at
        first = self.first_token_at
        return Usage(
            num_prompt_tokens=self.num_prompt,
            num_cached_tokens=self.num_cached,
            num_output_tokens=self.num_output,
            queue_s=started_at - self.submitted_at,
            inference_s=now - started_at,
            first_token_s=None if first is None else first - self.submitted_at,
            around=self._circumstances(history),
        )

    def _circumstances(self, history: StepHistory) -> Circumstances:
        first, mark = self.first_token_at, self.first_token_mark
        return Circumstances(
            num_ahead=self.num_ahead,
            waited_for=self.waited_for,
            num_preempted=self.num_preempted,
            preempted_s=self.preempted_s,
            mean_rows=None if mark is None else history.mean_rows_since(mark),
            longest_step=None if first is None else history.longest_since(first),
        )
