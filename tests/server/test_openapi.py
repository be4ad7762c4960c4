"""The document is valid, says what the server does, and every bound in it is enforced."""

import copy
import json
import re
from functools import partial
from pathlib import Path

import pytest
from dialect_config import dialect_config
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from server.dialects import openai, tokenize
from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.messages import MessagesDialect, parse_count
from server.dialects.responses import ResponsesDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.errors import Problem
from server.openapi import openapi_document

CONFIG = dialect_config()
DOCUMENT = json.loads(openapi_document(CONFIG, "1.2.3"))
SCHEMAS = DOCUMENT["components"]["schemas"]
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
PAGE = (Path(__file__).parents[2] / "server" / "web" / "docs.html").read_text("utf-8")
PARSERS = {
    "/": CompatDialect(CONFIG).parse,
    "/generate": GenerateDialect(CONFIG).parse,
    "/generate_stream": GenerateStreamDialect(CONFIG).parse,
    "/v1/completions": CompletionsDialect(CONFIG).parse,
    "/v1/chat/completions": ChatDialect(CONFIG).parse,
    "/v1/responses": ResponsesDialect(CONFIG).parse,
    "/v1/messages": MessagesDialect(CONFIG).parse,
    "/v1/messages/count_tokens": partial(parse_count, CONFIG),
    "/invocations": InvocationsDialect(CONFIG).parse,
    "/vertex": VertexDialect(CONFIG).parse,
    "/tokenize": partial(tokenize.parse, CONFIG),
    "/chat_tokenize": tokenize.parse_chat,
    "/detokenize": partial(tokenize.parse_ids, CONFIG),
}
CHAT = {"messages": [{"role": "user", "content": "A"}]}
SOUND = {
    "GenerateBody": {"inputs": "A"},
    "CompatBody": {"inputs": "A"},
    "CompletionBody": {"prompt": "A"},
    "ChatBody": {**CHAT, "logprobs": True},
    "TokenizeBody": {},
    "ChatTokenizeBody": CHAT,
    "DetokenizeBody": {"tokens": [1]},
    "ResponsesBody": {"input": "A", "include": ["message.output_text.logprobs"]},
    "MessagesBody": {**CHAT, "max_tokens": 9},
    "CountTokensBody": CHAT,
    "VertexBody": {"instances": [{"inputs": "A"}]},
}
"""A body of each type, to put one wrong value in."""
FILLER = {
    "Parameters": {},
    "StreamOptions": {},
    "ResponseFormat": {"type": "json_schema"},
    "GrammarBody": {"type": "json_schema"},
    "ChatMessageBody": {"role": "user", "content": "A"},
    "ContentPart": {"type": "text", "text": "A"},
    "ToolResult": {"type": "tool_result", "tool_use_id": "A"},
    "CallOutput": {"type": "function_call_output", "call_id": "A"},
}
"""Parts that a body gets so that something in them can be wrong."""


