"""The bodies and events that dialects answer with, as types; the key order is the wire's.

Rendered as they are, but for the events of a running stream, which are templates in the dialects;
the OpenAPI document is made of the same types. UNSET leaves a key out.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from server.dialects.ranges import MAX_SEED

MAX_TOKENS = 2**31 - 1
MAX_ANSWER = 64_000_000
_MAX_FLOAT = 3.5e38

Text = Annotated[str, Meta(max_length=MAX_ANSWER)]
Word = Annotated[str, Meta(max_length=256)]
Sentence = Annotated[str, Meta(max_length=100_000)]
Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
CachedTokens = Annotated[Count, Meta(description="Prompt tokens taken from the prefix cache.")]
Logprob = Annotated[float, Meta(ge=-_MAX_FLOAT, le=0.0)]
Seed = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_SEED})]
Byte = Annotated[int, Meta(ge=0, le=255)]
FinishReason = Annotated[
    str, Meta(max_length=64, extra_json_schema={"enum": ["length", "eos_token", "stop_sequence"]})
]
StopReason = Annotated[str, Meta(max_length=64, extra_json_schema={"enum": ["length", "stop"]})]
ChatStopReason = Annotated[
    str, Meta(max_length=64, extra_json_schema={"enum": ["length", "stop", "tool_calls"]})
]


class ErrorBody(Struct):
    """Why there is no generation, on TGI's routes; also an event of a stream that has begun."""

    error: Sentence
    error_type: Annotated[Word, Meta(description="Stable; clients raise by it.")]


class ErrorDetail(Struct):
    """OpenAI's error object."""

    message: Sentence
    type: Word
    param: Annotated[Sentence | None, Meta(description="The offending field.")]
    code: Word
    http_status_code: Annotated[int, Meta(ge=400, le=599)]


class OpenAIErrorBody(Struct):
    """Why there is no generation, on OpenAI's routes; also an event of a stream that has begun."""

    error: ErrorDetail
    error_type: Annotated[Word, Meta(description="Stable; TGI's clients raise by it.")]


class TokenAnswer(Struct):
    """One generated token."""

    id: Count
    text: Text
    logprob: Logprob | None
    special: bool


class PrefillToken(Struct):
    """One prompt token; the first has no logprob."""

    id: Count
    text: Text
    logprob: Logprob | None


Tokens = Annotated[list[TokenAnswer], Meta(max_length=MAX_TOKENS)]
TopTokens = Annotated[list[Tokens], Meta(max_length=MAX_TOKENS)]
Prefill = Annotated[list[PrefillToken], Meta(max_length=MAX_TOKENS)]


class BestOfSequence(Struct, kw_only=True):
    """A sequence that was not the likeliest."""

    generated_text: Text
    finish_reason: FinishReason
    generated_tokens: Count
    seed: Seed | None
    cached_tokens: CachedTokens
    prefill: Prefill
    tokens: Tokens
    top_tokens: TopTokens | UnsetType = UNSET


class Details(Struct, kw_only=True):
    """How the text came about."""

    finish_reason: FinishReason
    generated_tokens: Count
    seed: Seed | None
    cached_tokens: CachedTokens
    prefill: Prefill
    tokens: Tokens
    best_of_sequences: Annotated[list[BestOfSequence], Meta(max_length=64)] | UnsetType = UNSET
    top_tokens: TopTokens | UnsetType = UNSET


class GenerateAnswer(Struct, kw_only=True):
    """The continuation."""

    generated_text: Text
    details: Details | UnsetType = UNSET


class StreamDetails(Struct, kw_only=True):
    """How the streamed text came about."""

    finish_reason: FinishReason
    generated_tokens: Count
    seed: Seed | None
    input_length: Count
    cached_tokens: CachedTokens


class StreamEvent(Struct, kw_only=True):
    """One token of a stream; the last one carries the text."""

    index: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
    token: TokenAnswer
    top_tokens: Tokens | UnsetType = UNSET
    generated_text: Text | None
    details: StreamDetails | None


class SpanAnswer(Struct):
    """One token of a text, with byte offsets into its UTF-8 form."""

    id: Count
    text: Text
    start: Count
    stop: Count


Spans = Annotated[list[SpanAnswer], Meta(max_length=MAX_TOKENS)]


class ChatTokenizeAnswer(Struct):
    """A rendered chat and its tokens."""

    tokenize_response: Spans
    templated_text: Text


class DetokenizeAnswer(Struct):
    """The text of token ids, by the name that vLLM gives it."""

    prompt: Text


class Predictions(Struct):
    """One text an instance."""

    predictions: Annotated[list[Text], Meta(max_length=MAX_TOKENS)]


class PromptTokensDetails(Struct):
    """How much of the prompts was known."""

    cached_tokens: CachedTokens


