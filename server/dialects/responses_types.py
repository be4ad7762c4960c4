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
    MAX_TOOL_DEPTH,
    MAX_TOOLS,
    MAX_TOOLS_BYTES,
    MAX_TOP_LOGPROBS,
    ContentPart,
    Json,
    Name,
    OpenAIBody,
    PromptText,
    Schema,
    Text,
    ToolName,
    Uint,
    Word,
    said,
)

TEXT_KINDS = ("input_text", "output_text", "text")
THOUGHT_KINDS = ("reasoning_text",)
ITEM_KINDS = ("message", "function_call", "function_call_output", "reasoning")
FORMS = ("text", "json_object", "json_schema")
LOGPROBS = "message.output_text.logprobs"
_UNSTORED = "Not supported, nothing is stored; only null."

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
Status = Literal["in_progress", "completed", "incomplete", "failed"]
FailedCode = Literal["server_error", "rate_limit_exceeded"]
Lifecycle = Literal[
    "response.created", "response.in_progress", "response.completed", "response.incomplete"
]
ItemStage = Literal["response.output_item.added", "response.output_item.done"]
PartStage = Literal["response.content_part.added", "response.content_part.done"]
Empty = Annotated[list[answers.Word], Meta(max_length=0)]
Logprobs = Annotated[
    list[answers.ChatLogprob],
    Meta(max_length=answers.MAX_TOKENS, description="Of each token, where asked for."),
]


class InputPart(ContentPart, kw_only=True):
    """A part of an item; this version reads text."""

    type: Annotated[
        Word,
        said(
            "`input_text`, or `output_text`; `reasoning_text` of `reasoning`.",
            enum=[*TEXT_KINDS, *THOUGHT_KINDS],
        ),
    ]


InputText = Text | Annotated[list[InputPart], Meta(max_length=MAX_MESSAGES)]


class InputItem(Struct, kw_only=True):
    """One item of the input, as answers hold them, too; its type says which fields count."""

    type: Annotated[
        Word | None, said("A `message` where it is missing.", enum=[*ITEM_KINDS, None])
    ] = None
    role: Annotated[
        Word | None, said("`user`, `assistant`, `system`, or `developer`, which means it, too.")
    ] = None
    content: Annotated[
        InputText | None, said("Text, or parts of it: of `message`, and of `reasoning`.")
    ] = None
    call_id: Annotated[Name | None, said("Names a call, and the one an output answers.")] = None
    name: Annotated[ToolName | None, said("Of `function_call`.")] = None
    arguments: Annotated[Text | None, said("Of `function_call`: JSON as a text.")] = None
    output: Annotated[
        InputText | None, said("Of `function_call_output`: text, or parts of it.")
    ] = None


class FunctionTool(Struct, kw_only=True):
    """Something the model may call."""

    type: Annotated[Word, said("`function`.", enum=["function"])]
    name: Annotated[ToolName | None, said("It must be there.")] = None
    description: Text | None = None
    parameters: Annotated[
        Json | None, said(f"JSON Schema of an object; nested at most {MAX_TOOL_DEPTH} deep.")
    ] = None
    strict: Annotated[bool | None, said("Given back. A call that is forced is always strict.")] = (
        None
    )


class FunctionChoice(Struct, kw_only=True):
    """The one tool to call."""

    type: Annotated[Word, said("`function`.", enum=["function"])]
    name: Annotated[ToolName | None, said("It must be there.")] = None


class TextFormat(Struct, kw_only=True, omit_defaults=True):
    """The form of the answer."""

    type: Annotated[Word, said("Of the answer's text.", enum=list(FORMS))]
    name: Annotated[Name | None, said("For people.")] = None
    schema: Annotated[Schema | None, said("The schema of `json_schema`; it must be there.")] = None
    strict: Annotated[bool | None, said("Given back. It is always followed strictly.")] = None


class Reasoning(Struct, kw_only=True):
    """What the model's template is told of thinking; other fields are ignored."""

    effort: Annotated[Word | None, said("As `chat_template_kwargs.reasoning_effort`.")] = None


class TextOptions(Struct, kw_only=True):
    """What the text should be like."""

    format: TextFormat | None = None


