"""The routes of the OpenAPI document: what each takes, answers and refuses.

Refers to the types of bodies and answers by name. Knows no limits and no HTTP.
"""

import re
from dataclasses import dataclass
from typing import Any

from server.dialects import answers, bodies, messages_types, responses_types
from server.generators.events import GeneratorAnswer
from server.live.frames import ByeEvent, EndedEvent, FrameEvent, HelloEvent

Json = dict[str, Any]

REF = "#/components/schemas/{name}"
JSON = "application/json"
EVENTS = "text/event-stream"
_PROBLEMS = {
    400: "The body is not JSON.",
    401: "The key is missing or wrong, where the server has keys.",
    413: "The body is larger than the server takes.",
    415: "The body is not said to be JSON.",
    422: "A field is missing, has another type or is out of its range; the message names it.",
    424: "The model could not go on.",
    429: "There is no room now; `Retry-After` says when there may be.",
    500: "The generation ended early, or the server has a bug.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A route that takes a body."""

    path: str
    summary: str
    body: Json
    example: Json
    answer: Json | None = None
    events: Json | None = None
    error: type = answers.ErrorBody
    tag: str = "Text Generation Inference"
    is_generation: bool = True

    def operation(self) -> Json:
        """Describe it."""
        content = {JSON: self.answer, EVENTS: self.events}
        return {
            "tags": [self.tag],
            "summary": self.summary,
            "operationId": operation_id("post", self.path),
            "security": [{}, {"bearer": []}],
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": self.body, "example": self.example}},
            },
            "responses": {
                "200": {
                    "description": "The answer; of a stream, each event's data.",
                    "content": {
                        media: {"schema": schema}
                        for media, schema in content.items()
                        if schema is not None
                    },
                },
                **{
                    str(status): _problem(status, self.error)
                    for status in _PROBLEMS
                    if self.is_generation or status not in (424, 429)
                },
            },
        }


def _problem(status: int, error: type) -> Json:
    problem: Json = {
        "description": _PROBLEMS[status],
        "content": {JSON: {"schema": ref(error)}},
    }
    if status == 429:
        schema = {"type": "integer", "minimum": 1, "maximum": 60}
        problem["headers"] = {"Retry-After": {"description": "In whole seconds.", "schema": schema}}
    return problem


