"""While nothing is said: comments keep a stream open, and what is known before is a status."""

import asyncio

import pytest
from fakes import FakeClock
from in_process import in_process
from occupancy import wait_for
from raw_http import asking
from streams import check

from server.sse import COMMENT

STREAM = "/generate_stream"
CHAT = "/v1/chat/completions"


def question(path):
    if path == CHAT:
        return {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 3, "stream": True}
    return {"inputs": "abc", "parameters": {"max_new_tokens": 3}}


@pytest.fixture(autouse=True)
def clock_that_ticks_often(monkeypatch):
    monkeypatch.setattr("server.sse._TICK_S", 0.1)


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_a_silent_stream_says_so_before_its_first_token_and_then_goes_on(path):
    async with in_process(keep_alive_s=0.1) as server:
        server.runner.gate.clear()
        async with asking(server.url, path, question(path)) as client:
            head = await client.read_head()
            assert head.status == 200
            assert head.headers["content-type"] == "text/event-stream"
            silence = b""
            while silence.count(COMMENT) < 2:
                silence += await client.read_some()
            assert silence.replace(COMMENT, b"") == b""
            server.runner.gate.set()
            answer = await client.read()
            assert check(path, answer.body).text == "abc"
        assert server.metric("millrace_keep_alives_total") >= 2


async def test_a_stream_that_talks_needs_no_comments():
    async with (
        in_process(keep_alive_s=60.0) as server,
        asking(server.url, STREAM, question(STREAM)) as client,
    ):
        answer = await client.read()
        assert check(STREAM, answer.body).text == "abc"
        assert COMMENT not in answer.body
        assert server.metric("millrace_keep_alives_total") == 0


async def test_a_fault_after_a_comment_is_an_event():
    async with in_process(keep_alive_s=0.1) as server:
        server.runner.gate.clear()
        async with asking(server.url, STREAM, question(STREAM)) as client:
            await client.read_head()
            await client.read_some()
            server.runner.raises = RuntimeError("boom")
            server.runner.gate.set()
            answer = await client.read()
        assert answer.status == 200
        assert answer.is_whole
        assert b'"error_type":"generation"' in answer.body


@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_a_wait_that_was_too_long_is_a_429_with_retry_after(path):
    limits = {"max_queue_s": 5.0, "max_batch_size": 1}
    async with in_process(limits=limits) as server:
        clock = server.engine._clock = FakeClock()
        server.runner.gate.clear()
        async with asking(server.url, path, question(path)) as first:
            await asyncio.to_thread(server.runner.entered.wait)
            async with asking(server.url, path, question(path)) as second:
                await wait_for(lambda: server.metric("millrace_queue_depth") == 1)
                clock.advance(6.0)
                server.runner.gate.set()
                answer = await second.read()
            assert (await first.read()).status == 200
        assert answer.status == 429
        assert answer.json()["error_type"] == "overloaded"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert server.metric("millrace_requests_refused_total", reason="queue_expired") == 1
