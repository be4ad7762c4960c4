"""The bodies of every route, as types: what a field is called, what it may hold, what it does.

The OpenAPI document is made of these very types. Two kinds of bounds: what `Meta` enforces at
decoding (types, widths, sizes), and what `said` only declares, which `ranges.py` and the dialects
enforce with TGI's messages once a request has its permit. A declared bound that is a string names
the limit of this server in DialectConfig. `null` means absent everywhere; `uint` and the like are
TGI's own widths.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from server.dialects.ranges import MAX_BIAS, MAX_SCALE, MAX_SEED

MAX_TEXT = 8_000_000
MAX_IDS = 2_000_000
MAX_STOP = 1_000
MAX_MESSAGES = 10_000
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128
"""Of one message."""
MAX_TOOL_DEPTH = 32
"""How deep the schema of a tool, or the arguments of a call, may be nested."""
MAX_TOOLS_BYTES = 512 * 1024
"""All tools of a request together, as JSON."""
MAX_GRAMMAR = 100_000
"""Characters of a grammar."""
MAX_ALTERNATIVES = 1_000
MAX_CHOICES = 128
"""Of one request, whatever this server could run at a time."""


def said(description: str, **bounds: object) -> Meta:
    """Describe a field and declare bounds that are enforced elsewhere."""
    return Meta(description=description, extra_json_schema=bounds)


Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Name = Annotated[str, Meta(max_length=2_048)]
Word = Annotated[str, Meta(max_length=64)]
Uint = Annotated[int, Meta(ge=0, le=2**32 - 1)]
AdapterName = Annotated[str, Meta(max_length=2_048, extra_json_schema={"enum": "adapters"})]
Int = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, extra_json_schema={"maximum": "max_token_id"})]
TokenIds = Annotated[list[TokenId], Meta(max_length=MAX_IDS, extra_json_schema={"minItems": 1})]
PromptText = Annotated[str, Meta(max_length=MAX_TEXT, extra_json_schema={"minLength": 1})]
Stop = Annotated[str, Meta(max_length=MAX_STOP, extra_json_schema={"minLength": 1})]
Stops = Annotated[list[Stop], Meta(extra_json_schema={"maxItems": "max_stop_sequences"})]
Anything = Annotated[list[Any], Meta(max_length=128)]
Json = Annotated[dict[Annotated[str, Meta(max_length=2_048)], Any], Meta(max_length=1_024)]
ToolName = Annotated[str, Meta(pattern=r"^[\w.:/-]{1,128}$", max_length=128)]

_INSTANCE = said(
    "`inputs` and `parameters`, or `messages` and what goes with them.",
    anyOf=[
        {"$ref": "#/components/schemas/GenerateBody"},
        {"$ref": "#/components/schemas/ChatBody"},
    ],
)
_TEMPERATURE = "Divides the logits: below 1 bolder, above 1 wilder."
_TYPICAL_P = "Keep the most typical tokens of this probability mass."
_TRUNCATE = "Keep only so many of the last prompt tokens."
_WATERMARK = "Mark the text with a green list, https://arxiv.org/abs/2301.10226."
_REPETITION = "Above 1, make tokens of prompt and output less likely."
_IGNORE_EOS = "Go on to the last allowed token; meant for measuring."
_MIN_NEW = "Do not end before so many tokens."
_PREFIX = "False: compute the whole prompt, also what the cache knows of it."
_ADAPTER = "The adapter to add to the model; null for none."
_GRAMMAR = "What the whole answer must be."
_GRAMMARS = ["json", "json_object", "json_schema", "regex", "choice", "lark"]


Schema = Annotated[dict[str, Any], Meta(max_length=10_000)]
Alternatives = Annotated[
    list[Annotated[str, Meta(max_length=MAX_GRAMMAR)]],
    Meta(max_length=MAX_ALTERNATIVES),
]


class GrammarBody(Struct, kw_only=True):
    """The form of an answer, in TGI's words; the answer is never without it."""

    type: Annotated[Word, said("What `value` is written in.", enum=_GRAMMARS)]
    value: Annotated[
        Annotated[str, Meta(max_length=MAX_GRAMMAR)] | Schema | Alternatives | None,
        said(
            "A JSON schema, as an object or as text (`json_schema` also takes it as `schema`, "
            "beside a name); a regular expression; a list of alternatives; a grammar in "
            "llguidance's Lark."
        ),
    ] = None