def posts() -> tuple[Post, ...]:
    """Describe the routes that take a body."""
    generate = {"inputs": "The sky is", "parameters": {"max_new_tokens": 16}}
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16}
    stream = any_of(answers.StreamEvent, answers.ErrorBody)
    chat_stream = any_of(answers.ChatChunk, answers.OpenAIErrorBody)
    text_stream = any_of(answers.CompletionChunk, answers.OpenAIErrorBody)
    one = {**_list(ref(answers.GenerateAnswer), 1), "minItems": 1}
    ids = _list({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, bodies.MAX_TEXT)
    spans = _list(ref(answers.SpanAnswer), bodies.MAX_TEXT)
    return (
        Post(
            path="/",
            summary="Continue a text; `stream` says how to answer",
            body=ref(bodies.CompatBody),
            example=generate,
            answer=one,
            events=stream,
        ),
        Post(
            path="/generate",
            summary="Continue a text",
            body=ref(bodies.GenerateBody),
            example=generate,
            answer=ref(answers.GenerateAnswer),
        ),
        Post(
            path="/generate_stream",
            summary="Continue a text, one event a token",
            body=ref(bodies.GenerateBody),
            example=generate,
            events=stream,
        ),
        Post(
            path="/v1/completions",
            tag="OpenAI",
            summary="Continue texts",
            body=ref(bodies.CompletionBody),
            example={"prompt": "The sky is", "max_tokens": 16},
            answer=ref(answers.Completion),
            events=text_stream,
            error=answers.OpenAIErrorBody,
        ),
        Post(
            path="/v1/chat/completions",
            tag="OpenAI",
            summary="Go on with a chat",
            body=ref(bodies.ChatBody),
            example=chat,
            answer=ref(answers.ChatCompletion),
            events=chat_stream,
            error=answers.OpenAIErrorBody,
        ),
        Post(
            path="/v1/responses",
            tag="OpenAI",
            summary="Go on with turns; nothing is stored",
            body=ref(responses_types.ResponsesBody),
            example={"input": "Hi", "max_output_tokens": 16},
            answer=ref(responses_types.ResponseAnswer),
            events=any_of(*responses_types.EVENTS),
            error=answers.OpenAIErrorBody,
        ),
        Post(
            path="/v1/messages",
            tag="Anthropic",
            summary="Go on with turns",
            body=ref(messages_types.MessagesBody),
            example=chat,
            answer=ref(messages_types.MessageAnswer),
            events=any_of(*messages_types.EVENTS, messages_types.MessageErrorBody),
            error=messages_types.MessageErrorBody,
        ),
        Post(
            path="/v1/messages/count_tokens",
            tag="Anthropic",
            summary="Count the tokens of turns",
            body=ref(messages_types.CountTokensBody),
            example={"messages": chat["messages"]},
            answer=ref(messages_types.TokenCount),
            error=messages_types.MessageErrorBody,
            is_generation=False,
        ),
        Post(
            path="/tokenize",
            summary="Tokenize a text or a chat",
            body=ref(bodies.TokenizeBody),
            example={"inputs": "The sky is"},
            answer={"anyOf": [spans, ids]},
            is_generation=False,
        ),
        Post(
            path="/chat_tokenize",
            summary="Render a chat and tokenize it",
            body=ref(bodies.ChatTokenizeBody),
            example={"messages": chat["messages"]},
            answer=ref(answers.ChatTokenizeAnswer),
            is_generation=False,
        ),
        Post(
            path="/detokenize",
            summary="Turn token ids back to text",
            body=ref(bodies.DetokenizeBody),
            example={"tokens": [1, 2, 3]},
            answer=ref(answers.DetokenizeAnswer),
            is_generation=False,
        ),
        Post(
            path="/invocations",
            tag="Clouds",
            summary="SageMaker: a text, a chat or a completion, by the key that is there",
            body=any_of(bodies.CompatBody, bodies.ChatBody, bodies.CompletionBody),
            example=generate,
            answer={
                "anyOf": [one, ref(answers.ChatCompletion), ref(answers.Completion)],
            },
            events={"anyOf": [stream, chat_stream, text_stream]},
        ),
        Post(
            path="/vertex",
            tag="Clouds",
            summary="Vertex AI: several texts or chats at once",
            body=ref(bodies.VertexBody),
            example={"instances": [generate]},
            answer=ref(answers.Predictions),
        ),
    )


def gets() -> dict[str, Json]:
    """Routes without a body; only the live feed needs a key."""
    health = {"200": _says("It is."), "503": _says("It is not.", _json(ref(answers.ErrorBody)))}
    model = _json(ref(answers.Model))
    missing = _says("There is no such model.", _json(ref(answers.OpenAIErrorBody)))
    name = {"type": "string", "minLength": 1, "maxLength": 512}  # a URL has less than 8 KiB
    draining = {"type": "string", "enum": ["404"]}
    return {
        "/": _get(
            "Status",
            "Whether the engine is in order, as `/health`; a page where HTML is wanted more",
            {**health, "200": _says("It is; or the page, as HTML.")},
        ),
        "/health": _get("Status", "Whether the engine is in order", health),
        "/ping": _get("Status", "The same for SageMaker", health),
        "/live": _get("Status", "Whether the process answers", {"200": _says("It does.")}),
        "/ready": {
            **_get(
                "Status",
                "Whether a request would be taken now",
                {**health, "404": _says("It drains.", _json(ref(answers.ErrorBody)))},
            ),
            "parameters": [
                {
                    "name": "draining",
                    "in": "query",
                    "description": "The status to answer with while draining, if not 503.",
                    "schema": draining,
                }
            ],
        },
        "/info": _get(
            "Status", "Model and limits", {"200": _says("Both.", _json(ref(answers.Info)))}
        ),
        "/metrics": _get(
            "Status",
            "For Prometheus",
            {"200": _says("One scrape.", _text("text/plain; charset=utf-8"))},
        ),
        "/events": {
            **_get(
                "Status",
                "What the server is doing now, as it happens; not with `--no-events`",
                {
                    "200": _says(
                        "Each event's data.",
                        {EVENTS: {"schema": any_of(HelloEvent, FrameEvent, EndedEvent, ByeEvent)}},
                    ),
                    **{str(status): _problem(status, answers.ErrorBody) for status in (401, 429)},
                },
            ),
            "security": [{}, {"bearer": []}],
        },
        "/generators": _get(
            "Generators",
            "The published generators; each is a route of its own below this one",
            {"200": _says("All of them.", _json(_list(ref(GeneratorAnswer), bodies.MAX_TEXT)))},
        ),
        "/v1/models": _get(
            "OpenAI",
            "The models that are served",
            {"200": _says("All of them.", _json(ref(answers.ModelList)))},
        ),
        "/v1/models/{id}": {
            **_get("OpenAI", "One model", {"200": _says("It.", model), "404": missing}),
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": name}],
        },
        "/docs": _get(
            "Documents", "This document, to read", {"200": _says("A page.", _text("text/html"))}
        ),
        "/api-doc/openapi.json": _get(
            "Documents", "This document", {"200": _says("OpenAPI 3.1.", _json({"type": "object"}))}
        ),
    }


def _get(tag: str, summary: str, responses: Json) -> Json:
    return {"tags": [tag], "summary": summary, "responses": responses}


def _says(description: str, content: Json | None = None) -> Json:
    return {"description": description, **({"content": content} if content else {})}


def _json(schema: Json) -> Json:
    return {JSON: {"schema": schema}}


def _text(media: str) -> Json:
    return {media: {"schema": {"type": "string", "maxLength": bodies.MAX_TEXT}}}


def ref(kind: type) -> Json:
    """Refer to a type's schema."""
    return {"$ref": REF.format(name=kind.__name__)}


def any_of(*kinds: type) -> Json:
    """Refer to the schema of any of these types."""
    return ref(kinds[0]) if len(kinds) == 1 else {"anyOf": [ref(kind) for kind in kinds]}


def _list(item: Json, most: int) -> Json:
    return {"type": "array", "items": item, "maxItems": most}


def operation_id(method: str, path: str) -> str:
    """Name a route as one word."""
    words = re.findall(r"\w+", path)
    return "_".join([method, *(words or ["root"])])
