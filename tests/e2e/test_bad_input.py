"""Bad input on every route: the right status, a JSON error that names the field, no harm to others.

Routes are read from the app and fields from the bodies' types, so that new ones are tried as well.
"""

import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress

import pytest
from in_process import in_process
from raw_http import Connection, asking, call, connect, request_bytes
from streams import check

from server.dialects import bodies, messages_types, responses_types

LIMIT_BYTES = 2_000_000
STREAM = "/generate_stream"
NEIGHBOUR = {
    "inputs": "Once upon a time",
    "parameters": {"max_new_tokens": 60, "ignore_eos": True, "details": True},
}
VALUES = {
    "text": '"x"',
    "empty text": '""',
    "number as text": '"5"',
    "nul": '"\\u0000"',
    "lone surrogate": '"\\ud83d"',
    "lone low surrogate": '"a\\udc00b"',
    "long text": json.dumps("long " * 20_000),
    "zero": "0",
    "minus one": "-1",
    "one and a half": "1.5",
    "minus zero": "-0.0",
    "tiny": "1e-320",
    "1e308": "1e308",
    "-1e308": "-1e308",
    "1e400": "1e400",
    "2^31": str(2**31),
    "2^32": str(2**32),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "-2^63-1": str(-(2**63) - 1),
    "10^400": "1" + 400 * "0",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "true": "true",
    "null": "null",
    "empty list": "[]",
    "list": '["a",-1,null]',
    "nested": "[" * 50 + "]" * 50,
    "empty object": "{}",
    "object": '{"a":1}',
}
NOT_JSON = {"NaN", "Infinity"}


class Route:
    """A route with a body that works, and how to put a value into each of its fields."""

    def __init__(self, path, body, kind, prefix=()):
        self.path = path
        self.body = body
        self.kind = kind
        self.prefix = prefix
        """Where in the body the fields of `kind` are."""

    def with_value(self, field: str, value: str) -> bytes:
        body = json.loads(json.dumps(self.body))
        place = body
        for key in self.prefix:
            place = place[key]
        place[field] = "\x01"
        return json.dumps(body).replace(json.dumps("\x01"), value).encode()


NATIVE = {"inputs": "What is", "parameters": {"max_new_tokens": 1}}
TEXT = {"prompt": "What is", "max_tokens": 1}
CHAT = {"messages": [{"role": "user", "content": "What is"}], "max_tokens": 1}
RESPONSE = {"input": CHAT["messages"], "max_output_tokens": 1}
CALL = {**CHAT["messages"][0], "type": "function_call", "name": "f", "call_id": "c"}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": "What is"}
ROUTES = (
    Route("/", NATIVE, bodies.CompatBody),
    Route("/generate", NATIVE, bodies.GenerateBody),
    Route("/generate", NATIVE, bodies.Parameters, ("parameters",)),
    Route("/generate_stream", NATIVE, bodies.GenerateBody),
    Route("/generate_stream", NATIVE, bodies.Parameters, ("parameters",)),
    Route("/invocations", NATIVE, bodies.CompatBody),
    Route("/invocations", NATIVE, bodies.Parameters, ("parameters",)),
    Route("/invocations", TEXT, bodies.CompletionBody),
    Route("/invocations", CHAT, bodies.ChatBody),
    Route("/v1/completions", TEXT, bodies.CompletionBody),
    Route(
        "/v1/completions", {**TEXT, "stream_options": {}}, bodies.StreamOptions, ("stream_options",)
    ),
    Route("/v1/chat/completions", CHAT, bodies.ChatBody),
    Route("/v1/chat/completions", CHAT, bodies.ChatMessageBody, ("messages", 0)),
    Route("/vertex", {"instances": [NATIVE]}, bodies.VertexBody),
    Route("/vertex", {"instances": [NATIVE]}, bodies.GenerateBody, ("instances", 0)),
    Route("/vertex", {"instances": [NATIVE]}, bodies.Parameters, ("instances", 0, "parameters")),
    Route("/vertex", {"instances": [CHAT]}, bodies.ChatBody, ("instances", 0)),
    Route("/tokenize", {"inputs": "What is"}, bodies.TokenizeBody),
    Route("/chat_tokenize", {"messages": CHAT["messages"]}, bodies.ChatTokenizeBody),
    Route("/detokenize", {"tokens": [1], "note": "What is"}, bodies.DetokenizeBody),
    Route("/v1/responses", RESPONSE, responses_types.ResponsesBody),
    Route("/v1/responses", RESPONSE, responses_types.InputItem, ("input", 0)),
    Route("/v1/responses", {**RESPONSE, "text": {}}, responses_types.TextOptions, ("text",)),
    Route(
        "/v1/responses",
        {**RESPONSE, "tools": [{"type": "function", "name": "f"}], "tool_choice": "none"},
        responses_types.FunctionTool,
        ("tools", 0),
    ),
    Route(
        "/v1/responses",
        {**RESPONSE, "input": [CALL]},
        responses_types.InputItem,
        ("input", 0),
    ),
    Route("/v1/messages", CHAT, messages_types.MessagesBody),
    Route("/v1/messages", CHAT, messages_types.MessageTurn, ("messages", 0)),
    Route(
        "/v1/messages",
        {**CHAT, "messages": [{"role": "user", "content": [RESULT]}]},
        messages_types.MessageBlock,
        ("messages", 0, "content", 0),
    ),
    Route(
        "/v1/messages",
        {**CHAT, "tools": [{"name": "f"}], "tool_choice": {"type": "none"}},
        messages_types.MessageTool,
        ("tools", 0),
    ),
    Route(
        "/v1/messages/count_tokens",
        {"messages": CHAT["messages"]},
        messages_types.CountTokensBody,
    ),
)
DIALECTS = {
    bodies.CompletionBody: "/v1/completions",
    bodies.ChatBody: "/v1/chat/completions",
    responses_types.ResponsesBody: "/v1/responses",
    messages_types.MessagesBody: "/v1/messages",
}
"""By whose grammar `/invocations` streams."""
TOO_LONG = {
    "max_new_tokens": ("null", "2^31"),
    "max_tokens": ("null", "2^31"),
    "max_completion_tokens": ("2^31",),
    "max_output_tokens": ("null", "2^31"),
    "parameters": ("null", "empty object", "object"),
}
"""What is fine, and gives an answer as long as the context."""
SAYS = re.compile(r"must|expected|missing|empty|support|out of range|only one|unknown")
"""Words of the rules that messages tell."""


