"""Servers that tests share, each started once; after every test one must be as idle as before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_app import demo
from occupancy import assert_clean, occupied, wait_until_idle
from served import serve

SMALL = ("--max-batch-total-tokens", "32768", "--num-threads", "1")
"""Enough for these tests, and quickly there; the tests' own process wants a core, too."""


def _shared(*flags):
    @pytest.fixture(scope="session")
    def started():
        with serve(*SMALL, *flags) as server:
            yield server
            assert server.process.poll() is None, server.log[-3000:]
            assert_clean(server.log)

    return started


started_server = _shared("--dtype", "float32", "--enable-prefill-logprobs")
started_crowded = _shared(
    *("--max-concurrent-requests", "2", "--max-batch-size", "1", "--tool-call-parser", "hermes")
)
started_keyed = _shared("--api-key", "open-sesame")


@pytest.fixture
def server(started_server):
    """The server of most tests."""
    yield started_server
    wait_until_idle(started_server)


@pytest.fixture
def crowded(started_crowded):
    """A server with two permits and one row, which reads calls of tools."""
    yield started_crowded
    wait_until_idle(started_crowded)


@pytest.fixture
def keyed(started_keyed):
    """A server that asks for the key `open-sesame`."""
    yield started_keyed
    wait_until_idle(started_keyed)


@pytest.fixture(scope="session")
def started_demo(started_server):
    """The Gradio app that asks the server of most tests."""
    with demo(started_server.url) as app:
        yield app


@pytest.fixture
def full(crowded):
    """The crowded server with a stream that runs and one that waits: no permit is left."""
    with occupied(crowded, 2):
        yield crowded


@pytest.fixture(scope="session")
def ask_litellm():
    """Give a function that calls LiteLLM, which runs in a process of its own."""
    program = [sys.executable, str(Path(__file__).parents[1] / "litellm_loop.py")]
    # else it asks the internet for prices as it is imported
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(program, env=env, text=True, **pipes) as process:

        def ask(url, way, *, is_async=False, **options):
            fixed = {"api_base": f"{url}/v1", "api_key": "-", "num_retries": 0}
            asked = {"model": f"{way}/m", "is_async": is_async, **fixed, **options}
            print(json.dumps(asked), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
