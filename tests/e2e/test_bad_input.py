"""What is no body, or no HTTP: the right status and a JSON error, on every route that takes bodies.

Routes are read from the app. What stands in the fields of a body is `test_boundaries.py`.
"""

import json
from contextlib import suppress

import pytest
from in_process import in_process, post_routes
from neighbour import neighbour
from raw_http import call, connect, kept, request_bytes

LIMIT_BYTES = 2_000_000
ROUTES = [path for path, _ in post_routes() if path != "/generators/{name}"]
NATIVE = {"inputs": "What is", "parameters": {"max_new_tokens": 1}}
CHAT = {"messages": [{"role": "user", "content": "What is"}], "max_tokens": 1}
BODIES = {
    "/v1/completions": {"prompt": "What is", "max_tokens": 1},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"input": "What is", "max_output_tokens": 1},
    "/v1/messages": CHAT,
    "/v1/messages/count_tokens": CHAT,
    "/vertex": {"instances": [NATIVE]},
    "/chat_tokenize": CHAT,
    "/detokenize": {"tokens": [1], "note": "What is"},
}
"""Good bodies, to be broken; all other routes take the native one."""


def message_of(answer) -> str:
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


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


@pytest.fixture
async def scripted():
    async with in_process() as server:
        yield server


@pytest.mark.parametrize("path", ROUTES)
async def test_what_is_no_body_is_told_so(scripted, path):
    found = []
    async with neighbour(scripted), kept(scripted.url) as client:
        for status, table in ((400, malformed(BODIES.get(path, NATIVE))), (422, NOT_A_BODY)):
            for name, data in table.items():
                answer = await client.post(path, data)
                if answer.status != status or len(message_of(answer)) not in range(20, 300):
                    found.append((name, answer.status, answer.body[:300]))
    assert not found


@pytest.mark.parametrize("path", ROUTES)
async def test_another_content_type_is_415(scripted, path):
    async with kept(scripted.url) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "x"):
            answer = await client.post(path, b"{}", f"Content-Type: {kind}")
            assert answer.status == 415
            assert "application/json" in message_of(answer)
        for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
            answer = await client.post(path, b"{}", f"Content-Type: {kind}")
            assert answer.status == 422


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_over_the_limit_is_refused_before_it_is_read(scripted, path):
    async with connect(scripted.url) as client:
        length = f"Content-Length: {LIMIT_BYTES + 1}"
        await client.send(request_bytes("POST", path, b"{", length))
        answer = await client.read()  # though the rest of the body never comes
    assert answer.status == 413
    assert str(LIMIT_BYTES) in message_of(answer)


LONG_PROMPT = "a b " * (LIMIT_BYTES // 4 - 100)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": LONG_PROMPT}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG_PROMPT}]}),
    ],
    ids=["text", "chat"],
)
async def test_a_prompt_of_two_megabytes_is_refused_and_others_go_on(server, path, body):
    async with neighbour(server):
        answer = await call(server.url, "POST", path, body)
        assert answer.status == 422
        assert "`inputs` tokens" in message_of(answer)


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
async def test_broken_http_is_400_and_the_connection_ends(scripted, name):
    async with connect(scripted.url) as client:
        with suppress(ConnectionError):
            await client.send(RAW[name])
        answer = await client.read()
        assert answer.status == 400
        assert b"Traceback" not in answer.body
        client.response = None
        with pytest.raises((EOFError, ConnectionError)):
            await client.read()
