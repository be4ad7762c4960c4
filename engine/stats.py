"""StepStats, SequenceStats and Observer: what the engine tells the outside about itself."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.outputs import FinishReason, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One step, told after it."""

    duration_s: float
    """The forward pass and sampling, as the scheduler coroutine awaited it."""
    schedule_s: float
    update_s: float
    num_prefill_tokens: int
    num_decode_tokens: int
    """Of rows that stream; what was guessed for them included."""
    num_running: int
    num_waiting: int
    num_joined: int
    num_preempted: int
    num_free_blocks: int
    is_failed: bool = False
    num_draft_tokens: int = 0
    """Guessed for rows that stream."""
    num_accepted: tuple[int, ...] = ()
    """How many tokens of each row's guess were right and given out."""


@dataclass(frozen=True, slots=True)
class SequenceStats:
    """One sequence, told at its end."""

    reason: FinishReason
    usage: Usage


class SequenceProgress(NamedTuple):
    """How far one sequence has come that has not ended; moments in seconds of the engine's clock.

    A named tuple, since a watcher wants one of each sequence several times a second.
    """

    sequence_id: int
    is_running: bool
    """Else it waits, for its first step or after a preemption."""
    num_prompt_tokens: int
    num_cached_tokens: int
    num_computed_tokens: int
    """Of prompt and output; 0 while it waits."""
    num_output_tokens: int
    num_preempted: int
    submitted_at: float
    started_at: float | None
    first_token_at: float | None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine as it is now."""

    num_running: int
    num_waiting: int
    num_waiting_tokens: int
    num_blocks: int
    num_free_blocks: int
    """Free or only cached: what a new sequence could get."""
    num_cached_blocks: int
    """Unowned blocks that still hold a known prefix; part of the free ones."""
    block_size: int
    num_running_tokens: int
    """Tokens held by running sequences, for TGI's `tgi_batch_current_max_tokens`."""
    seconds_since_step: float
    finish_rate: float
    """Sequences finished per second, over the last ones; 0.0 while unknown."""
    num_steps: int = 0
    num_generated_tokens: int = 0
    """By all sequences, those that still run included."""
    last_step: StepStats | None = None


class Observer(Protocol):
    """Who wants to know; called on the event loop, must not block."""

    def on_step(self, stats: StepStats) -> None:
        """Hear about one step."""
        ...

    def on_started(self, queue_s: float) -> None:
        """Hear that a sequence left the waiting room for its first step."""
        ...

    def on_tokens(self, first_token_s: tuple[float, ...], gaps_s: tuple[float, ...]) -> None:
        """Hear one step's new tokens: TTFT of first ones, gaps of later ones, in seconds."""
        ...

    def on_prefix_lookup(self, num_tokens: int, num_hit_tokens: int) -> None:
        """Hear how much of a prompt was found in the prefix cache."""
        ...

    def on_finished(self, stats: SequenceStats) -> None:
        """Hear that a sequence has ended."""
        ...
