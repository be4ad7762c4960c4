"""Call and Reply: the seam between a dialect and the handler that serves it.

A dialect turns a body into a Call, or raises a Problem that names the field. The handler takes the
Call's permits, asks for its generations (ranges are checked there), encodes and submits them, and
feeds every Delta to the Call's Reply, which renders it in the dialect's words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from engine import Chat, Delta, SamplingParams
from server.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectConfig:
    """What a dialect must know of the server: limits for its checks, names for its answers."""

    model_id: str
    vocab_size: int
    max_best_of: int
    max_choices: int
    """Sequences of one request on OpenAI's routes, over all its prompts."""
    max_stop_sequences: int
    max_top_n_tokens: int
    max_client_batch_size: int
    max_input_tokens: int
    max_total_tokens: int
    is_prompt_logprobs_enabled: bool
    adapters: tuple[str, ...] = ()
    """What the loaded adapters are called."""
    is_unknown_adapter_ignored: bool = False
    """Let an unknown adapter mean the base model, as in TGI."""
    is_full_text_default: bool
    """`POST /` puts the prompt in front unless told otherwise."""
    tool_format: str | None = None
    """How the model writes calls; None where that is not known."""
    mark_ids: Mapping[str, int] = field(default_factory=dict)
    """Of the marks of calls and thoughts those that are special tokens, with their ids."""
    has_reasoning: bool = False
    """Whether thoughts are split off from chat answers."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the model's chat template; contents are plain strings by now."""

    messages: tuple[Mapping[str, Any], ...]
    is_continued: bool = False
    """The last message is the assistant's and goes on."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What the template knows beside the messages: tools, and what the client may tell it."""
    is_ending_wanted: bool = False
    """The reply must know how the rendered prompt ends."""

    def chat(self) -> Chat:
        """Give what is to be rendered."""
        return Chat(self.messages, self.is_continued, self.variables)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One sequence that a call asks for."""

    prompt: str | ChatPrompt | tuple[int, ...]
    params: SamplingParams
    """Its max_new_tokens is set by the handler, once the prompt's length is known."""
    max_new_tokens: int | None
    grammar_field: str = "grammar"
    """How the client called what `params.grammar` was read from."""
    truncate: int | None = None
    """Keep only so many of the last prompt tokens."""


class EncodedPrompt(NamedTuple):
    """What is known of a generation's prompt once it was encoded."""

    num_tokens: int
    ending: str = ""
    """Its last characters, special tokens spelled out; "" where they are not wanted."""


class Reply(Protocol):
    """One answer in the making; sequences are told apart by their index in `generations()`."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """Take a sequence's delta; return the events to write now (none when not streaming)."""
        ...

    def end(self) -> bytes:
        """Return the last bytes of a stream, or the whole body when not streaming.

        Called once, after every sequence's finish went through `delta`.
        """
        ...

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event of a stream that has begun."""
        ...


class Call(Protocol):
    """One parsed request."""

    @property
    def is_stream(self) -> bool:
        """Tell whether the answer is a stream of events."""
        ...

    @property
    def num_permits(self) -> int:
        """How many sequences it will ask for; all or none get permits."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer's head should say beside the handler's own headers."""
        ...

    def generations(self) -> tuple[Generation, ...]:
        """Check every range and say what to generate; raises Problem."""
        ...

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer; `created_s` is in Unix seconds, `prompts` has one a generation."""
        ...


class Dialect(Protocol):
    """One way of asking: a body in, a Call out."""

    def parse(self, body: bytes) -> Call:
        """Decode and check types; raises Problem (400 for malformed JSON, 422 for the rest)."""
        ...

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole JSON body, before anything was sent."""
        ...
