"""What `/v1/messages` takes and gives, as types; bounds are told as in `bodies.py`.

The key order of answers and events is the wire's. https://docs.claude.com/en/api/messages
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from server.dialects import answers
from server.dialects.answers import Count, Sentence
from server.dialects.bodies import (
    MAX_MESSAGES,
    MAX_TOOL_CALLS,
    MAX_TOOL_DEPTH,
    MAX_TOOLS,
    MAX_TOOLS_BYTES,
    ContentPart,
    Json,
    Name,
    OpenAIBody,
    Schema,
    Stops,
    Text,
    ToolName,
    Uint,
    Word,
    said,
)

SystemParts = Annotated[list[ContentPart], Meta(max_length=MAX_MESSAGES)]
NOT_JSON = "INVALID_JSON"
"""Anthropic's own name for it:
https://docs.claude.com/en/docs/agents-and-tools/tool-use/fine-grained-tool-streaming"""
Unsigned = Annotated[str, Meta(max_length=0, description="Nothing is signed.")]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
BLOCK_KINDS = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
CHOICES = ("auto", "any", "tool", "none")


class MessageBlock(Struct, kw_only=True):
    """A block of a turn; which of the fields count is said by its type."""

    type: Annotated[
        Word,
        said("The assistant may have all but `tool_result`, others that and text.",
             enum=list(BLOCK_KINDS)),
    ]  # fmt: skip
    text: Annotated[Text | None, said("Of `text`.")] = None
    thinking: Annotated[
        Text | None, said("Of `thinking`; for templates that use it. Signatures are not looked at.")
    ] = None
    id: Annotated[Name | None, said("Of `tool_use`: the name of this call.")] = None
    name: Annotated[ToolName | None, said("Of `tool_use`: the tool.")] = None
    input: Annotated[
        Json | None, said(f"Of `tool_use`: the arguments, nested at most {MAX_TOOL_DEPTH} deep.")
    ] = None
    tool_use_id: Annotated[Name | None, said("Of `tool_result`: the call it answers.")] = None
    content: Annotated[
        Text | SystemParts | None, said("Of `tool_result`: text, or blocks of it.")
    ] = None
    is_error: Annotated[
        bool | None, said("Of `tool_result`: the model is told so in front of the text.")
    ] = None


class MessageTurn(Struct, kw_only=True):
    """One turn."""

    role: Annotated[Word, said("`user`, `assistant`, or what the template knows.")]
    content: Annotated[
        Text | Annotated[list[MessageBlock], Meta(max_length=MAX_MESSAGES)],
        said(f"Text, or blocks; at most {MAX_TOOL_CALLS} of them calls."),
    ]


class MessageTool(Struct, kw_only=True):
    """Something the model may call."""

    type: Annotated[Word | None, said("`custom`.", enum=["custom", None])] = None
    name: ToolName
    description: Text | None = None
    input_schema: Annotated[
        Json | None, said(f"JSON Schema of an object; nested at most {MAX_TOOL_DEPTH} deep.")
    ] = None


class MessageToolChoice(Struct, kw_only=True):
    """Which tools may be used."""

    type: Annotated[Word, said("`any` and `tool` are kept by a grammar.", enum=list(CHOICES))]
    name: Annotated[ToolName | None, said("The one tool to call.")] = None
    disable_parallel_tool_use: Annotated[
        bool | None, said("True: only the first call is answered with.")
    ] = None


class MessageThinking(Struct, kw_only=True):
    """Whether the model's template is told to let it think; other fields are ignored."""

    type: Annotated[Word | None, said("`disabled` tells it not to, any other kind to.")] = None


class MessageFormat(Struct, kw_only=True):
    """The form of the answer."""

    type: Annotated[Word, said("`json_schema`.", enum=["json_schema"])]
    schema: Annotated[Schema | None, said("The schema; it must be there.")] = None


class MessageOutput(Struct, kw_only=True):
    """What the answer should be like; other fields are ignored."""

    format: MessageFormat | None = None


class MessageMetadata(Struct, kw_only=True):
    """What is said about the request."""

    user_id: Annotated[Name | None, said("Not looked at.")] = None


Turns = Annotated[
    Annotated[list[MessageTurn], Meta(max_length=MAX_MESSAGES)],
    said("The turns so far; the assistant's as the last one is gone on with.", minItems=1),
]
System = Annotated[Text | SystemParts | None, said("What goes before the turns.")]
Tools = Annotated[
    Annotated[list[MessageTool], Meta(max_length=MAX_TOOLS)] | None,
    said(f"What the model may call; together at most {MAX_TOOLS_BYTES} bytes of JSON."),
]


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
    thinking: MessageThinking | None = None
    output_config: MessageOutput | None = None


class CountTokensBody(Struct, kw_only=True):
    """Turns to count the tokens of; other fields are ignored."""

    messages: Turns
    system: System = None
    tools: Tools = None
    tool_choice: MessageToolChoice | None = None
    thinking: MessageThinking | None = None


class TextBlock(Struct, tag_field="type", tag="text", kw_only=True):
    """A block of text."""

    text: answers.Text


class ThinkingBlock(Struct, tag_field="type", tag="thinking", kw_only=True):
    """What the model thought."""

    thinking: answers.Text
    signature: Unsigned = ""


class ToolUseBlock(Struct, tag_field="type", tag="tool_use", kw_only=True):
    """A call that the model asks for."""

    id: answers.Word
    name: answers.Word
    input: Annotated[
        dict[str, Any],
        Meta(
            description="The arguments; empty where a stream begins it. What the model wrote is "
            f"the text of `{NOT_JSON}` where that is no object, as when it was cut."
        ),
    ]


Block = TextBlock | ThinkingBlock | ToolUseBlock


class MessageUsage(Struct, kw_only=True):
    """What it cost, in tokens; the prompt's are the sum of three.

    At a stream's start all of them count as computed.
    """

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
    content: Annotated[list[Block], Meta(max_length=answers.MAX_TOKENS)]
    model: answers.Text
    stop_reason: StopReason | None
    stop_sequence: answers.Text | None
    usage: MessageUsage


class MessageStartEvent(Struct, kw_only=True):
    """The turn begins."""

    type: Literal["message_start"] = "message_start"
    message: MessageAnswer


class BlockStartEvent(Struct, kw_only=True):
    """A block begins."""

    type: Literal["content_block_start"] = "content_block_start"
    index: Count
    content_block: Block


class PingEvent(Struct, kw_only=True):
    """Nothing is said."""

    type: Literal["ping"] = "ping"


class TextDelta(Struct, tag_field="type", tag="text_delta", kw_only=True):
    """What a text gained."""

    text: answers.Text


class ThinkingDelta(Struct, tag_field="type", tag="thinking_delta", kw_only=True):
    """What a thought gained."""

    thinking: answers.Text


class SignatureDelta(Struct, tag_field="type", tag="signature_delta", kw_only=True):
    """A thought is whole; some clients wait for this."""

    signature: Unsigned = ""


class InputJsonDelta(Struct, tag_field="type", tag="input_json_delta", kw_only=True):
    """What the arguments of a call gained."""

    partial_json: Annotated[answers.Text, Meta(description="JSON, as the model wrote it.")]


BlockDelta = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockDeltaEvent(Struct, kw_only=True):
    """What a block gained: one token, if it brought something."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: Count
    delta: BlockDelta


class BlockStopEvent(Struct, kw_only=True):
    """A block ends."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: Count


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
