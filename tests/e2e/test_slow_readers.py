"""Readers who do not read: they cost a bounded amount for a bounded time, and others go on."""

import asyncio

import pytest
from in_process import in_process
from occupancy import wait_for
from raw_http import asking
from streams import check

STREAM = "/generate_stream"
CHAT = "/v1/chat/completions"
TINY = 4096
"""Bytes the kernel may keep for a reader."""


def endless(path):
    if path == CHAT:
        chat = [{"role": "user", "content": "abc"}]
        return {"messages": chat, "max_tokens": 90_000, "ignore_eos": True, "stream": True}
    return question(90_000)


def question(num_tokens):
    return {"inputs": "abc", "parameters": {"max_new_tokens": num_tokens, "ignore_eos": True}}


@pytest.fixture(autouse=True)
def clock_that_ticks_often(monkeypatch):
    monkeypatch.setattr("server.sse._TICK_S", 0.1)


@pytest.mark.parametrize("path", [STREAM, CHAT])
@pytest.mark.parametrize(
    "rule",
    [
        {"max_stall_s": 1.0, "max_backlog_bytes": 1 << 40},
        {"max_stall_s": 1e9, "max_backlog_bytes": 200_000},
    ],
    ids=["stall", "backlog"],
)
async def test_a_silent_reader_is_cut_off_while_others_go_on(rule, path):
    async with in_process(**rule) as server:
        async with (
            asking(server.url, path, endless(path), receive_buffer=TINY) as silent,
            asking(server.url, STREAM, question(3000)) as neighbour,
        ):
            said = check(STREAM, (await neighbour.read()).body)
            assert said.text == "abc" * 1000
            await wait_for(
                lambda: server.metric("millrace_streams_ended_total", reason="reader_stalled") == 1
            )
            await wait_for(lambda: not any(server.held().values()))
            answer = await silent.read()
            assert answer.status == 200
            assert not answer.is_whole
            check(path, answer.body, is_whole=False)
        assert server.metric("millrace_requests_ended_total", outcome="finished") == 1


async def test_a_reader_that_takes_its_time_gets_all_of_it():
    async with (
        in_process(max_stall_s=20.0, max_backlog_bytes=1 << 40) as server,
        asking(server.url, STREAM, question(6000), receive_buffer=TINY) as slow,
    ):
        await slow.read_until(b"\n\n")
        # more than the kernel takes for a reader who does not read
        await wait_for(lambda: server.metric("millrace_generated_tokens_total") == 6000)
        assert server.held()["millrace_streams_open"] == 1
        async with asyncio.timeout(60):
            said = check(STREAM, (await slow.read()).body)
        assert said.text == "abc" * 2000
        assert server.metric("millrace_streams_ended_total", reason="finished") == 1
