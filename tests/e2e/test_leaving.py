"""Clients that leave: whatever they were waiting for, what they held is given back at once."""

import asyncio
import json
import logging
import random
import threading

import pytest
from in_process import in_process
from occupancy import assert_clean, gauges, wait_for, wait_until_idle
from raw_http import asking, call, connect, request_bytes
from streams import check

STREAM = "/generate_stream"
CHAT = "/v1/chat/completions"
LEAVES = ("leave", "reset")
"""FIN and RST."""


def question(num_tokens=50, path=STREAM):
    if path == CHAT:
        chat = [{"role": "user", "content": "abc"}]
        return {"messages": chat, "max_tokens": num_tokens, "ignore_eos": True, "stream": True}
    return {"inputs": "abc", "parameters": {"max_new_tokens": num_tokens, "ignore_eos": True}}


class Held:
    """A script that repeats the prompt and holds the step that makes one token."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, row) -> int:
        if row.num_output == self.at:
            self.reached.set()
            assert self.go_on.wait(30)
        return row.token_ids[row.num_output % row.num_prompt]


@pytest.fixture(autouse=True)
def log(caplog):
    """Nobody's leaving is worth more than one line, and none above information."""
    caplog.set_level(logging.INFO)
    yield caplog
    loud = [record for record in caplog.get_records("call") if record.levelno > logging.INFO]
    assert not loud, [record.getMessage() for record in loud]


def lines(log):
    return [record for record in log.records if record.name == "server.requests"]


async def gone(server, script=None, num_lines=1, log=None):
    """Wait until all is given back, before the step that is held goes on and after it."""
    await wait_for(lambda: not any(server.held().values()))
    if script is not None:
        script.go_on.set()
    if log is not None:
        await wait_for(lambda: len(lines(log)) == num_lines)
        assert all(record.fields["is_client_gone"] for record in lines(log))
    assert server.metric("tgi_request_failure", err="dropped") == num_lines
    answer = await call(server.url, "POST", "/generate", question(2))
    assert answer.json()["generated_text"] == "ab"
    assert not any(server.held().values())


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("path", [STREAM, "/generate", CHAT])
async def test_leaving_while_waiting_for_the_first_token(log, how, path):
    script = Held(at=0)
    async with in_process(script) as server, asking(server.url, path, question(9, path)) as client:
        await asyncio.to_thread(script.reached.wait)
        assert server.held()["millrace_permits_held"] == 1
        assert server.held()["millrace_kv_cache_blocks_used"] > 0
        getattr(client, how)()
        await gone(server, script, log=log)


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("path", [STREAM, "/generate", CHAT])
async def test_leaving_while_queued(log, how, path):
    script = Held(at=0)
    async with (
        in_process(script, limits={"max_batch_size": 1}) as server,
        asking(server.url, STREAM, question(9)) as first,
    ):
        await asyncio.to_thread(script.reached.wait)
        async with asking(server.url, path, question(9, path)) as client:
            await wait_for(lambda: server.held()["millrace_queue_depth"] == 1)
            getattr(client, how)()
            await wait_for(lambda: server.held()["millrace_queue_depth"] == 0)
            assert server.held()["millrace_permits_held"] == 1
        script.go_on.set()
        said = check(STREAM, (await first.read()).body)
        assert len(said.token_ids) == 9


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("path", [STREAM, CHAT])
async def test_leaving_in_mid_stream(log, how, path):
    async with in_process() as server:
        async with asking(server.url, path, question(90_000, path)) as client:
            await client.read_until(b"\n\n")
            assert server.held()["millrace_streams_open"] == 1
            getattr(client, how)()
        await gone(server, log=log)
        assert server.metric("millrace_streams_ended_total", reason="client_gone") == 1


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("path", [STREAM, "/generate", CHAT])
async def test_leaving_while_the_last_token_is_made(log, how, path):
    script = Held(at=4)
    async with in_process(script) as server, asking(server.url, path, question(5, path)) as client:
        await asyncio.to_thread(script.reached.wait)
        getattr(client, how)()
        await gone(server, script, log=log)


