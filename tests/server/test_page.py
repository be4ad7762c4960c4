"""The page: who gets it, who gets TGI's health answer, and what its files are served as."""

import json
import re
from pathlib import Path

import pytest
from dialect_config import dialect_config
from in_process import in_process
from raw_http import call

from server.openapi import openapi_document
from server.page import TYPES, prefers_html

WEB = Path(__file__).parents[2] / "server" / "web"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FILES = sorted(path.name for path in WEB.iterdir() if path.suffix in TYPES)


@pytest.fixture
async def server():
    async with in_process() as server:
        yield server


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        ((FIREFOX,), True),
        (("text/html",), True),
        (("TEXT/HTML ; charset=utf-8",), True),
        (("text/*",), True),
        (("text/html;q=0.2",), True),
        (("text/html, application/json;q=0.9",), True),
        (("application/json;q=0.5", "text/html;q=0.6"), True),
        (("text/html;q=0.9,*/*;q=0.8",), True),
        ((), False),
        (("",), False),
        (("*/*",), False),
        (("application/json",), False),
        (("application/json, text/html",), False),
        (("application/json, text/html;q=0.9",), False),
        (("text/html;q=0.5, */*",), False),
        (("text/html;q=0",), False),
        (("text/html;q=0, text/*",), False),
        (("text/html;q=2",), False),
        (("text/html;q=nan",), False),
        (("text/html;q=",), False),
        (("text/plain",), False),
        (("application/*",), False),
        ((";;,,=",), False),
    ],
)
def test_html_must_be_wanted_more_than_json(accept, is_page):
    assert prefers_html(accept) is is_page


async def test_a_browser_gets_the_page(server):
    page = await call(server.url, "GET", "/", None, f"Accept: {FIREFOX}")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body == (WEB / "index.html").read_bytes()


@pytest.mark.parametrize("headers", [[], ["Accept: */*"], ["Accept: application/json"]])
async def test_everybody_else_gets_tgis_health_answer(server, headers):
    root = await call(server.url, "GET", "/", None, *headers)
    health = await call(server.url, "GET", "/health", None, *headers)
    for response in (root, health):
        del response.headers["date"]
    assert root.headers.pop("vary").startswith("accept, ")
    assert health.headers.pop("vary")
    assert root == health
    assert (root.status, root.body) == (200, b"")


async def test_a_head_request_is_a_health_check(server):
    head = await call(server.url, "HEAD", "/", None, f"Accept: {FIREFOX}")
    health = await call(server.url, "HEAD", "/health")
    assert head.status == health.status == 200
    assert "content-security-policy" not in head.headers
    assert head.headers.get("content-type") == health.headers.get("content-type")


async def test_caches_are_told_that_the_answer_depends_on_accept(server):
    for accept in (FIREFOX, "*/*"):
        response = await call(server.url, "GET", "/", None, f"Accept: {accept}")
        named = [name.strip() for name in response.headers["vary"].split(",")]
        assert {"accept", "origin"} <= set(named)
    other = await call(server.url, "GET", "/health")
    assert "accept," not in other.headers["vary"]


async def test_an_unhealthy_server_still_shows_its_page():
    def fails(row):
        raise RuntimeError("the model is gone")

    async with in_process(fails) as server:
        for _ in range(10):  # until the engine calls itself unhealthy
            await call(server.url, "POST", "/generate", {"inputs": "abc"})
        assert (await call(server.url, "GET", "/")).status == 503
        page = await call(server.url, "GET", "/", None, f"Accept: {FIREFOX}")
        assert page.status == 200
        assert page.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_as_what_it_is(server, name):
    response = await call(server.url, "GET", f"/web/{name}")
    assert response.status == 200
    assert response.body == (WEB / name).read_bytes()
    assert response.headers["content-type"] == f"{TYPES[Path(name).suffix]}; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"


async def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline(server):
    for path in ("/", "/web/app.js"):
        response = await call(server.url, "GET", path, None, f"Accept: {FIREFOX}")
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'; img-src 'self' data:;" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize("path", ["/", "/web/app.js"])
async def test_a_copy_that_is_still_right_is_not_sent_again(server, path):
    accept = f"Accept: {FIREFOX}"
    first = await call(server.url, "GET", path, None, accept)
    tag = first.headers["etag"]
    again = await call(
        server.url, "GET", path, None, accept, f"If-None-Match: {tag}", "Connection: close"
    )
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    other = await call(server.url, "GET", path, None, accept, 'If-None-Match: "other"')
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/nothing.js",
        "/web/index.html",
        "/web/docs.html",
        "/web/../app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e/app.py",
        "/web/%2e%2e%2fapp.py",
        "/web//app.js",
        "/web/app.js/",
        "/web/app.js%00",
        "/web/app.py",
    ],
)
async def test_no_other_file_can_be_had(server, path):
    assert (await call(server.url, "GET", path)).status == 404


async def test_without_the_page_browsers_get_the_health_answer_too():
    async with in_process(is_web=False) as server:
        root = await call(server.url, "GET", "/", None, f"Accept: {FIREFOX}")
        assert (root.status, root.body) == (200, b"")
        assert (await call(server.url, "GET", "/web/app.js")).status == 404
        assert (await call(server.url, "GET", "/docs")).status == 200


async def test_the_page_is_public_and_its_calls_are_not():
    async with in_process(api_keys=("open-sesame",)) as server:
        page = await call(server.url, "GET", "/", None, f"Accept: {FIREFOX}")
        assert (page.status, page.body[:9]) == (200, b"<!doctype")
        for path in ("/web/app.js", "/info", "/api-doc/openapi.json"):
            assert (await call(server.url, "GET", path)).status == 200
        for path in ("/generate_stream", "/v1/chat/completions", "/tokenize", "/chat_tokenize"):
            assert (await call(server.url, "POST", path, {"inputs": "abc"})).status == 401


def test_all_that_the_page_names_is_there():
    texts = {name: (WEB / name).read_text() for name in [*FILES, "index.html"]}
    for name, text in texts.items():
        imported = re.findall(r'(?:from|import\() ?["`]\./([\w-]+\.js)', text)
        linked = re.findall(r'(?:href|src)="/web/([^"]+)"', text)
        missing = set(imported + linked) - set(FILES)
        assert not missing, (name, missing)


def test_every_parameter_is_offered_or_left_out_on_purpose():
    """Fields come from the API's document; a name that is left out must still be one of it."""
    schemas = json.loads(openapi_document(dialect_config(), "1"))["components"]["schemas"]
    source = (WEB / "parameters.js").read_text()
    left_out = re.search(r"LEFT_OUT = \{(.*?)\n\};", source, re.DOTALL)[1]
    for mode, schema in (("prompt", "Parameters"), ("chat", "ChatBody")):
        names = re.findall(r'"(\w+)"', re.search(rf"{mode}: \[(.*?)\]", left_out, re.DOTALL)[1])
        assert set(names) < set(schemas[schema]["properties"])
