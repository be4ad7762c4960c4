"""`serve --demo` and `millrace demo`: the app as a process, the way to it, and its end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gradio_app import client_of, demo
from occupancy import wait_for
from raw_http import call
from served import free_port, serve

KEY = "open-sesame"
SMALL = ("--max-batch-total-tokens", "8192", "--num-threads", "1")


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def beside(port, tmp_path):
    """A server with a key, and its app, which may not have the time to clear its folder."""
    flags = (*SMALL, "--api-key", KEY, "--demo", "--demo-port", str(port))
    with serve(*flags, env={"TMPDIR": str(tmp_path)}) as server:
        yield server


def child_of(process) -> int:
    """Find the app among the server's processes."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (app,) = (int(child) for child in children if "demo" in command_of(int(child)))
    return app


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


async def lead(server, host: str) -> tuple[int, str | None, str]:
    """Ask `/demo` by a host's name: status, place, and what may keep it."""

    def ask():
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        connection.putrequest("GET", "/demo", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        with closing(connection), connection.getresponse() as answer:
            return answer.status, answer.getheader("Location"), answer.getheader("Cache-Control")

    return await asyncio.to_thread(ask)


async def test_the_demo_runs_beside_the_server_and_ends_with_it(beside, port):
    assert '"title":"Millrace"' in beside.get("/demo")  # the redirect is followed
    for host, place in [
        ("millrace.example:99", "millrace.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:3000", "[::1]"),
    ]:
        answer = await lead(beside, host)
        assert answer == (307, f"http://{place}:{port}", "no-store")
    assert (await lead(beside, "no host"))[0] == 400

    client = await asyncio.to_thread(client_of, f"http://127.0.0.1:{port}")
    text, _ = await asyncio.to_thread(
        client.predict, "What is Deep Learning?", 8, api_name="/complete"
    )
    assert text

    child = child_of(beside.process)
    assert KEY not in command_of(child)
    beside.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(beside.process.wait, 30) == 0
    assert not is_alive(child)


async def test_the_app_ends_with_a_server_that_is_killed(beside):
    beside.get("/demo")
    child = child_of(beside.process)
    beside.process.kill()
    await wait_for(lambda: not is_alive(child))


async def test_an_app_that_dies_is_told_and_takes_nothing_with_it(beside):
    beside.get("/demo")
    os.kill(child_of(beside.process), signal.SIGKILL)
    await wait_for(lambda: "the demo ended with code -9" in beside.log)
    gone = await call(beside.url, "GET", "/demo")
    assert (gone.status, gone.json()["error_type"]) == (404, "not_found")
    assert "log says why" in gone.json()["error"]
    beside.get("/ready")


async def test_without_a_demo_the_way_to_it_says_how_to_get_one(server):
    answer = await call(server.url, "GET", "/demo")
    assert (answer.status, answer.json()["error_type"]) == (404, "not_found")
    assert "--demo" in answer.json()["error"]


def test_beyond_this_machine_the_key_is_the_password(keyed):
    with demo(keyed.url, "--hostname", "0.0.0.0", env={"MILLRACE_API_KEY": KEY}) as app:
        for auth in (None, ("me", "wrong")):
            with pytest.raises(Exception, match=r"(?i)auth|login|401|credentials"):
                client_of(app.url, auth=auth).predict("Tell me", 5, api_name="/complete")
        client = client_of(app.url, auth=("me", KEY))
        assert client.predict("Tell me", 5, api_name="/complete")[0]


def run(*words: str, program: str = "") -> subprocess.CompletedProcess:
    """Run `millrace WORDS` after a few lines of Python."""
    code = f"{program}\nfrom server.__main__ import main\nmain(prog_name='millrace')"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("words", [("demo",), ("serve", "--demo")], ids=" ".join)
def test_without_gradio_one_sentence_says_what_to_install(words):
    done = run(*words, program="import sys; sys.modules['gradio'] = None")
    sentence = "Error: the demo needs Gradio: pip install 'millrace[gradio]'"
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, sentence)
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told_in_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("demo", "--port", str(port))
    sentence = f"Error: cannot listen on --hostname 127.0.0.1 --port {port}"
    assert (done.returncode, done.stderr.strip()) == (1, sentence)
