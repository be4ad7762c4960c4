"""Stop signals in mid-stream: what runs ends whole while there is time, and with a word if not."""

import asyncio
import signal

import pytest
from occupancy import assert_clean, wait_for
from raw_http import asking, call, connect, request_bytes
from served import serve
from streams import check

STREAM = "/generate_stream"
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
SLOW = ("--dtype", "float32", "--num-threads", "1")
"""So that what is asked for lasts longer than it takes to stop."""
FLAGS = ("--max-batch-total-tokens", "32768", *SLOW)


def question(path, num_tokens):
    openai = {"max_tokens": num_tokens, "ignore_eos": True, "stream": True}
    if path == CHAT:
        return {"messages": [{"role": "user", "content": "Tell me"}], **openai}
    if path == TEXT:
        return {"prompt": "Tell me", **openai}
    parameters = {"max_new_tokens": num_tokens, "ignore_eos": True, "details": True}
    return {"inputs": "Tell me", "parameters": parameters}


async def ask_again(connection, method, path, body=None):
    """Use a connection once more."""
    connection.response = None
    await connection.send(request_bytes(method, path, body))
    return await connection.read()


async def until_draining(connection):
    """Wait until the server says on a kept connection that it takes nothing new."""
    while True:
        answer = await ask_again(connection, "GET", "/ready")
        if answer.status != 200:
            return answer
        await asyncio.sleep(0.02)


async def exit_code(server) -> int:
    await wait_for(lambda: server.process.poll() is not None, timeout_s=60)
    return server.process.poll()


async def test_a_stop_signal_lets_what_runs_end_whole_and_refuses_the_rest():
    with serve(*FLAGS) as server:
        async with (
            asking(server.url, STREAM, question(STREAM, 400)) as native,
            asking(server.url, CHAT, question(CHAT, 400)) as chat,
            asking(server.url, TEXT, question(TEXT, 400)) as text,
            asking(server.url, "/generate", question("/generate", 400)) as whole,
            connect(server.url) as watch,
            connect(server.url) as kept,
        ):
            assert (await ask_again(kept, "GET", "/ready")).status == 200
            for stream in (native, chat, text):
                await stream.read_until(b"data: ")
            await wait_for(lambda: server.metric("millrace_requests_running") == 4)
            server.process.send_signal(signal.SIGTERM)
            draining = await until_draining(watch)
            assert draining.status == 503
            assert draining.headers["connection"] == "close"
            refused = await ask_again(kept, "POST", STREAM, question(STREAM, 5))
            assert refused.status == 429
            assert refused.headers["connection"] == "close"
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error_type"] == "overloaded"
            with pytest.raises(ConnectionRefusedError):
                await call(server.url, "GET", "/live")

            said = check(STREAM, (await native.read()).body)
            assert said.finish_reason == "length"
            assert len(said.token_ids) == 400
            for path, stream in ((CHAT, chat), (TEXT, text)):
                answer = await stream.read()
                assert answer.is_whole
                assert check(path, answer.body).finish_reason == "length"
            assert (await whole.read()).json()["details"]["generated_tokens"] == 400
            assert await exit_code(server) == 0
        assert_clean(server.log)
        assert server.log.rstrip().endswith("server.serving: stopped")


@pytest.mark.parametrize(
    ("flags", "signals"),
    [
        (("--graceful-termination-timeout", "1"), (signal.SIGINT,)),
        (("--graceful-termination-timeout", "600"), (signal.SIGTERM, signal.SIGTERM)),
    ],
    ids=["time-is-over", "second-signal"],
)
async def test_what_cannot_be_waited_for_ends_with_an_error_event(flags, signals):
    with serve(*FLAGS, *flags) as server:
        async with (
            asking(server.url, STREAM, question(STREAM, 4000)) as native,
            asking(server.url, CHAT, question(CHAT, 4000)) as chat,
            asking(server.url, "/generate", question("/generate", 4000)) as whole,
            connect(server.url) as watch,
        ):
            for stream in (native, chat):
                await stream.read_until(b"data: ")
            await wait_for(lambda: server.metric("millrace_requests_running") == 3)
            first, *others = signals
            server.process.send_signal(first)
            await until_draining(watch)
            for again in others:
                server.process.send_signal(again)
            for path, stream in ((STREAM, native), (CHAT, chat)):
                answer = await stream.read()
                assert answer.is_whole
                said = check(path, answer.body)
                assert said.error["error_type"] == "overloaded"
                assert said.text
            answer = await whole.read()
            assert answer.status == 429
            assert answer.json()["error_type"] == "overloaded"
            assert await exit_code(server) == 0
        assert_clean(server.log)
