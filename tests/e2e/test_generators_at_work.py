"""Published generators of a real process: found from where it was started, and left at its stop."""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack

import pytest
from occupancy import assert_clean, wait_for, wait_until_idle
from raw_http import asking, call
from served import SCRIPT, serve

SMALL = ("--max-batch-total-tokens", "32768", "--num-threads", "1")
MINE = """
import time
from pathlib import Path

GATE = Path(__file__).with_name("gate")

def count(n: int = 3):
    yield from range(n)

def gated():
    yield 1
    while not GATE.exists():
        time.sleep(0.01)
    time.sleep(1)  # longer than a server waits that has nothing to wait for
    yield 2

def sleeps():
    yield 1
    time.sleep(1_000_000)

def spins():
    yield 1
    while True:
        pass

async def waits():
    import asyncio
    yield 1
    await asyncio.Event().wait()
"""


@pytest.fixture
def here(tmp_path):
    """A directory to start from, with a user's module in it that has the name of ours."""
    (tmp_path / "server.py").write_text(MINE)
    (tmp_path / "engine.py").write_text("def also(): yield 'mine'")
    return tmp_path


def serve_mine(here, *names, flags=()):
    generators = [word for name in names for word in ("--generator", name)]
    return serve(*SMALL, *flags, *generators, program=SCRIPT, cwd=here)


def events(body):
    return [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n\n") if line]


async def test_modules_called_like_ours_are_published_from_the_current_directory(here):
    with serve_mine(here, "server:count", "engine:also") as server:
        answer = await call(server.url, "POST", "/generators/count", {"n": 2})
        assert events(answer.body)[:-1] == [{"index": 1, "value": 0}, {"index": 2, "value": 1}]
        answer = await call(server.url, "POST", "/generators/also", {})
        assert events(answer.body)[0]["value"] == "mine"
        text = {"inputs": "Hi", "parameters": {"max_new_tokens": 2}}
        assert (await call(server.url, "POST", "/generate", text)).status == 200
        names = [item["name"] for item in (await call(server.url, "GET", "/generators")).json()]
        assert names == ["count", "also"]
        wait_until_idle(server)
        assert_clean(server.log)
        assert server.stop() == 0


async def test_what_runs_at_the_stop_signal_is_waited_for(here):
    with serve_mine(here, "server:gated") as server:
        async with asking(server.url, "/generators/gated", {}) as client:
            await client.read_until(b"\n\n")
            server.process.terminate()
            await wait_for(lambda: "stopping" in server.log)
            (here / "gate").touch()
            answer = await client.read()
        assert events(answer.body)[-1] == {"end": True, "num_values": 2}
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        assert_clean(server.log)


async def test_generators_that_never_yield_do_not_delay_the_exit(here):
    names = ("sleeps", "spins", "waits")
    with serve_mine(here, *(f"server:{name}" for name in names), flags=("-g", "0.2")) as server:
        async with AsyncExitStack() as stack:
            opened = [asking(server.url, f"/generators/{name}", {}) for name in (*names, "sleeps")]
            *clients, gone = [await stack.enter_async_context(client) for client in opened]
            for client in (*clients, gone):
                await client.read_until(b"\n\n")
            gone.leave()
            assert await asyncio.to_thread(server.stop, 30) == 0
            for client in clients:
                answer = await client.read()
                assert answer.is_whole
                assert events(answer.body)[1:] == [
                    {"error": "Model is overloaded", "error_type": "overloaded"}
                ]
        assert "Traceback" not in server.log
        assert "3 generators have not yielded and are left behind" in server.log


@pytest.mark.parametrize(
    ("generators", "sentence"),
    [
        (["server"], "--generator server cannot be published: write it as package.module:function"),
        (["server:nothing"], "has no attribute 'nothing'"),
        (["broken:count"], "--generator broken:count cannot be published: ZeroDivisionError"),
        (["server:count", "server:count"], "are both called count; rename one of the functions"),
    ],
)
def test_a_wrong_generator_is_told_in_a_sentence_before_the_model_is_loaded(
    here, generators, sentence
):
    (here / "broken.py").write_text("1 / 0")
    flags = [word for name in generators for word in ("--generator", name)]
    run = subprocess.run(
        [*SCRIPT, "serve", "--port", "0", *flags],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("Error: --generator ")
    assert sentence in line
    assert run.stdout == ""


async def test_the_examples_are_published_beside_the_built_in_model(server):
    names = [item["name"] for item in (await call(server.url, "GET", "/generators")).json()]
    assert names == ["count", "fake_diffusion"]
    answer = await call(server.url, "POST", "/generators/count", {"n": 2})
    assert [event.get("value") for event in events(answer.body)] == [0, 1, None]
