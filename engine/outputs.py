"""Delta: one step's gain for one sequence, token by token; FinishReason and Usage.

What a stream carries from the engine to its reader. Knows no dialect.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from engine.errors import EngineError


class FinishReason(StrEnum):
    """Why a sequence ended."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TopToken:
    """One candidate the model might have said instead."""

    id: int
    text: str
    logprob: float
    is_special: bool


class Token(NamedTuple):
    """One generated token and the text it set free."""

    id: int
    text: str
    """Raw text this token completed, special tokens spelled out; "" inside a character."""
    visible: str
    """Text to show a person: no special tokens, no stop string, nothing that may become one."""
    is_special: bool
    logprob: float | None = None
    top: tuple[TopToken, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One prompt token with its logprob; the first has none."""

    id: int
    text: str
    logprob: float | None


class WaitedFor(StrEnum):
    """What the first in line could not have."""

    ROW = "row"
    BLOCKS = "blocks"
    PREFIX = "prefix"
    """The same beginning, which another was computing; those behind it went on."""


class LongStep(NamedTuple):
    """A step that kept its sequences waiting for their next tokens."""

    duration_s: float
    """Since the step before it ended."""
    num_rows: int
    num_prefill_tokens: int
    """Prompt tokens that it computed beside the others' next tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What went on around a sequence; it says why the sequence took as long as it did."""

    num_ahead: int = 0
    """Sequences that waited when it came."""
    waited_for: WaitedFor | None = None
    """What it wanted when it was first in line; None where it had to wait for its turn only."""
    num_preempted: int = 0
    preempted_s: float = 0.0
    """From its last token before a preemption to its return, summed up."""
    mean_rows: float | None = None
    """Rows of a step, on average, after its first token; itself included."""
    longest_step: LongStep | None = None
    """The longest after its first token."""


_ALONE = Circumstances()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the sequence cost, in tokens and seconds."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    queue_s: float
    inference_s: float
    """From the first step to the end."""
    first_token_s: float | None
    """From submission to the first token; None when there was none."""
    around: Circumstances = _ALONE


@dataclass(frozen=True, slots=True)
class Finish:
    """The one end of a sequence."""

    reason: FinishReason
    text: str
    """All visible text."""
    usage: Usage
    stop: str | None = None
    """The stop string that ended it."""
    error: EngineError | None = None
    prompt: tuple[PromptToken, ...] = ()
    """Prompt tokens with logprobs, where they were asked for and are enabled."""


class Delta(NamedTuple):
    """One step's gain for one sequence.

    Text that was held back for a stop string which never came is in the last token's `visible`.
    """

    tokens: tuple[Token, ...]
    finish: Finish | None = None
