"""The OpenAPI document: every route, made from the very types that bodies and answers have.

Bounds that depend on how the server was started are filled in here. Knows no HTTP.
https://spec.openapis.org/oas/v3.1.0
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from server.dialects import answers, bodies
from server.dialects.call import DialectConfig
from server.dialects.wire import dumps
from server.generators.events import EndEvent, GeneratorAnswer, ValueEvent
from server.generators.published import Published
from server.live.frames import ByeEvent, EndedEvent, FrameEvent, HelloEvent

Json = dict[str, Any]

JSON = "application/json"
EVENTS = "text/event-stream"
_REF = "#/components/schemas/{name}"
_TYPES = (
    bodies.GenerateBody,
    bodies.CompatBody,
    bodies.CompletionBody,
    bodies.ChatBody,
    bodies.TokenizeBody,
    bodies.ChatTokenizeBody,
    bodies.VertexBody,
    answers.ErrorBody,
    answers.OpenAIErrorBody,
    answers.GenerateAnswer,
    answers.StreamEvent,
    answers.Completion,
    answers.CompletionChunk,
    answers.ChatCompletion,
    answers.ChatChunk,
    answers.SpanAnswer,
    answers.ChatTokenizeAnswer,
    answers.Predictions,
    answers.ModelList,
    answers.Info,
    HelloEvent,
    FrameEvent,
    EndedEvent,
    ByeEvent,
    ValueEvent,
    EndEvent,
    GeneratorAnswer,
)
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
_NAMED = ("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength")


def openapi_document(
    config: DialectConfig, version: str, published: Iterable[Published] = ()
) -> bytes:
    """Write the document for a server with these limits and generators, as JSON."""
    document = _document(config, version)
    for generator in published:
        name = f"generators.{generator.name}"
        body, types = generator.schemas(_REF.format(name=f"{name}."))
        schemas = {name: body, **{f"{name}.{key}": schema for key, schema in types.items()}}
        document["components"]["schemas"] |= schemas
        post = _generator_post(generator, {"$ref": _REF.format(name=name)})
        document["paths"][post.path] = {"post": post.operation()}
    return dumps(document)


def _generator_post(generator: Published, body: Json) -> "_Post":
    return _Post(
        path=f"/generators/{generator.name}",
        tag="Generators",
        summary=generator.description or f"Run {generator.reference}",
        body=body,
        example=generator.example(),
        events=_any(ValueEvent, EndEvent, answers.ErrorBody),
    )


def _document(config: DialectConfig, version: str) -> Json:
    limits = {**asdict(config), "max_token_id": config.vocab_size - 1}
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace",
            "version": version,
            "description": "Streams tokens from a language model; speaks TGI and OpenAI.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": {name: _settled(schema, limits) for name, schema in schemas.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for only where the server was started with a key.",
                }
            },
        },
    }


def _settled(schema: Any, limits: Mapping[str, Any]) -> Any:
    """Fill in this server's limits; write "or null" as a type where there is one other type."""
    if isinstance(schema, list):
        return [_settled(item, limits) for item in schema]
    if not isinstance(schema, dict):
        return schema
    settled = {key: _settled(value, limits) for key, value in schema.items()}
    for key in _NAMED:
        if isinstance(settled.get(key), str):
            settled[key] = limits[settled[key]]
    if isinstance(settled.get("description"), str):
        settled["description"] = " ".join(settled["description"].split())
    match settled.get("anyOf"):
        case [{"type": str()} as schema, {"type": "null"}]:
            del settled["anyOf"]
            return _or_null(schema) | settled
    return settled


def _or_null(schema: Json) -> Json:
    allowed = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **allowed, "type": [schema["type"], "null"]}


def _ref(kind: type) -> Json:
    return {"$ref": _REF.format(name=kind.__name__)}


def _any(*kinds: type) -> Json:
    return _ref(kinds[0]) if len(kinds) == 1 else {"anyOf": [_ref(kind) for kind in kinds]}


def _list(item: Json, most: int) -> Json:
    return {"type": "array", "items": item, "maxItems": most}


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", path)
    return "_".join([method, *(words or ["root"])])


def _paths() -> Json:
    paths: Json = {post.path: {"post": post.operation()} for post in _posts()}
    for path, operation in _gets().items():
        paths.setdefault(path, {})["get"] = {"operationId": _operation_id("get", path), **operation}
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Post:
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
        content = {JSON: self.answer, EVENTS: self.events}
        return {
            "tags": [self.tag],
            "summary": self.summary,
            "operationId": _operation_id("post", self.path),
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
        "content": {JSON: {"schema": _ref(error)}},
    }
    if status == 429:
        schema = {"type": "integer", "minimum": 1, "maximum": 60}
        problem["headers"] = {"Retry-After": {"description": "In whole seconds.", "schema": schema}}
    return problem