def route_id(route: Route) -> str:
    return f"{route.path}-{route.kind.__name__}"


async def test_every_route_with_a_body_is_in_the_table():
    async with in_process() as server:
        posts = {r.resource.canonical for r in server.app.router.routes() if r.method == "POST"}
    assert posts - {"/generators/{name}"} == {route.path for route in ROUTES}


@asynccontextmanager
async def neighbour(server):
    """Stream beside the test again and again, and see each time what it says alone."""

    async def text():
        async with asking(server.url, STREAM, NEIGHBOUR) as connection:
            said = check(STREAM, (await connection.read()).body)
            return said.token_ids

    alone = await text()
    is_over = asyncio.Event()

    async def go_on():
        while not is_over.is_set():
            assert await text() == alone

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        is_over.set()
        await task


class Kept:
    """A connection that is opened again when the server has closed it."""

    def __init__(self, url):
        self.url = url
        self.open = None
        self.connection: Connection | None = None

    async def post(self, path, body, *headers):
        for _ in range(2):
            if self.connection is None:
                self.open = connect(self.url)
                self.connection = await self.open.__aenter__()
            self.connection.response = None
            with suppress(EOFError, ConnectionError):
                await self.connection.send(request_bytes("POST", path, body, *headers))
                answer = await self.connection.read()
                if answer.headers.get("connection") == "close":
                    await self.close()
                return answer
            await self.close()
        raise AssertionError(f"no answer to {body[:200]!r}")

    async def close(self):
        if self.open is not None:
            await self.open.__aexit__(None, None, None)
        self.open = self.connection = None


@asynccontextmanager
async def kept(url):
    client = Kept(url)
    try:
        yield client
    finally:
        await client.close()


def error_of(answer) -> tuple[str, str]:
    body = answer.json()
    error = body["error"]
    return (error if isinstance(error, str) else error["message"]), body["error_type"]


def wrong(field, name, answer) -> str | None:
    """Say what is wrong with an answer: it is whole and right, or names field and rule."""
    if not answer.is_whole or answer.status not in (200, 400, 422):
        return "neither an answer nor a refusal"
    if answer.status == 200:
        return None
    message, error_type = error_of(answer)
    if error_type not in ("validation", "tool_error", "suffix not supported"):
        return "another type"
    if name in NOT_JSON:
        return None if answer.status == 400 and "not JSON" in message else "this is not JSON"
    if answer.status != 422:
        return "this is JSON"
    if "surrogate" in name:
        return None if "half of a character" in message else "the reason is missing"
    if name == "long text" and "`inputs` tokens" in message:
        return None  # TGI's words, whatever the field is called
    if field.lower() not in message.lower():
        return "the field is not named"
    return None if SAYS.search(message) and len(message) < 500 else "the rule is not told"


