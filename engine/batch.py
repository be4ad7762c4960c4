"""Batch and StepOutput: what one step is asked and what it answers; Runner, the seam to torch.

The runner keeps the rows (their ids, block tables and parameters); a Batch says only what changes
in this step. Both are plain frozen records, so that a runner may live on a thread, in another
process or on a device ahead of us; a new runner needs joins only. What is made for each token is a
named tuple, which takes a third of a frozen dataclass's time.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A sequence that enters the runner's rows, for the first time or after a preemption."""

    sequence_id: int
    token_ids: tuple[int, ...]
    """Prompt and the output so far."""
    num_prompt_tokens: int
    num_computed_tokens: int
    """Leading tokens whose keys and values already lie in `blocks` (a cached prefix)."""
    blocks: tuple[int, ...]
    """Block table at the join; RowWork.new_blocks of the same step come after these."""
    params: SamplingParams


class RowWork(NamedTuple):
    """One row's share of a step: its next `num_tokens` tokens that are not yet computed."""

    sequence_id: int
    num_tokens: int
    num_logits: int
    """From how many of these tokens, counted from the last, logits are wanted: 0 for a prompt
    chunk with more to come, 1 to sample, `num_tokens` for prompt logprobs and with drafts."""
    is_sampled: bool
    """Sample one token from the last logits; the runner appends it to its row."""
    new_blocks: tuple[int, ...] = ()
    drafts: tuple[int, ...] = ()
    """Guesses of what follows the row's last token; `num_tokens` counts them. As many tokens are
    sampled as were guessed right, and one more; of the others nothing remains."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What changes in one step: first the rows that leave, then those that join, then the work."""

    step: int
    leave: tuple[int, ...]
    join: tuple[Join, ...]
    work: tuple[RowWork, ...]

    @property
    def num_tokens(self) -> int:
        """Count the tokens of this forward pass."""
        return sum(row.num_tokens for row in self.work)

    @property
    def prefill(self) -> list[RowWork]:
        """List the rows that compute more than their last token.

        They are among the last: what joins, and before it a prompt of which a chunk was left.
        """
        last = self.work[-len(self.join) - 1 :]
        return [row for row in last if row.num_tokens > 1 and not row.drafts]

    @property
    def num_prefill_tokens(self) -> int:
        """Count the tokens of rows that compute more than their last one."""
        return sum(row.num_tokens for row in self.prefill)


class Sampled(NamedTuple):
    """One sampled token, with logprobs only where the sequence asked for them."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """Pairs (token id, logprob), best first; ties at the end may make it longer than asked."""


class RowOutput(NamedTuple):
    """What one row gained."""

    sequence_id: int
    sampled: tuple[Sampled, ...] = ()
    """One token, several when drafts are accepted; none for a prompt chunk."""
    prompt_logprobs: tuple[float, ...] = ()
    """Of the chunk's tokens after its first, and of the token after the chunk where the prompt
    has one: logprob of token i + 1 given the tokens up to i."""
    error: str | None = None
    """Why this row cannot go on; the others are not touched by it."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step answers: one RowOutput for each RowWork, in the same order."""

    step: int
    rows: tuple[RowOutput, ...]


class Runner(Protocol):
    """The seam to torch: computes one step at a time, off the event loop."""

    def execute(self, batch: Batch) -> StepOutput:
        """Run one forward pass over the batch's rows and sample; blocks until it is done."""
        ...

    def close(self) -> None:
        """Give back memory and threads."""
        ...