def resolved(schema):
    return SCHEMAS[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def types(schema):
    kind = schema.get("type", ())
    return {kind} if isinstance(kind, str) else set(kind)


def leaves(schema, path=()):
    """Yield (path, schema) of every value a schema holds; "*" is any item, "=" any entry."""
    schema = resolved(schema)
    yield path, schema
    for part in schema.get("anyOf", ()):
        if part != {"type": "null"}:
            yield from leaves(part, path)
    for name, field in schema.get("properties", {}).items():
        yield from leaves(field, (*path, name))
    if "items" in schema:
        yield from leaves(schema["items"], (*path, "*"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], (*path, "="))


def body_leaves():
    for path, methods in DOCUMENT["paths"].items():
        if "post" in methods:
            content = methods["post"]["requestBody"]["content"]["application/json"]
            for where, schema in leaves(content["schema"]):
                yield path, where, schema


def is_bounded(schema):
    kinds = types(schema)
    if "enum" in schema or "const" in schema:
        return True
    needs = {
        "string": ["maxLength"],
        "array": ["maxItems"],
        "integer": ["minimum", "maximum"],
        "number": ["minimum", "maximum"],
    }
    return all(
        key in schema or f"exclusive{key.capitalize()}" in schema
        for kind in kinds
        for key in needs.get(kind, ())
    )


def test_the_document_is_valid_openapi():
    validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_route_of_the_contract_is_described():
    assert {
        (method, path) for path, methods in DOCUMENT["paths"].items() for method in methods
    } == {
        *(("post", path) for path in PARSERS),
        *(
            ("get", path)
            for path in (
                *("/", "/health", "/ping", "/live", "/ready", "/info", "/metrics", "/docs"),
                *("/v1/models", "/v1/models/{id}", "/api-doc/openapi.json", "/events"),
                "/generators",
            )
        ),
    }


def test_every_example_is_taken_by_its_route():
    for path, parse in PARSERS.items():
        content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert is_taken(parse, content["example"])


def is_taken(parse, body):
    call = parse(json.dumps(body).encode())
    return call.generations() if hasattr(call, "generations") else call


def test_every_problem_of_a_generation_is_described_with_its_shape():
    for path, methods in DOCUMENT["paths"].items():
        if "post" not in methods:
            continue
        responses = methods["post"]["responses"]
        is_generation = "token" not in path
        expected = {"200", "400", "401", "413", "415", "422", "500"}
        assert set(responses) == expected | ({"424", "429"} if is_generation else set())
        name = "OpenAIErrorBody" if path.startswith("/v1/") else "ErrorBody"
        name = "MessageErrorBody" if path.startswith("/v1/messages") else name
        for status in set(responses) - {"200"}:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{name}"}
        if is_generation:
            assert "Retry-After" in responses["429"]["headers"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_value_is_bounded(name):
    for path, schema in leaves(SCHEMAS[name]):
        assert is_bounded(schema), (path, schema)


def test_every_value_outside_the_schemas_is_bounded():
    found = [
        schema
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
        for _, schema in leaves(content["schema"])
    ]
    assert len(found) > 200
    assert [schema for schema in found if not is_bounded(schema)] == []


def test_limits_are_those_of_this_server():
    changed = dialect_config(
        max_best_of=3,
        max_stop_sequences=7,
        max_top_n_tokens=9,
        max_client_batch_size=11,
        max_input_tokens=99,
        vocab_size=500,
    )
    schemas = json.loads(openapi_document(changed, "1"))["components"]["schemas"]
    parameters = schemas["Parameters"]["properties"]
    assert parameters["best_of"]["maximum"] == 3
    assert parameters["stop"]["maxItems"] == 7
    assert parameters["top_n_tokens"]["maximum"] == 9
    assert parameters["truncate"]["maximum"] == 99
    assert schemas["VertexBody"]["properties"]["instances"]["maxItems"] == 11
    assert '"maximum": 499' in json.dumps(schemas["CompletionBody"]["properties"]["prompt"])


def integers():
    """Yield (path, where, schema) of every bounded integer of every route with one body type."""
    for path, where, schema in body_leaves():
        if "maximum" in schema and "integer" in types(schema) and path != "/invocations":
            yield path, where, schema


@pytest.mark.parametrize(
    ("path", "where", "bound"),
    [
        pytest.param(path, where, schema[bound], id=f"{path}-{'.'.join(where)}-{bound}")
        for path, where, schema in integers()
        for bound in ("minimum", "maximum")
        if (path, where[-1]) != ("/generate_stream", "best_of")  # only 1 there
    ],
)
def test_an_integer_at_its_bound_is_within_it(path, where, bound):
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    sound = SOUND[content["schema"]["$ref"].rsplit("/", 1)[1]]
    body = put(sound, where, bound)
    if where[-1] == "best_of":
        body.setdefault("parameters", {})["do_sample"] = True
    if where[-1] in ("max_completion_tokens", "max_new_tokens") and "max_tokens" in sound:
        body["max_tokens"] = bound  # they must be equal
    assert is_taken(PARSERS[path], body)


def outside(schema):
    """Yield each bound of a schema, and how to make a value just past it (some are megabytes)."""
    kinds = types(schema)
    step = 1 if "integer" in kinds else 0.5
    letter = "a" if "string" in kinds else 0
    for bound, beyond in (
        ("minimum", lambda limit: limit - step),
        ("maximum", lambda limit: limit + step),
        ("exclusiveMinimum", lambda limit: limit),
        ("exclusiveMaximum", lambda limit: limit),
        ("minLength", lambda limit: letter * (limit - 1)),
        ("maxLength", lambda limit: letter * (limit + 1)),
        ("minItems", lambda limit: items(schema, limit - 1)),
        ("maxItems", lambda limit: items(schema, limit + 1)),
        ("maxProperties", lambda limit: {str(key): 0 for key in range(limit + 1)}),
        ("enum", lambda allowed: not_among(allowed)),
    ):
        if bound in schema:
            yield bound, partial(beyond, schema[bound])
    if kinds == {"null"}:
        yield "type", lambda: "x"


def not_among(allowed):
    return True if allowed[0] is False else "something else"


def items(schema, count):
    item = resolved(schema.get("items", {}))
    if "Message" in item.get("title", ""):
        return [FILLER["ChatMessageBody"]] * count
    if "Part" in item.get("title", ""):
        return [FILLER["ContentPart"]] * count
    if any("inputs" in resolved(part).get("properties", {}) for part in item.get("anyOf", ())):
        return [{"inputs": "A"}] * count
    return ["a" if types(item) == {"string"} else 1] * count


def put(body, path, value):
    """Return a body with the value at the path, whose missing parts are filled."""
    body = copy.deepcopy(body)
    here = body
    for depth, step in enumerate(path[:-1]):
        following = path[depth + 1]
        empty = [] if following == "*" else {}
        if step == "*":
            filler = empty
            if path[depth - 1] in ("messages", "input"):
                filler = FILLER["ChatMessageBody"]
            if path[depth - 1] in ("content", "system"):
                filler = FILLER["ToolResult" if "content" in path[depth:] else "ContentPart"]
            if path[depth - 1] == "input" and following == "output":
                filler = FILLER["CallOutput"]
            here[:] = here or [copy.deepcopy(filler)]
            here = here[0]
        else:
            if not isinstance(here.get(step), type(empty)):
                fillers = {"response_format": "ResponseFormat", "grammar": "GrammarBody"}
                filler = FILLER[fillers[step]] if step in fillers else empty
                here[step] = copy.deepcopy(filler)
            here = here[step]
    match path[-1]:
        case "*":
            here[:] = [value]
        case "=":
            here["1"] = value
        case name:
            here[name] = value
    return body


CHOICE = {"inputs": "GenerateBody", "messages": "ChatBody", "prompt": "CompletionBody"}


def violations():
    """Yield one body for every bound of every field of every route's bodies."""
    for path in PARSERS:
        content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name in re.findall(r"schemas/(\w+)", json.dumps(content["schema"])):
            for where, schema in leaves(SCHEMAS[name]):
                if where[:2] == ("instances", "*"):
                    yield from instance_violations(path, where, schema)
                    continue
                for bound, make in outside(schema):
                    yield path, name, where, bound, partial(violating, name, where, make)


def violating(name, where, make):
    return put(SOUND[name], where, make())


def instance_violations(path, where, schema):
    names = [name for name in ("GenerateBody", "ChatBody") if reaches(SCHEMAS[name], where[2:])]
    for bound, make in outside(schema):
        for name in names:
            yield path, name, where, bound, partial(instance, name, where[2:], make)


def instance(name, where, make):
    return {"instances": [violating(name, where, make)]}


def reaches(schema, where):
    return any(path == where for path, _ in leaves(schema))


VIOLATIONS = list(violations())


@pytest.mark.parametrize(
    ("path", "make_body"),
    [
        pytest.param(path, make_body, id=f"{path}-{name}-{'.'.join(where)}-{bound}")
        for path, name, where, bound, make_body in VIOLATIONS
    ],
)
def test_every_bound_is_enforced(path, make_body):
    body = json.dumps(make_body()).encode()
    with pytest.raises(Problem) as caught:
        PARSERS[path](body).generations()
    assert caught.value.status == 422


def test_the_violations_cover_every_bounded_field_of_every_body():
    bounded = {(path, where) for path, where, schema in body_leaves() if any(outside(schema))}
    assert {(path, where) for path, _, where, _, _ in VIOLATIONS} == bounded
    assert len(VIOLATIONS) > 300


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_body_is_no_violation(name):
    body = {"inputs": "A"} if name == "TokenizeBody" else SOUND[name]
    kinds = {"CompatBody": "/", "GenerateBody": "/generate", "CompletionBody": "/v1/completions"}
    kinds |= {"ChatBody": "/v1/chat/completions", "TokenizeBody": "/tokenize"}
    kinds |= {"ChatTokenizeBody": "/chat_tokenize", "VertexBody": "/vertex"}
    kinds |= {"ResponsesBody": "/v1/responses", "MessagesBody": "/v1/messages"}
    kinds |= {"CountTokensBody": "/v1/messages/count_tokens", "DetokenizeBody": "/detokenize"}
    assert PARSERS[kinds[name]](json.dumps(body).encode())
    validator({"$ref": f"#/components/schemas/{name}"}).validate(body)


ROUTES = {
    "generate": "/generate",
    "generate_stream": "/generate_stream",
    "compat": "/",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "invocations": "/invocations",
    "vertex": "/vertex",
}


def validator(schema):
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def sent(path):
    """Read a transcript's answers: (route, status, media type, values)."""
    head, *parts = path.read_text("utf-8").split("=== ")
    sections = dict(part.split("\n", 1) for part in parts)
    route = ROUTES[re.search("^dialect: (.*)$", head, re.M)[1]]
    if "refusal" in sections:
        status, body = sections["refusal"].splitlines()
        return route, status, "application/json", [json.loads(body)]
    text = re.sub(r"\$SEED\d", "7", sections["answer"]).replace("$FINGERPRINT", openai.FINGERPRINT)
    if not text.startswith(("data: ", "event: ")):
        return route, "200", "application/json", [json.loads(text)]
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    events = [line.removeprefix("data: ") for line in lines]
    return route, "200", "text/event-stream", [json.loads(e) for e in events if e != "[DONE]"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_is_sent_is_what_is_described(path):
    route, status, media, values = sent(path)
    response = DOCUMENT["paths"][route]["post"]["responses"][status]
    schema = response["content"][media]["schema"]
    for value in values:
        validator(schema).validate(value)
        assert undescribed(schema, value) == set()


def undescribed(schema, value):
    """Collect the keys of a value that its schema does not name."""
    if "$ref" in schema:
        return undescribed(resolved(schema), value)
    if "anyOf" in schema:
        fitting = [part for part in schema["anyOf"] if validator(part).is_valid(value)]
        return min((undescribed(part, value) for part in fitting), key=len)
    if isinstance(value, list):
        return set().union(*(undescribed(schema["items"], item) for item in value))
    if not isinstance(value, dict):
        return set()
    if isinstance(schema.get("additionalProperties"), dict) or "properties" not in schema:
        return set()
    known = schema["properties"]
    inner = (undescribed(known[key], value[key]) for key in value.keys() & known.keys())
    return set(value.keys() - known.keys()).union(*inner)


def test_the_page_loads_nothing_but_the_document():
    assert re.findall(r"(?:src|href)=\"([^#\"]*)\"", PAGE) == ["/api-doc/openapi.json"]
    assert re.findall(r"fetch\(\"([^\"]*)\"\)", PAGE) == ["/api-doc/openapi.json"]
    assert not re.search(r"https?://|@import|\burl\(|innerHTML", PAGE)
    assert 'lang="en"' in PAGE
    assert "prefers-color-scheme: dark" in PAGE