class ResponsesBody(OpenAIBody, kw_only=True):
    """Turns to go on with, in the words of OpenAI's responses; chat's other fields count, too."""

    input: Annotated[
        PromptText
        | Annotated[
            list[InputItem], Meta(max_length=MAX_MESSAGES, extra_json_schema={"minItems": 1})
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
    tools: Annotated[
        Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] | None,
        said(f"What the model may call; together at most {MAX_TOOLS_BYTES} bytes of JSON."),
    ] = None
    tool_choice: Annotated[
        ToolName | FunctionChoice | None,
        said("`auto`, `none`, `required`, or the tool to call, as an object or by its name."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, said("False: only the first call is answered with.")
    ] = None
    include: Annotated[
        Annotated[list[Word], Meta(max_length=128)] | None,
        said(f"`{LOGPROBS}`: report each token's logprob. Others are ignored."),
    ] = None
    top_logprobs: Annotated[
        Uint | None,
        said(f"Report so many alternatives a token; needs `{LOGPROBS}`.", maximum=MAX_TOP_LOGPROBS),
    ] = None
    reasoning: Reasoning | None = None


class OutputText(Struct, tag_field="type", tag="output_text", kw_only=True):
    """The text of a message."""

    text: answers.Text
    annotations: Empty = []
    logprobs: Logprobs = []


class ReasoningText(Struct, tag_field="type", tag="reasoning_text", kw_only=True):
    """What the model thought."""

    text: answers.Text


class OutputMessage(Struct, tag_field="type", tag="message", kw_only=True):
    """What the assistant says; while it is in progress it has no content."""

    id: answers.Word
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: Annotated[list[OutputText], Meta(max_length=1)]


class ReasoningItem(Struct, tag_field="type", tag="reasoning", kw_only=True):
    """What the assistant thinks; there is no summary of it."""

    id: answers.Word
    status: ItemStatus
    summary: Empty = []
    content: Annotated[list[ReasoningText], Meta(max_length=1)]


class FunctionCall(Struct, tag_field="type", tag="function_call", kw_only=True):
    """A call that the model asks for; while it is in progress it has no arguments."""

    id: answers.Word
    status: ItemStatus
    call_id: answers.Word
    name: answers.Word
    arguments: Annotated[answers.Text, Meta(description="JSON, as the model wrote it.")]


Item = OutputMessage | ReasoningItem | FunctionCall


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
    output: Annotated[list[Item], Meta(max_length=answers.MAX_TOKENS)]
    parallel_tool_calls: bool
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: Annotated[float, Meta(ge=0.0, le=1000.0)]
    text: ResponseText
    tool_choice: answers.Word | FunctionChoice
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)]
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
    """An item begins or ends."""

    type: ItemStage
    output_index: Count
    item: Item
    sequence_number: Count


class ContentPartEvent(Struct, kw_only=True):
    """A message's text, or a thought, begins or ends."""

    type: PartStage
    item_id: answers.Word
    output_index: Count
    content_index: Count = 0
    part: OutputText | ReasoningText
    sequence_number: Count


class TextDeltaEvent(Struct, kw_only=True):
    """What a text gained: one token, if it brought something."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    item_id: answers.Word
    output_index: Count
    content_index: Count = 0
    delta: answers.Text
    logprobs: Logprobs = []
    sequence_number: Count


class TextDoneEvent(Struct, kw_only=True):
    """All of a text."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    item_id: answers.Word
    output_index: Count
    content_index: Count = 0
    text: answers.Text
    logprobs: Logprobs = []
    sequence_number: Count


class ThoughtDeltaEvent(Struct, kw_only=True):
    """What a thought gained."""

    type: Literal["response.reasoning_text.delta"] = "response.reasoning_text.delta"
    item_id: answers.Word
    output_index: Count
    content_index: Count = 0
    delta: answers.Text
    sequence_number: Count


class ThoughtDoneEvent(Struct, kw_only=True):
    """All of a thought."""

    type: Literal["response.reasoning_text.done"] = "response.reasoning_text.done"
    item_id: answers.Word
    output_index: Count
    content_index: Count = 0
    text: answers.Text
    sequence_number: Count


class ArgumentsDeltaEvent(Struct, kw_only=True):
    """What the arguments of a call gained."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    item_id: answers.Word
    output_index: Count
    delta: answers.Text
    sequence_number: Count


class ArgumentsDoneEvent(Struct, kw_only=True):
    """All of the arguments of a call."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    item_id: answers.Word
    output_index: Count
    name: answers.Word
    arguments: answers.Text
    sequence_number: Count


EVENTS = (
    ResponseEvent,
    OutputItemEvent,
    ContentPartEvent,
    TextDeltaEvent,
    TextDoneEvent,
    ThoughtDeltaEvent,
    ThoughtDoneEvent,
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ResponseFailedEvent,
)
"""What a stream holds; the last one where it fails."""