async def test_leaving_just_before_a_write(log):
    script = Held(at=1)
    async with in_process(script) as server, asking(server.url, STREAM, question()) as client:
        await client.read_until(b"\n\n")
        await asyncio.to_thread(script.reached.wait)
        ((tokens, _),) = server.engine._streams.values()
        tokens.nudge()  # the handler writes next, and only then hears that the client has left
        server.transports[0].abort()
        await gone(server, script, log=log)


@pytest.mark.parametrize("how", LEAVES)
async def test_leaving_at_done_is_a_success(log, how):
    async with in_process() as server:
        async with asking(server.url, CHAT, question(5, CHAT)) as client:
            await client.read_until(b"data: [DONE]")
            getattr(client, how)()
        await wait_for(lambda: not any(server.held().values()))
        assert server.metric("millrace_requests_ended_total", outcome="finished") == 1
        assert server.metric("tgi_request_failure") == 0
        (record,) = lines(log)
        assert not record.fields["is_client_gone"]


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("path", [STREAM, CHAT, "/tokenize"])
async def test_leaving_inside_the_body(log, how, path):
    async with in_process() as server:
        async with connect(server.url) as client:
            whole = request_bytes("POST", path, question())
            await client.send(whole[:-10])
            await wait_for(lambda: len(server.transports) == 1)
            getattr(client, how)()
        await wait_for(lambda: not server.transports)
        assert not any(server.held().values())
        assert server.metric("millrace_sequences_ended_total") == 0


async def test_others_do_not_notice(log):
    async with in_process() as server:
        async with asking(server.url, STREAM, question(2000)) as neighbour:
            await neighbour.read_until(b"\n\n")
            for number in range(40):
                async with asking(server.url, STREAM, question()) as client:
                    await client.read_until(b"\n\n")
                    getattr(client, LEAVES[number % 2])()
            said = check(STREAM, (await neighbour.read()).body)
        assert said.text == ("abc" * 1000)[:2000]
        await wait_for(lambda: not any(server.held().values()))


# A real model


def random_request(rng) -> tuple[str, dict]:
    num_tokens = rng.choice((1, 2, 5, 40))
    is_stream = rng.random() < 0.7
    words = " ".join(
        rng.choices(("river", "stone", "seven", "light", "wheel"), k=rng.randint(1, 30))
    )
    native = {
        "inputs": words,
        "parameters": {"max_new_tokens": num_tokens, "ignore_eos": True},
        "stream": is_stream,
    }
    openai = {"max_tokens": num_tokens, "ignore_eos": True, "stream": is_stream}
    return rng.choice(
        (
            ("/", native),
            ("/generate", native),
            (STREAM, native),
            ("/v1/completions", {"prompt": [words, words + "!"], **openai}),
            (CHAT, {"messages": [{"role": "user", "content": words}], **openai}),
        )
    )


async def leave_somewhere(url: str, rng) -> None:
    """Ask, and leave at a random moment: in the request, before, in or after the answer."""
    path, body = random_request(rng)
    data = request_bytes("POST", path, body)
    async with connect(url) as client:
        moment = rng.random()
        if moment < 0.1:
            await client.send(data[: rng.randrange(len(data))])
        else:
            await client.send(data)
            if moment < 0.3:
                await asyncio.sleep(rng.random() * 0.05)
            elif moment < 0.8:
                for _ in range(rng.randint(1, 12)):
                    await client.read_some()
            else:
                answer = await client.read()
                assert answer.status == 200
                assert answer.is_whole
                if answer.headers["content-type"] == "text/event-stream":
                    num_prompts = 2 if path == "/v1/completions" else 1
                    assert check(path, answer.body, num_prompts=num_prompts).error is None
                else:
                    json.loads(answer.body)
        getattr(client, rng.choice(LEAVES))()


async def test_a_storm_of_random_leaves_leaves_nothing_behind(server):
    rng = random.Random(2026)
    before = len(server.log)
    todo = [random.Random(rng.random()) for _ in range(200)]

    async def work():
        while todo:
            await leave_somewhere(server.url, todo.pop())

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(work())
    await asyncio.to_thread(wait_until_idle, server)
    assert not any(gauges(server).values())
    log = server.log[before:]
    assert_clean(log)
    assert all(" server.requests: request finished " in line for line in log.splitlines())
    assert len(log.splitlines()) <= 200
