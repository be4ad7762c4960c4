"""The OpenAPI document: every route, made from the very types that bodies and answers have.

Bounds that depend on how the server was started are filled in here. Knows no HTTP.
https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from server.dialects import answers, bodies, messages_types, responses_types
from server.dialects.call import DialectConfig
from server.dialects.wire import dumps
from server.generators.events import EndEvent, GeneratorAnswer, ValueEvent
from server.generators.published import Published
from server.live.frames import ByeEvent, EndedEvent, FrameEvent, HelloEvent
from server.openapi_routes import REF, Json, Post, any_of, gets, operation_id, posts

_TYPES = (
    bodies.GenerateBody,
    bodies.CompatBody,
    bodies.CompletionBody,
    bodies.ChatBody,
    bodies.TokenizeBody,
    bodies.ChatTokenizeBody,
    bodies.DetokenizeBody,
    responses_types.ResponsesBody,
    messages_types.MessagesBody,
    messages_types.CountTokensBody,
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
    answers.DetokenizeAnswer,
    responses_types.ResponseAnswer,
    *responses_types.EVENTS,
    messages_types.MessageAnswer,
    *messages_types.EVENTS,
    messages_types.MessageErrorBody,
    messages_types.TokenCount,
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
_NAMED = ("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "enum")


def openapi_document(
    config: DialectConfig, version: str, published: Iterable[Published] = ()
) -> bytes:
    """Write the document for a server with these limits and generators, as JSON."""
    document = _document(config, version)
    for generator in published:
        name = f"generators.{generator.name}"
        body, types = generator.schemas(REF.format(name=f"{name}."))
        schemas = {name: body, **{f"{name}.{key}": schema for key, schema in types.items()}}
        document["components"]["schemas"] |= schemas
        post = _generator_post(generator, {"$ref": REF.format(name=name)})
        document["paths"][post.path] = {"post": post.operation()}
    return dumps(document)


def _generator_post(generator: Published, body: Json) -> "Post":
    return Post(
        path=f"/generators/{generator.name}",
        tag="Generators",
        summary=generator.description or f"Run {generator.reference}",
        body=body,
        example=generator.example(),
        events=any_of(ValueEvent, EndEvent, answers.ErrorBody),
    )


def _document(config: DialectConfig, version: str) -> Json:
    limits = {**asdict(config), "max_token_id": config.vocab_size - 1}
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=REF)
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


def _paths() -> Json:
    paths: Json = {post.path: {"post": post.operation()} for post in posts()}
    for path, operation in gets().items():
        paths.setdefault(path, {})["get"] = {"operationId": operation_id("get", path), **operation}
    return paths