class Parameters(Struct, kw_only=True):
    """How to generate, in TGI's words.

    Present, even empty, it means greedy decoding unless a field asks for sampling; the whole
    object absent means sampling.
    """

    adapter_id: Annotated[AdapterName | None, said(_ADAPTER)] = None
    best_of: Annotated[
        Uint | None,
        said("Generate so many and return the likeliest; needs sampling.", maximum="max_best_of"),
    ] = None
    decoder_input_details: Annotated[
        bool | None,
        said("Return the prompt's tokens with logprobs, where the server enables it."),
    ] = None
    details: Annotated[bool | None, said("Return tokens, logprobs and the finish reason.")] = None
    do_sample: Annotated[bool | None, said("Sample, instead of taking the likeliest.")] = None
    frequency_penalty: Annotated[
        float | None,
        said("Times the token's share of the text so far.", minimum=-2.0, maximum=2.0),
    ] = None
    grammar: Annotated[GrammarBody | None, said(_GRAMMAR)] = None
    ignore_eos: Annotated[bool | None, said(_IGNORE_EOS)] = None
    ignore_eos_token: Annotated[bool | None, said("The same as `ignore_eos`.")] = None
    max_new_tokens: Annotated[
        Uint | None, said("By default as many as fit the context.", minimum=1)
    ] = None
    min_new_tokens: Annotated[Uint | None, said(_MIN_NEW)] = None
    prefix_caching: Annotated[bool | None, said(_PREFIX)] = None
    repetition_penalty: Annotated[
        float | None, said(_REPETITION, exclusiveMinimum=0.0, maximum=MAX_SCALE)
    ] = None
    return_full_text: Annotated[
        bool | None, said("Put the prompt in front of `generated_text`.")
    ] = None
    seed: Annotated[
        int | None, said("Reported back if sampling was effective.", minimum=0, maximum=MAX_SEED)
    ] = None
    stop: Annotated[
        Stops | None, said("End after the token that completes one; the text keeps it.")
    ] = None
    temperature: Annotated[
        float | None, said(_TEMPERATURE, exclusiveMinimum=0.0, maximum=MAX_SCALE)
    ] = None
    top_k: Annotated[Int | None, said("Sample from so many tokens.", minimum=1)] = None
    top_n_tokens: Annotated[
        Uint | None, said("Report so many alternatives a token.", maximum="max_top_n_tokens")
    ] = None
    top_p: Annotated[
        float | None,
        said("Sample from this probability mass.", exclusiveMinimum=0.0, exclusiveMaximum=1.0),
    ] = None
    truncate: Annotated[Uint | None, said(_TRUNCATE, minimum=1, maximum="max_input_tokens")] = None
    typical_p: Annotated[
        float | None, said(_TYPICAL_P, exclusiveMinimum=0.0, exclusiveMaximum=1.0)
    ] = None
    watermark: Annotated[bool | None, said(_WATERMARK)] = None


class GenerateBody(Struct, kw_only=True):
    """A text to continue, in TGI's words."""

    inputs: Annotated[PromptText, said("The prompt.")]
    parameters: Parameters | None = None


class CompatBody(GenerateBody, kw_only=True):
    """The same for `POST /`, where the body says whether to stream."""

    stream: Annotated[bool | None, said("Answer with server-sent events.")] = None


class StreamOptions(Struct, kw_only=True):
    """What a stream of OpenAI's kind should hold beside text."""

    include_usage: Annotated[bool | None, said("Send one more chunk, with the usage.")] = None


class JsonSchemaBody(Struct, kw_only=True):
    """A schema in OpenAI's words; it is always followed strictly."""

    name: Annotated[Name | None, said("For people.")] = None
    schema: Annotated[Schema | None, said("The schema; it must be there.")] = None


class ResponseFormat(GrammarBody, kw_only=True):
    """The form of the answer, in OpenAI's words or in TGI's."""

    type: Annotated[Word, said("`text` means any form.", enum=["text", *_GRAMMARS])]
    json_schema: JsonSchemaBody | None = None
    schema: Annotated[Schema | None, said("As `value`; LangChain calls it so.")] = None