def _posts() -> tuple[_Post, ...]:
    generate = {"inputs": "The sky is", "parameters": {"max_new_tokens": 16}}
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16}
    stream = _any(answers.StreamEvent, answers.ErrorBody)
    chat_stream = _any(answers.ChatChunk, answers.OpenAIErrorBody)
    text_stream = _any(answers.CompletionChunk, answers.OpenAIErrorBody)
    one = {**_list(_ref(answers.GenerateAnswer), 1), "minItems": 1}
    ids = _list({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, bodies.MAX_TEXT)
    spans = _list(_ref(answers.SpanAnswer), bodies.MAX_TEXT)
    return (
        _Post(
            path="/",
            summary="Continue a text; `stream` says how to answer",
            body=_ref(bodies.CompatBody),
            example=generate,
            answer=one,
            events=stream,
        ),
        _Post(
            path="/generate",
            summary="Continue a text",
            body=_ref(bodies.GenerateBody),
            example=generate,
            answer=_ref(answers.GenerateAnswer),
        ),
        _Post(
            path="/generate_stream",
            summary="Continue a text, one event a token",
            body=_ref(bodies.GenerateBody),
            example=generate,
            events=stream,
        ),
        _Post(
            path="/v1/completions",
            tag="OpenAI",
            summary="Continue texts",
            body=_ref(bodies.CompletionBody),
            example={"prompt": "The sky is", "max_tokens": 16},
            answer=_ref(answers.Completion),
            events=text_stream,
            error=answers.OpenAIErrorBody,
        ),
        _Post(
            path="/v1/chat/completions",
            tag="OpenAI",
            summary="Go on with a chat",
            body=_ref(bodies.ChatBody),
            example=chat,
            answer=_ref(answers.ChatCompletion),
            events=chat_stream,
            error=answers.OpenAIErrorBody,
        ),
        _Post(
            path="/tokenize",
            summary="Tokenize a text or a chat",
            body=_ref(bodies.TokenizeBody),
            example={"inputs": "The sky is"},
            answer={"anyOf": [spans, ids]},
            is_generation=False,
        ),
        _Post(
            path="/chat_tokenize",
            summary="Render a chat and tokenize it",
            body=_ref(bodies.ChatTokenizeBody),
            example={"messages": chat["messages"]},
            answer=_ref(answers.ChatTokenizeAnswer),
            is_generation=False,
        ),
        _Post(
            path="/invocations",
            tag="Clouds",
            summary="SageMaker: a text, a chat or a completion, by the key that is there",
            body=_any(bodies.CompatBody, bodies.ChatBody, bodies.CompletionBody),
            example=generate,
            answer={
                "anyOf": [one, _ref(answers.ChatCompletion), _ref(answers.Completion)],
            },
            events={"anyOf": [stream, chat_stream, text_stream]},
        ),
        _Post(
            path="/vertex",
            tag="Clouds",
            summary="Vertex AI: several texts or chats at once",
            body=_ref(bodies.VertexBody),
            example={"instances": [generate]},
            answer=_ref(answers.Predictions),
        ),
    )


def _gets() -> dict[str, Json]:
    """Routes without a body; only the live feed needs a key."""
    health = {"200": _says("It is."), "503": _says("It is not.", _json(_ref(answers.ErrorBody)))}
    model = _json(_ref(answers.Model))
    missing = _says("There is no such model.", _json(_ref(answers.OpenAIErrorBody)))
    name = {"type": "string", "minLength": 1, "maxLength": 2048}
    draining = {"type": "string", "enum": ["404"]}
    return {
        "/": _get(
            "Status",
            "Whether the engine is in order, as `/health`; a page where HTML is wanted more",
            {**health, "200": _says("It is, or the page.", _text("text/html"))},
        ),
        "/health": _get("Status", "Whether the engine is in order", health),
        "/ping": _get("Status", "The same for SageMaker", health),
        "/live": _get("Status", "Whether the process answers", {"200": _says("It does.")}),
        "/ready": {
            **_get(
                "Status",
                "Whether a request would be taken now",
                {**health, "404": _says("It drains.", _json(_ref(answers.ErrorBody)))},
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
            "Status", "Model and limits", {"200": _says("Both.", _json(_ref(answers.Info)))}
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
                        {EVENTS: {"schema": _any(HelloEvent, FrameEvent, EndedEvent, ByeEvent)}},
                    ),
                    **{str(status): _problem(status, answers.ErrorBody) for status in (401, 429)},
                },
            ),
            "security": [{}, {"bearer": []}],
        },
        "/generators": _get(
            "Generators",
            "The published generators; each is a route of its own below this one",
            {"200": _says("All of them.", _json(_list(_ref(GeneratorAnswer), bodies.MAX_TEXT)))},
        ),
        "/v1/models": _get(
            "OpenAI",
            "The models that are served",
            {"200": _says("All of them.", _json(_ref(answers.ModelList)))},
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
