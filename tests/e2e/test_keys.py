"""With a key set, nothing but the public routes answers without it, however the path is spelt."""

import pytest
from in_process import in_process
from raw_http import call, connect, request_bytes

from server.app import PUBLIC_ROUTES

KEY = "open-sesame"
BODY = {
    "inputs": "abc",
    "prompt": "abc",
    "messages": [{"role": "user", "content": "abc"}],
    "input": "abc",
    "tokens": [1],
    "instances": [{"inputs": "abc", "parameters": {"max_new_tokens": 2}}],
    "parameters": {"max_new_tokens": 2},
    "max_tokens": 2,
}


@pytest.fixture
async def server():
    published = ("server.examples.count:count",)
    async with in_process(api_keys=(KEY, "another"), generators=published) as server:
        yield server


def routes(server) -> list[tuple[str, str]]:
    """Read every method and path from the app."""
    return sorted(
        {
            (route.method, route.resource.canonical)
            for route in server.app.router.routes()
            if route.resource is not None
        }
    )


def protected(server) -> list[tuple[str, str]]:
    return [route for route in routes(server) if route not in PUBLIC_ROUTES]


def named(path: str) -> str:
    """Put a name that exists in the place of a path's parameter."""
    for place, name in (
        ("models/{id", "scripted"),
        ("generators/{name", "count"),
        ("{name", "app.js"),
    ):
        path = path.replace(place + "}", place.partition("{")[0] + name)
    return path


async def ask(server, method, path, *headers):
    body = {"/tokenize": {"inputs": "abc"}, "/generators/{name}": {"n": 0}}.get(path, BODY)
    return await call(server.url, method, named(path), body if method == "POST" else None, *headers)


async def test_every_route_that_is_not_public_needs_a_key(server):
    assert len(protected(server)) >= 9
    for method, path in protected(server):
        for headers in ((), ("Authorization: Bearer wrong",), (f"Authorization: Basic {KEY}",)):
            answer = await ask(server, method, path, *headers)
            assert answer.status == 401, (method, path, headers)
            assert answer.headers["content-type"].startswith("application/json")
            assert "API key" in str(answer.json()["error"])
    assert server.metric("millrace_sequences_ended_total") == 0


async def test_with_a_key_every_route_answers(server):
    for method, path in protected(server):
        for key in (KEY, "another"):
            header = f"Authorization: Bearer {key}"
            if path == "/events":  # it has no end
                async with connect(server.url) as watcher:
                    await watcher.send(request_bytes(method, path, None, header))
                    answer = await watcher.read_head()
            else:
                answer = await ask(server, method, path, header)
            assert answer.status == 200, (method, path, answer.body)


async def test_public_routes_answer_without_a_key(server):
    for method, path in routes(server):
        if (method, path) in PUBLIC_ROUTES:
            found = 404 if path == "/demo" else 200  # no demo runs
            assert (await ask(server, method, path)).status == found, (method, path)


@pytest.mark.parametrize(
    "spell",
    [
        lambda path: "/" + path,
        lambda path: path.replace("/", "//"),
        lambda path: path + "/",
        lambda path: "/health/.." + path,
        lambda path: "/v1/.." + path,
        lambda path: "/." + path,
        lambda path: path[:-1] + f"%{ord(path[-1]):02x}",
        lambda path: "/" + path[1:].replace("/", "%2f"),
        lambda path: "/%2f" + path[1:],
        lambda path: "/%2e%2e" + path,
        lambda path: path.upper(),
        lambda path: path + "?key=" + KEY,
        lambda path: path + ";/health",
        lambda path: path + "%00",
        lambda path: "/health%2f.." + path,
        lambda path: "http://127.0.0.1" + path,
        lambda path: "http://127.0.0.1//health/.." + path,
        lambda path: "http:///health" + path,
        lambda path: path[1:],
    ],
)
async def test_odd_spellings_of_a_path_open_nothing(server, spell):
    for method, path in protected(server):
        answer = await ask(server, method, spell(named(path)))
        assert answer.status in (400, 401, 404), (method, spell(path), answer)
    assert server.metric("millrace_sequences_ended_total") == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "post"])
async def test_other_methods_open_nothing(server, method):
    for _, path in protected(server):
        if (method, path) not in PUBLIC_ROUTES:
            answer = await call(server.url, method, named(path), BODY)
            assert answer.status in (400, 401, 405), (method, path, answer)
    assert server.metric("millrace_sequences_ended_total") == 0


async def test_a_kept_connection_does_not_keep_the_key(server):
    async with connect(server.url) as connection:
        key = f"Authorization: Bearer {KEY}"
        await connection.send(request_bytes("POST", "/generate", BODY, key))
        assert (await connection.read()).status == 200
        connection.response = None
        await connection.send(request_bytes("POST", "/generate", BODY))
        assert (await connection.read()).status == 401


async def test_two_keys_in_one_header_are_none(server):
    for value in (f"Bearer {KEY}, Bearer wrong", f"Bearer {KEY.upper()}", f"Bearer {KEY}x", KEY):
        answer = await ask(server, "POST", "/generate", f"Authorization: {value}")
        assert answer.status == 401, value
