"""A model's template that never ends or takes all memory, over HTTP: it harms nobody else."""

import asyncio
import json
import os
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession
from occupancy import assert_clean, wait_for, wait_until_idle
from raw_http import call
from served import serve

TEMPLATE = (
    "{% set text = messages[0].content %}"
    "{% if text == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}"
    "{% elif text == 'count' %}{{ 9 ** (9 ** (6 + messages | length)) }}"
    "{% elif text == 'grow' %}{% set ns = namespace(x=text) %}"
    "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    "{% elif text == 'fill' %}{{ text * 10 ** 9 }}"
    "{% elif text == 'flood' %}{{ text * 10 ** 6 }}"
    "{% elif text == 'sink' %}{% macro sink() %}{{ sink() }}{% endmacro %}{{ sink() }}"
    "{% endif %}{{ text }}"
)
REFUSALS = {
    "loop": "takes more than 0.8 s",
    "count": "takes more than 0.8 s",
    "grow": "takes more than",
    "fill": "takes more than 256 MiB",
    "flood": "the rendered chat may have",
    "sink": "recursion",
}
ROUTES = {
    "/v1/chat/completions": {"max_tokens": 3},
    "/v1/messages": {"max_tokens": 3},
    "/v1/messages/count_tokens": {},
    "/tokenize": {},
    "/chat_tokenize": {},
}
NUM_TOKENS = 3000
STREAM = {
    "inputs": "Once upon a time",
    "parameters": {"max_new_tokens": NUM_TOKENS, "ignore_eos": True},
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": TEMPLATE}))
    with serve(
        *("--tokenizer-config-path", str(path), "--num-threads", "1"),
        *("--max-batch-total-tokens", "32768"),
    ) as server:
        yield server


def descendants(pid):
    """List the processes that this one has started, and theirs."""
    parents = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{other}/stat") as stat:
                parents[int(other)] = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def asking(path, text):
    return {"model": "any", "messages": [{"role": "user", "content": text}], **ROUTES[path]}


@asynccontextmanager
async def streaming(server):
    """Read a long stream meanwhile; give its events so far, and see that it ends whole."""
    events = []

    async def read(response):
        async for line in response.content:
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))

    async with (
        ClientSession() as session,
        session.post(server.url + "/generate_stream", json=STREAM) as response,
    ):
        reading = asyncio.create_task(read(response))
        await wait_for(lambda: len(events) > 5)
        yield events
        await reading
    assert len(events) == NUM_TOKENS
    assert events[-1]["generated_text"] == "".join(
        event["token"]["text"] for event in events if not event["token"]["special"]
    )


@pytest.mark.parametrize("text", ["loop", "grow"])
async def test_streams_go_on_whatever_a_template_does(hostile, text):
    path = "/v1/chat/completions"
    async with streaming(hostile) as events:
        before = len(events)
        answer = await call(hostile.url, "POST", path, asking(path, text))
        assert answer.status == 422
        assert len(events) > before + 10, "nothing was streamed meanwhile"
        assert (await call(hostile.url, "POST", path, asking(path, "Hi"))).status == 200


@pytest.mark.parametrize("text", REFUSALS)
async def test_a_template_that_does_its_worst_is_unprocessable(hostile, text):
    path = "/v1/chat/completions"
    answer = await call(hostile.url, "POST", path, asking(path, text))
    assert answer.status == 422
    assert answer.json()["error_type"] == "template_error"
    assert REFUSALS[text] in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_that_renders_says_what_was_too_much(hostile, path):
    answer = await call(hostile.url, "POST", path, asking(path, "fill"))
    assert answer.status == 422
    assert "takes more than 256 MiB" in answer.body.decode()
    assert (await call(hostile.url, "POST", path, asking(path, "Hi"))).status == 200


async def test_a_client_that_leaves_a_hostile_chat_leaves_nothing_behind(hostile):
    path = "/v1/chat/completions"
    leaving = asyncio.create_task(call(hostile.url, "POST", path, asking(path, "loop")))
    await wait_for(lambda: hostile.metric("millrace_permits_held") == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await call(hostile.url, "POST", path, asking(path, "Hi"))).status == 200
    await asyncio.to_thread(wait_until_idle, hostile)


async def test_a_server_that_is_stopped_while_a_chat_is_rendered_leaves_no_process(hostile):
    path = "/v1/chat/completions"
    helpers = descendants(hostile.process.pid)
    assert len(helpers) >= 2, "nobody renders"
    rendering = asyncio.create_task(call(hostile.url, "POST", path, asking(path, "loop")))
    await wait_for(lambda: hostile.metric("millrace_permits_held") == 1)
    helpers |= descendants(hostile.process.pid)
    assert await asyncio.to_thread(hostile.stop) == 0
    assert (await rendering).status in {422, 429}
    await wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in helpers))
    assert_clean(hostile.log)