class OpenAIBody(Struct, kw_only=True):
    """What completions and chat have in common; TGI's names are honoured too."""

    model: Annotated[
        Name | None,
        said("An adapter, also as `adapter:NAME`; any other name means the base model."),
    ] = None
    stream: Annotated[bool | None, said("Answer with server-sent events.")] = None
    stream_options: StreamOptions | None = None

    max_tokens: Annotated[
        Uint | None, said("By default as many as fit the context.", minimum=1)
    ] = None
    max_completion_tokens: Annotated[Uint | None, said("As `max_tokens`.", minimum=1)] = None
    max_new_tokens: Annotated[Uint | None, said("As `max_tokens`.", minimum=1)] = None
    min_tokens: Annotated[Uint | None, said(_MIN_NEW)] = None
    min_new_tokens: Annotated[Uint | None, said("As `min_tokens`.")] = None
    ignore_eos: Annotated[bool | None, said(_IGNORE_EOS)] = None
    stop: Annotated[
        Stop | Stops | None, said("End before the first of these; the text does not hold it.")
    ] = None
    truncate: Annotated[Uint | None, said(_TRUNCATE, minimum=1, maximum="max_input_tokens")] = None
    prefix_caching: Annotated[bool | None, said(_PREFIX)] = None

    do_sample: Annotated[
        bool | None, said("False, and nothing that asks for sampling: greedy.")
    ] = None
    temperature: Annotated[
        float | None, said(_TEMPERATURE + " 0 is greedy.", minimum=0.0, maximum=MAX_SCALE)
    ] = None
    top_k: Annotated[Int | None, said("0 and -1 are off.", minimum=-1)] = None
    top_p: Annotated[float | None, said("1 is off.", exclusiveMinimum=0.0, maximum=1.0)] = None
    min_p: Annotated[
        float | None,
        said("Keep tokens this likely, as a share of the likeliest.", minimum=0.0, maximum=1.0),
    ] = None
    typical_p: Annotated[
        float | None, said(_TYPICAL_P + " 1 is off.", exclusiveMinimum=0.0, maximum=1.0)
    ] = None
    seed: Annotated[
        int | None,
        said("The same seed, the same choices.", minimum=-(2**63), maximum=MAX_SEED),
    ] = None
    watermark: Annotated[bool | None, said(_WATERMARK)] = None
    frequency_penalty: Annotated[
        float | None,
        said("Times how often the token is in the output.", minimum=-2.0, maximum=2.0),
    ] = None
    presence_penalty: Annotated[
        float | None,
        said("Once when the token is in the output at all.", minimum=-2.0, maximum=2.0),
    ] = None
    repetition_penalty: Annotated[
        float | None, said(_REPETITION, exclusiveMinimum=0.0, maximum=MAX_SCALE)
    ] = None
    logit_bias: Annotated[
        Annotated[
            dict[
                Annotated[str, Meta(max_length=10)],
                Annotated[
                    float, Meta(extra_json_schema={"minimum": -MAX_BIAS, "maximum": MAX_BIAS})
                ],
            ],
            Meta(max_length=1024),
        ]
        | None,
        said("Token ids, written as strings, to what is added to their logits."),
    ] = None

    n: Annotated[
        Uint | None,
        said("So many answers to each prompt.", minimum=1, maximum="max_choices"),
    ] = None
    adapter_id: Annotated[AdapterName | None, said(_ADAPTER)] = None
    grammar: Annotated[GrammarBody | None, said(_GRAMMAR)] = None
    response_format: ResponseFormat | None = None


class CompletionBody(OpenAIBody, kw_only=True):
    """Texts to continue, in OpenAI's words."""

    prompt: Annotated[
        PromptText
        | Annotated[
            list[PromptText | TokenId | TokenIds],
            Meta(max_length=MAX_IDS, extra_json_schema={"minItems": 1}),
        ],
        said("One text, a list of texts, one list of token ids, or a list of such lists."),
    ]
    best_of: Annotated[
        Uint | None,
        said(
            "Generate so many and return the `n` likeliest; in streams `n`.", maximum="max_choices"
        ),
    ] = None
    suffix: Annotated[str | None, said("Not supported; only empty.", maxLength=0)] = None
    echo: Annotated[
        bool | None,
        said("Put the prompt in front of the text; `max_tokens` may then be 0."),
    ] = None
    return_full_text: Annotated[bool | None, said("As `echo`, but not in streams.")] = None
    logprobs: Annotated[
        Uint | None, said("Report so many alternatives a token.", maximum=MAX_TOP_LOGPROBS)
    ] = None


class ContentPart(Struct, kw_only=True):
    """A part of a message; this version reads text."""

    type: Annotated[Word, said("`text`.", enum=["text"])]
    text: Text | None = None


class CalledFunctionBody(Struct, kw_only=True):
    """What was called, and with what."""

    name: ToolName
    arguments: Annotated[
        Text | Json | None, said("JSON as a text, as it was answered; or the object itself.")
    ] = None


class ToolCallBody(Struct, kw_only=True):
    """A call that the assistant made."""

    function: CalledFunctionBody
    id: Annotated[Name | None, said("The name of this call.")] = None
    type: Annotated[Word | None, said("`function`.", enum=["function", None])] = None


