"""What goes wrong inside the server reaches clients as an error, never as silence.

Which class each client raises is the table of `test_errors_by_client.py`.
"""

import asyncio
import logging
import time
from functools import partial

import openai
import pytest
from in_process import in_process, repeat_prompt
from occupancy import wait_for
from raw_http import asking, call
from streams import check

from server.dialects.tgi_reply import GenerateStreamReply

STREAM = "/generate_stream"
CHAT = [{"role": "user", "content": "abc"}]


def failing_at(number: int):
    """Give a script that repeats the prompt and fails at a token; 0 is before the first."""

    def script(row) -> int:
        if row.num_output == number:
            raise RuntimeError("out of luck")
        return repeat_prompt(row)

    return script


async def test_openai_raises_the_message_whole_and_in_mid_stream():
    async with (
        in_process(failing_at(3)) as server,
        openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0) as client,
    ):
        ask = partial(client.chat.completions.create, model="m", messages=CHAT, max_tokens=9)
        with pytest.raises(openai.APIStatusError, match="out of luck") as raised:
            await ask()
        assert raised.value.status_code == 424
        stream = await ask(stream=True)
        seen = [(await anext(stream)).choices[0].delta.content for _ in range(4)]
        assert "".join(seen) == "abc"
        with pytest.raises(openai.APIError, match="out of luck"):
            await anext(stream)


async def test_openai_retries_when_it_is_told_to_and_then_gives_up():
    answers = []

    async def note(response):
        answers.append((time.monotonic(), int(response.headers["retry-after"])))

    async with (
        in_process(max_concurrent_requests=1) as server,
        asking(server.url, STREAM, question()) as holder,
        openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]}) as http,
    ):
        server.runner.gate.clear()
        await asyncio.to_thread(server.runner.entered.wait)
        client = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="-", http_client=http)
        with pytest.raises(openai.RateLimitError, match="Model is overloaded"):
            await client.completions.create(model="m", prompt="abc", max_tokens=1)
        server.runner.gate.set()
        assert check(STREAM, (await holder.read()).body).text == "abcabcabc"
        assert server.metric("millrace_requests_refused_total", reason="no_permit") == 3
    (first, wait), (second, next_wait), (third, _) = answers
    assert second - first >= wait >= 1
    assert third - second >= next_wait >= 1


def question(num_tokens=9):
    return {"inputs": "abc", "parameters": {"max_new_tokens": num_tokens, "ignore_eos": True}}


@pytest.mark.parametrize(
    "path",
    [
        *("/generate", STREAM, "/v1/chat/completions", "/v1/completions"),
        *("/v1/responses", "/v1/messages"),
    ],
)
async def test_a_fault_before_the_first_token_is_a_status_with_json(path):
    body = {**question(), "messages": CHAT, "prompt": "abc", "stream": True}
    body |= {"input": "abc", "max_tokens": 9}
    async with in_process(failing_at(0)) as server:
        answer = await call(server.url, "POST", path, body)
        assert answer.status == 424
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["error_type"] == "generation"


async def test_a_bad_row_ends_alone():
    async with in_process() as server:
        server.runner.gate.clear()
        async with (
            asking(server.url, STREAM, question()) as bad,
            asking(server.url, STREAM, question()) as good,
        ):
            await wait_for(lambda: server.held()["millrace_permits_held"] == 2)
            server.runner.row_errors = {1: "a NaN among the logits"}
            server.runner.gate.set()
            answers = [await bad.read(), await good.read()]
        answers.sort(key=lambda answer: answer.status)
        assert [answer.status for answer in answers] == [200, 424]
        assert check(STREAM, answers[0].body).text == "abcabcabc"
        assert "NaN" in answers[1].json()["error"]


async def test_a_bug_in_mid_stream_cuts_the_stream_where_all_can_see_it(monkeypatch, caplog):
    delta = GenerateStreamReply.delta

    def buggy(self, index, gain):
        if self._index == 3:
            raise ZeroDivisionError("a bug")
        return delta(self, index, gain)

    monkeypatch.setattr(GenerateStreamReply, "delta", buggy)
    async with in_process() as server:
        async with asking(server.url, STREAM, question()) as client:
            answer = await client.read()
        assert not answer.is_whole
        assert check(STREAM, answer.body, is_whole=False).text == "abc"
        assert server.metric("millrace_requests_ended_total", outcome="generation") == 1
        await wait_for(lambda: not any(server.held().values()))
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.exc_info[0] is ZeroDivisionError


async def test_the_engine_goes_on_after_a_fault():
    async with in_process(failing_at(2)) as server:
        assert (await call(server.url, "POST", "/generate", question())).status == 424
        assert (await call(server.url, "GET", "/health")).status == 200
        answer = await call(server.url, "POST", "/generate", question(2))
        assert answer.json()["generated_text"] == "ab"
