"""What `/v1/responses` takes and gives, as types; bounds are told as in `bodies.py`.

The key order of answers and events is the wire's.
https://platform.openai.com/docs/api-reference/responses
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from server.dialects import answers
from server.dialects.answers import CachedTokens, Count, ErrorDetail, Sentence
from server.dialects.bodies import (
    MAX_MESSAGES,
    Anything,
    ContentPart,
    Name,
    OpenAIBody,
    PromptText,
    Text,
    Uint,
    Word,
    said,
)

PART_KINDS = ("input_text", "output_text", "text")
_UNSTORED = "Not supported, nothing is stored; only null."

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
MessageStatus = Literal["in_progress", "completed", "incomplete"]
Status = Literal["in_progress", "completed", "incomplete", "failed"]
FailedCode = Literal["server_error", "rate_limit_exceeded"]
Lifecycle = Literal[
    "response.created", "response.in_progress", "response.completed", "response.incomplete"
]
ItemStage = Literal["response.output_item.added", "response.output_item.done"]
PartStage = Literal["response.content_part.added", "response.content_part.done"]
Empty = Annotated[list[answers.Word], Meta(max_length=0)]


class InputPart(ContentPart, kw_only=True):
    """A part of a message; this version reads text."""

    type: Annotated[Word, said("`input_text`, or `output_text`.", enum=list(PART_KINDS))]


class InputMessage(Struct, kw_only=True):
    """One turn of the input; an item of an earlier answer's output is one, too."""

    type: Annotated[Word | None, said("`message`.", enum=["message", None])] = None
    role: Annotated[
        Word | None, said("`user`, `assistant`, `system`, or `developer`, which means it, too.")
    ] = None
    content: Annotated[
        Text | Annotated[list[InputPart], Meta(max_length=MAX_MESSAGES)] | None,
        said("Text, or parts of it."),
    ] = None


class TextFormat(Struct, kw_only=True):
    """The form of the answer; this version knows plain text."""

    type: Annotated[Word, said("`text`.", enum=["text"])]


class TextOptions(Struct, kw_only=True):
    """What the text should be like."""

    format: TextFormat | None = None


class ResponsesBody(OpenAIBody, kw_only=True):
    """Turns to go on with, in the words of OpenAI's responses; chat's other fields count, too."""

    input: Annotated[
        PromptText
        | Annotated[
            list[InputMessage], Meta(max_length=MAX_MESSAGES, extra_json_schema={"minItems": 1})
        ],
        said("A user's turn, or the turns so far."),
    ]
    instructions: Annotated[Text | None, said("A system turn before the input.")] = None
    max_output_tokens: Annotated[Uint | None, said("As `max_tokens`.", minimum=1)] = None
    text: TextOptions | None = None
    metadata: Annotated[Metadata | None, said("Given back.")] = None
    user: Annotated[Name | None, said("Given back.")] = None
    store: Annotated[bool | None, said("Taken; nothing is stored, and the answer says so.")] = None
    previous_response_id: Annotated[str | None, said(_UNSTORED, type="null")] = None
    conversation: Annotated[Any, said(_UNSTORED, type="null")] = None
    background: Annotated[bool | None, said("Not supported; only false.", enum=[False, None])] = (
        None
    )
    n: Annotated[Uint | None, said("Only 1.", minimum=1, maximum=1)] = None
    tools: Annotated[Anything | None, said("Not supported: empty, or `tool_choice` is `none`.")] = (
        None
    )
    tool_choice: Annotated[Any, said("Tools are not supported.", enum=["none", "auto", None])] = (
        None
    )


class OutputText(Struct, kw_only=True):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: answers.Text
    annotations: Empty = []
    logprobs: Empty = []


class OutputMessage(Struct, kw_only=True):
    """The assistant's turn; while it is in progress it has no content."""

    id: answers.Word
    type: Literal["message"] = "message"
    status: MessageStatus
    role: Literal["assistant"] = "assistant"
    content: Annotated[list[OutputText], Meta(max_length=1)]


class IncompleteDetails(Struct):
    """Why an answer stops short."""

    reason: Literal["max_output_tokens"]


class FailedDetails(Struct):
    """Why an answer failed."""

    code: FailedCode
    message: Sentence


class InputTokensDetails(Struct):
    """How much of the prompt was known."""

    cached_tokens: CachedTokens
    cache_write_tokens: Annotated[int, Meta(ge=0, le=0, description="Nothing is kept for you.")] = 0


class OutputTokensDetails(Struct):
    """What else the output was."""

    reasoning_tokens: Count


class ResponseUsage(Struct):
    """What it cost, in tokens."""

    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class ResponseText(Struct):
    """What the text was asked to be like."""

    format: TextFormat


class ResponseAnswer(Struct, kw_only=True):
    """An answer, or as much of it as there is."""

    id: answers.Word
    object: Literal["response"] = "response"
    created_at: Count
    status: Status
    background: Literal[False] = False
    error: FailedDetails | None
    incomplete_details: IncompleteDetails | None
    instructions: answers.Text | None
    max_output_tokens: Count | None
    model: answers.Text
    output: Annotated[list[OutputMessage], Meta(max_length=1)]
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: Annotated[float, Meta(ge=0.0, le=1000.0)]
    text: ResponseText
    tool_choice: Literal["none"] = "none"
    tools: Empty = []
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)]
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None
    user: answers.Text | None
    metadata: Metadata


class ResponseEvent(Struct, kw_only=True):
    """The answer has begun, goes on, or has come to its end."""

    type: Lifecycle
    response: ResponseAnswer
    sequence_number: Count


class ResponseFailedEvent(Struct, kw_only=True):
    """The answer has failed; beside it what the other `/v1` streams end with."""

    type: Literal["response.failed"] = "response.failed"
    response: ResponseAnswer
    sequence_number: Count
    error: ErrorDetail
    error_type: answers.Word


class OutputItemEvent(Struct, kw_only=True):
    """A message begins or ends."""

    type: ItemStage
    output_index: Count = 0
    item: OutputMessage
    sequence_number: Count


class ContentPartEvent(Struct, kw_only=True):
    """A message's text begins or ends."""

    type: PartStage
    item_id: answers.Word
    output_index: Count = 0
    content_index: Count = 0
    part: OutputText
    sequence_number: Count


class TextDeltaEvent(Struct, kw_only=True):
    """One token of the text."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    item_id: answers.Word
    output_index: Count = 0
    content_index: Count = 0
    delta: answers.Text
    logprobs: Empty = []
    sequence_number: Count


class TextDoneEvent(Struct, kw_only=True):
    """All of the text."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    item_id: answers.Word
    output_index: Count = 0
    content_index: Count = 0
    text: answers.Text
    logprobs: Empty = []
    sequence_number: Count


EVENTS = (
    ResponseEvent,
    OutputItemEvent,
    ContentPartEvent,
    TextDeltaEvent,
    TextDoneEvent,
    ResponseFailedEvent,
)
"""What a stream holds; the last one where it fails."""