class UsageAnswer(Struct):
    """What it cost, in tokens."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails


class CompletionLogprobs(Struct):
    """Columns of equal length, one row a token; offsets are characters of the text."""

    tokens: Annotated[list[Text], Meta(max_length=MAX_TOKENS)]
    token_logprobs: Annotated[list[Logprob | None], Meta(max_length=MAX_TOKENS)]
    top_logprobs: (
        Annotated[
            list[Annotated[dict[Text, Logprob | None], Meta(max_length=MAX_TOKENS)] | None],
            Meta(max_length=MAX_TOKENS),
        ]
        | None
    )
    text_offset: Annotated[list[Count], Meta(max_length=MAX_TOKENS)]


class CompletionChoice(Struct):
    """One continuation of a prompt, or a chunk of it."""

    index: Count
    text: Text
    logprobs: CompletionLogprobs | None
    finish_reason: StopReason | None


CompletionChoices = Annotated[list[CompletionChoice], Meta(max_length=128)]


class Completion(Struct, kw_only=True):
    """The continuations, in the order of the prompts."""

    object: Literal["text_completion"]
    id: Word
    created: Count
    model: Text
    system_fingerprint: Word
    choices: CompletionChoices
    usage: UsageAnswer


class CompletionChunk(Struct, kw_only=True):
    """One token of one prompt's continuation; usage comes in a chunk without choices."""

    object: Literal["text_completion"]
    id: Word
    created: Count
    choices: CompletionChoices
    model: Text
    system_fingerprint: Word
    usage: UsageAnswer | UnsetType | None = UNSET


class TopLogprob(Struct):
    """A token that might have come instead."""

    token: Text
    logprob: Logprob | None
    bytes: Annotated[list[Byte], Meta(max_length=MAX_TOKENS)]


class ChatLogprob(TopLogprob):
    """A token that came; joined, the bytes of all of them are the raw text in UTF-8."""

    top_logprobs: Annotated[list[TopLogprob], Meta(max_length=MAX_TOKENS)]


class ChatLogprobs(Struct):
    """One entry a token."""

    content: Annotated[list[ChatLogprob], Meta(max_length=MAX_TOKENS)]


class CalledFunction(Struct):
    """What to call, and with what."""

    name: Word
    arguments: Annotated[Text, Meta(description="JSON, as the model wrote it.")]


class ToolCall(Struct):
    """A call that the model asks for."""

    id: Word
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Struct):
    """The assistant's turn; its text is null where it only calls."""

    role: Literal["assistant"]
    content: Text | None
    reasoning_content: Text | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_TOKENS)] | UnsetType = UNSET


class ChatChoice(Struct):
    """One answer."""

    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatStopReason


class ChatCompletion(Struct, kw_only=True):
    """The assistant's turn, whole."""

    object: Literal["chat.completion"]
    id: Word
    created: Count
    model: Text
    system_fingerprint: Word
    choices: Annotated[list[ChatChoice], Meta(max_length=128)]
    usage: UsageAnswer


class FunctionDelta(Struct, kw_only=True):
    """What a call gained: first its name, then pieces of its arguments."""

    name: Word | UnsetType = UNSET
    arguments: Text


class ToolCallDelta(Struct, kw_only=True):
    """What one of the calls gained; the first piece has the id."""

    index: Count
    id: Word | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChatDelta(Struct, kw_only=True):
    """What the turn gained: first the role, then thoughts, text and calls, at the end nothing."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: Text | UnsetType = UNSET
    reasoning_content: Text | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCallDelta], Meta(max_length=1)] | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """One answer's gain."""

    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatStopReason | None


class ChatChunk(Struct, kw_only=True):
    """One token of the assistant's turn; usage comes in a chunk without choices."""

    object: Literal["chat.completion.chunk"]
    id: Word
    created: Count
    model: Text
    system_fingerprint: Word
    choices: Annotated[list[ChatChunkChoice], Meta(max_length=128)]
    usage: UsageAnswer | UnsetType | None = UNSET


class Model(Struct, kw_only=True):
    """A model that is served."""

    id: Text
    object: Literal["model"]
    created: Count
    owned_by: Text
    parent: (
        Annotated[Text, Meta(description="The model that an adapter is added to.")] | UnsetType
    ) = UNSET


class ModelList(Struct, kw_only=True):
    """The models that are served."""

    object: Literal["list"]
    data: Annotated[list[Model], Meta(max_length=10_000)]


class Info(Struct, kw_only=True):
    """Model and limits: TGI 3's fields, those of its older versions, and ours."""

    model_id: Text
    model_sha: Word | None
    model_dtype: Word
    model_device_type: Word
    model_pipeline_tag: Word
    max_concurrent_requests: Count
    max_best_of: Count
    max_stop_sequences: Count
    max_input_tokens: Count
    max_input_length: Annotated[Count, Meta(description="The older name of `max_input_tokens`.")]
    max_total_tokens: Count
    waiting_served_ratio: Annotated[float, Meta(ge=0.0, le=1.0)]
    max_batch_total_tokens: Count
    max_waiting_tokens: Count
    max_batch_size: Count
    validation_workers: Count
    max_client_batch_size: Count
    router: Word
    version: Annotated[Word, Meta(description="The TGI version whose contract is kept.")]
    sha: Word | None
    docker_label: Word | None
    server: Word
    server_version: Word
    num_running: Count
    num_waiting: Count
    max_queue_size: Count
    adapters: Annotated[
        list[Text], Meta(max_length=10_000, description="What `adapter_id` may name.")
    ]
