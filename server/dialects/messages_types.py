"""What `/v1/messages` takes and gives, as types; bounds are told as in `bodies.py`.

The key order of answers and events is the wire's. https://docs.claude.com/en/api/messages
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.dialects import answers
from server.dialects.answers import Count, Sentence
from server.dialects.bodies import (
    MAX_MESSAGES,
    Anything,
    ContentPart,
    Name,
    OpenAIBody,
    Stops,
    Text,
    Uint,
    Word,
    said,
)

Parts = Annotated[list[ContentPart], Meta(max_length=MAX_MESSAGES)]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence"]


class MessageTurn(Struct, kw_only=True):
    """One turn."""

    role: Annotated[Word, said("`user`, `assistant`, or what the template knows.")]
    content: Annotated[Text | Parts, said("Text, or blocks of it.")]


class MessageToolChoice(Struct, kw_only=True):
    """Which tools may be used; this version uses none."""

    type: Annotated[Word, said("Tools are not supported.", enum=["none", "auto"])]


class MessageMetadata(Struct, kw_only=True):
    """What is said about the request."""

    user_id: Annotated[Name | None, said("Not looked at.")] = None


Turns = Annotated[
    Annotated[list[MessageTurn], Meta(max_length=MAX_MESSAGES)],
    said("The turns so far; the assistant's as the last one is gone on with.", minItems=1),
]
System = Annotated[Text | Parts | None, said("What goes before the turns.")]
Tools = Annotated[Anything | None, said("Not supported: empty, or `tool_choice` is `none`.")]


class MessagesBody(OpenAIBody, kw_only=True):
    """Turns to go on with, in Anthropic's words; fields of OpenAI's routes count, too."""

    messages: Turns
    system: System = None
    max_tokens: Annotated[int, Meta(le=2**32 - 1), said("Generate at most so many.", minimum=1)]
    stop_sequences: Annotated[
        Stops | None, said("End before the first of these; the text does not hold it.")
    ] = None
    metadata: MessageMetadata | None = None
    n: Annotated[Uint | None, said("Only 1.", minimum=1, maximum=1)] = None
    tools: Tools = None
    tool_choice: MessageToolChoice | None = None


class CountTokensBody(Struct, kw_only=True):
    """Turns to count the tokens of; other fields are ignored."""

    messages: Turns
    system: System = None
    tools: Tools = None
    tool_choice: MessageToolChoice | None = None


class TextBlock(Struct, kw_only=True):
    """A block of text."""

    type: Literal["text"] = "text"
    text: answers.Text


class MessageUsage(Struct, kw_only=True):
    """What it cost, in tokens; the prompt's are the sum of three, and known at a stream's end."""

    input_tokens: Annotated[Count, Meta(description="Prompt tokens that were computed.")]
    cache_creation_input_tokens: Annotated[
        int, Meta(ge=0, le=0, description="Nothing is kept for you.")
    ] = 0
    cache_read_input_tokens: answers.CachedTokens
    output_tokens: Count


class MessageAnswer(Struct, kw_only=True):
    """The assistant's turn."""

    id: answers.Word
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    content: Annotated[list[TextBlock], Meta(max_length=1)]
    model: answers.Text
    stop_reason: StopReason | None
    stop_sequence: answers.Text | None
    usage: MessageUsage


class MessageStartEvent(Struct, kw_only=True):
    """The turn begins."""

    type: Literal["message_start"] = "message_start"
    message: MessageAnswer


class BlockStartEvent(Struct, kw_only=True):
    """Its text begins."""

    type: Literal["content_block_start"] = "content_block_start"
    index: Count = 0
    content_block: TextBlock


class PingEvent(Struct, kw_only=True):
    """Nothing is said."""

    type: Literal["ping"] = "ping"


class TextDelta(Struct, kw_only=True):
    """What the text gained."""

    type: Literal["text_delta"] = "text_delta"
    text: answers.Text


class BlockDeltaEvent(Struct, kw_only=True):
    """One token."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: Count = 0
    delta: TextDelta


class BlockStopEvent(Struct, kw_only=True):
    """The text ends."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: Count = 0


class MessageEnd(Struct, kw_only=True):
    """Why the turn ended."""

    stop_reason: StopReason
    stop_sequence: answers.Text | None


class MessageDeltaEvent(Struct, kw_only=True):
    """The turn's end, and what it cost."""

    type: Literal["message_delta"] = "message_delta"
    delta: MessageEnd
    usage: MessageUsage


class MessageStopEvent(Struct, kw_only=True):
    """This was all."""

    type: Literal["message_stop"] = "message_stop"


class MessageError(Struct):
    """Anthropic's error object."""

    type: answers.Word
    message: Sentence


class MessageErrorBody(Struct, kw_only=True):
    """Why there is no generation, on Anthropic's routes; also the last event of a stream."""

    type: Literal["error"] = "error"
    error: MessageError
    error_type: Annotated[answers.Word, Meta(description="Stable; the same on every route.")]


class TokenCount(Struct):
    """How many tokens a request's prompt has."""

    input_tokens: Count


EVENTS = (
    MessageStartEvent,
    BlockStartEvent,
    PingEvent,
    BlockDeltaEvent,
    BlockStopEvent,
    MessageDeltaEvent,
    MessageStopEvent,
)
"""What a stream holds that does not fail."""