@pytest.mark.parametrize("route", ROUTES, ids=route_id)
async def test_no_value_of_any_field_does_harm(server, route):
    found = []
    async with neighbour(server), kept(server.url) as client:
        for field in route.kind.__struct_fields__:
            for name, value in VALUES.items():
                if name in TOO_LONG.get(field, ()):
                    continue
                answer = await client.post(route.path, route.with_value(field, value))
                if answer.headers["content-type"] == "text/event-stream":
                    assert check(DIALECTS.get(route.kind, STREAM), answer.body).error is None
                elif why := wrong(field, name, answer):
                    found.append((why, field, name, answer.status, answer.body[:300]))
    assert not found


NOT_A_BODY = {
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "number": b"1e999",
    "million digits": b"1" * 1_000_000,
    "empty": b"{}",
    "deep value": b'{"inputs":' + b"[" * 500 + b"]" * 500 + b"}",
    "deep lists": b"[" * 100_000,
}
"""Some of it is not JSON either, but that is seen only after its type."""


def malformed(body: dict) -> dict[str, bytes]:
    """Break a good body in every way that JSON can be broken."""
    good = json.dumps(body).encode()
    middle = good.index(b"What")
    broken = {
        "nothing": b"",
        "spaces": b"  ",
        "cut": good[:-1],
        "cut inside a string": good[: middle + 2],
        "two": good + good,
        "more": good + b"x",
        "single quotes": good.replace(b'"', b"'"),
        "trailing comma": good[:-1] + b",}",
        "not UTF-8": good.replace(b"What", b"\xff\xfe"),
        "nul": b"\0" + good,
        "raw newline": good.replace(b"What", b"Wh\nat"),
        "deep": good[:-1] + b',"x":' + b"[" * 100_000,
        "deep objects": b'{"parameters":' * 100_000,
        "form": b"inputs=What",
        "BOM": b"\xef\xbb\xbf" + good,
    }
    if "note" in body:  # a text that nobody asked for is skipped, whatever it holds
        del broken["not UTF-8"]
    return broken


PATHS = sorted({route.path for route in ROUTES})


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_no_body_is_told_so(server, path):
    found = []
    body = next(route.body for route in ROUTES if route.path == path)
    async with neighbour(server), kept(server.url) as client:
        for status, table in ((400, malformed(body)), (422, NOT_A_BODY)):
            for name, data in table.items():
                answer = await client.post(path, data)
                if answer.status != status or len(error_of(answer)[0]) not in range(20, 300):
                    found.append((name, answer.status, answer.body[:300]))
    assert not found


@pytest.mark.parametrize("path", PATHS)
async def test_another_content_type_is_415(server, path):
    async with kept(server.url) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "x"):
            answer = await client.post(path, b"{}", f"Content-Type: {kind}")
            assert answer.status == 415
            assert "application/json" in error_of(answer)[0]
        for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
            answer = await client.post(path, b"{}", f"Content-Type: {kind}")
            assert answer.status == 422


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_over_the_limit_is_refused_before_it_is_read(server, path):
    async with connect(server.url) as client:
        length = f"Content-Length: {LIMIT_BYTES + 1}"
        await client.send(request_bytes("POST", path, b"{", length))
        answer = await client.read()  # though the rest of the body never comes
    assert answer.status == 413
    assert str(LIMIT_BYTES) in error_of(answer)[0]


@pytest.mark.parametrize("route", ROUTES[:1] + ROUTES[9:10] + ROUTES[11:12], ids=route_id)
async def test_a_prompt_of_two_megabytes_is_refused_and_others_go_on(server, route):
    prompt = "a b " * (LIMIT_BYTES // 4 - 100)
    field = {"messages": "messages"}.get(next(iter(route.body)), next(iter(route.body)))
    value = [{"role": "user", "content": prompt}] if field == "messages" else prompt
    async with neighbour(server):
        answer = await call(server.url, "POST", route.path, {**route.body, field: value})
        assert answer.status == 422
        assert "`inputs` tokens" in error_of(answer)[0]


RAW = {
    "two lengths": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n",
    "negative length": b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "folded header": b"GET /live HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "nul in a header": b"GET /live HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "large header": b"GET /live HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "long path": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
async def test_broken_http_is_400_and_the_connection_ends(server, name):
    async with connect(server.url) as client:
        with suppress(ConnectionError):
            await client.send(RAW[name])
        answer = await client.read()
        assert answer.status == 400
        assert b"Traceback" not in answer.body
        client.response = None
        with pytest.raises((EOFError, ConnectionError)):
            await client.read()