class ChatMessageBody(Struct, kw_only=True):
    """One turn of a chat."""

    role: Annotated[Word, said("`system`, `user`, `assistant`, or what the template knows.")]
    content: Annotated[
        Text | Annotated[list[ContentPart], Meta(max_length=MAX_MESSAGES)] | None,
        said("Text, or parts of it."),
    ] = None
    name: Annotated[Name | None, said("Who speaks, for templates that use it.")] = None
    tool_calls: Annotated[
        Annotated[list[ToolCallBody], Meta(max_length=MAX_TOOL_CALLS)] | None,
        said("What the assistant called; `content` may then be missing."),
    ] = None
    tool_call_id: Annotated[
        Name | None, said("The call that a message of the role `tool` answers.")
    ] = None
    reasoning_content: Annotated[
        Text | None, said("What the assistant thought, for templates that use it.")
    ] = None


class FunctionBody(Struct, kw_only=True):
    """A function that the model may call."""

    name: ToolName
    description: Text | UnsetType | None = UNSET
    parameters: Annotated[
        Json | UnsetType | None,
        said(f"JSON Schema of an object; nested at most {MAX_TOOL_DEPTH} deep."),
    ] = UNSET


class ToolBody(Struct, kw_only=True):
    """Something the model may call."""

    type: Annotated[Word, said("`function`.", enum=["function"])] = "function"
    function: FunctionBody


class ChosenFunctionBody(Struct, kw_only=True):
    """The function to call."""

    name: ToolName


class ChosenToolBody(Struct, kw_only=True):
    """The one tool to call."""

    function: ChosenFunctionBody
    type: Annotated[Word | None, said("`function`.", enum=["function", None])] = None


class TemplateOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a client may tell the model's template; those that it does not know change nothing."""

    enable_thinking: bool | UnsetType = UNSET
    thinking: bool | UnsetType = UNSET
    thinking_budget: Uint | UnsetType = UNSET
    reasoning_effort: Word | UnsetType = UNSET
    preserve_thinking: bool | UnsetType = UNSET
    clear_thinking: bool | UnsetType = UNSET
    tools_in_user_message: bool | UnsetType = UNSET
    date_string: Word | UnsetType = UNSET


Tools = Annotated[
    Annotated[list[ToolBody], Meta(max_length=MAX_TOOLS)] | None,
    said(f"What the model may call; together at most {MAX_TOOLS_BYTES} bytes of JSON."),
]


class ChatBody(OpenAIBody, kw_only=True):
    """A chat to go on with, in OpenAI's words; ending with the assistant's turn continues it."""

    messages: Annotated[
        Annotated[list[ChatMessageBody], Meta(max_length=MAX_MESSAGES)],
        said("The turns so far.", minItems=1),
    ]
    logprobs: Annotated[bool | None, said("Report each token's logprob.")] = None
    top_logprobs: Annotated[
        Uint | None,
        said("Report so many alternatives a token; needs `logprobs`.", maximum=MAX_TOP_LOGPROBS),
    ] = None
    tools: Tools = None
    tool_choice: Annotated[
        ToolName | ChosenToolBody | None,
        said("`auto`, `none`, `required`, or the tool to call, as an object or by its name."),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, said("False: only the first call is answered with.")
    ] = None
    reasoning_effort: Annotated[
        Word | None, said("As `chat_template_kwargs.reasoning_effort`, which wins.")
    ] = None
    chat_template_kwargs: Annotated[
        TemplateOptions | None, said("What to tell the model's template.")
    ] = None
    chat_template: Annotated[
        str | None, said("The model's own is used; only null is accepted.", type="null")
    ] = None


class TokenizeBody(Struct, kw_only=True):
    """What to tokenize: exactly one of the three."""

    inputs: Annotated[PromptText | None, said("A text; answered with ids, texts and offsets.")] = (
        None
    )
    prompt: Annotated[PromptText | None, said("A text; answered with ids.")] = None
    messages: Annotated[
        Annotated[list[ChatMessageBody], Meta(max_length=MAX_MESSAGES)] | None,
        said("A chat; answered with ids.", minItems=1),
    ] = None
    tools: Tools = None


class DetokenizeBody(Struct, kw_only=True):
    """What to turn back to text; other fields are ignored."""

    tokens: Annotated[
        Annotated[list[TokenId], Meta(max_length=MAX_IDS)],
        said("Token ids; special tokens are spelled out."),
    ]


class ChatTokenizeBody(Struct, kw_only=True):
    """A chat to render by the model's template and tokenize; other fields are ignored."""

    messages: Annotated[
        Annotated[list[ChatMessageBody], Meta(max_length=MAX_MESSAGES)],
        said("The turns.", minItems=1),
    ]


class VertexBody(Struct, kw_only=True):
    """Instances to predict for; each is a text or a chat, none is streamed."""

    instances: Annotated[
        list[Annotated[Raw, _INSTANCE]],
        said(
            "Each with a permit of its own; `inputs` are sampled unless `do_sample` is false.",
            minItems=1,
            maxItems="max_client_batch_size",
        ),
    ]
