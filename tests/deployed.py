"""Two replicas behind a real proxy, and what every proxy of `deploy/` has to keep.

The files of `deploy/` are used as they are but for addresses, ports and paths. Each `check_*` is
one promise; it knows replicas and a url in front of them, not which proxy that is.
"""

import asyncio
import inspect
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from in_process import in_process
from raw_http import asking, call, request_bytes
from served import Served, serve
from streams import check

DEPLOY = Path(__file__).parent.parent / "deploy"
STREAM = "/generate_stream"
ADDRESSES = ("10.0.0.11:3000", "10.0.0.12:3000")
"""What the files of `deploy/` name as the replicas."""
FLAGS = (
    *("--num-threads", "1", "--max-batch-total-tokens", "32768"),
    *("--max-concurrent-requests", "24", "--max-client-batch-size", "24"),
)


def question(num_tokens: int) -> dict:
    """Ask for exactly so many tokens."""
    return {
        "inputs": "A river runs",
        "parameters": {"max_new_tokens": num_tokens, "ignore_eos": True, "details": True},
    }


SHORT, MEDIUM, LONG = question(2), question(400), question(4000)
"""Over at once; long enough to be hit in the middle; too long to be waited for."""


# What is started


def edited(name: str, changes: dict[str, str]) -> str:
    """Give a file of `deploy/` with other addresses; each must be there, and once."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def addresses(replicas: list[str]) -> dict[str, str]:
    """Give the changes that put these urls in the place of the two addresses of a file."""
    return dict(zip(ADDRESSES, (urlsplit(url).netloc for url in replicas), strict=True))


@contextmanager
def running(command: list[str], port: int, folder: Path):
    """Run a program until it is no longer needed; give its url once it listens."""
    log_path = folder / "program.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait_for_port(process, port, log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Fleet:
    """Two replicas and what stands in front; a replica that was ended can be started again."""

    url: str
    replicas: list[Served]
    _stack: ExitStack

    def revive(self) -> None:
        """Start what was ended, at its place."""
        for index, replica in enumerate(self.replicas):
            if replica.process.poll() is not None:
                port = urlsplit(replica.url).port
                self.replicas[index] = self._stack.enter_context(serve(*FLAGS, port=port))

    def metric(self, name: str, **labels: str) -> list[float]:
        """Give a metric of each replica."""
        return [replica.metric(name, **labels) for replica in self.replicas]


@contextmanager
def fleet(proxy):
    """Start two replicas and `proxy(urls)` in front of them."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        starting = (serve(*FLAGS), serve(*FLAGS))
        replicas = list(pool.map(stack.enter_context, starting))
        url = stack.enter_context(proxy([replica.url for replica in replicas]))
        yield Fleet(url, replicas, stack)


@asynccontextmanager
async def one_by_one():
    """Start a server whose model makes a token each time `release()` is called; give both."""
    tokens = threading.Semaphore(0)

    def say(row) -> int:
        tokens.acquire()
        return 1 + row.num_output

    async with in_process(say) as server:
        try:
            yield server, tokens.release
        finally:
            tokens.release(10_000)


@asynccontextmanager
async def begin(url: str, body: dict, path: str = STREAM):
    """Open a stream and wait for its first event."""
    async with asking(url, path, body) as connection:
        await connection.read_until(b"data:")
        yield connection


@contextmanager
def vanished():
    """Give the url of a host that is not there: what goes to it is lost, not refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):  # as many as its queue takes; the kernel drops further ones
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def again(connection, method: str, path: str, body=None):
    """Ask once more on a connection that was kept."""
    connection.response = None
    await connection.send(request_bytes(method, path, body))
    return await connection.read()


async def until(condition, timeout_s: float = 60.0) -> None:
    """Wait until a condition holds; it may be a coroutine function."""
    end = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        assert time.monotonic() < end, f"not so after {timeout_s} s: {condition}"
        await asyncio.sleep(0.01)


# What is promised


async def check_tokens_pass_one_by_one(url: str, release) -> None:
    """See each token come through before the next one is made."""
    async with asyncio.timeout(20), asking(url, STREAM, question(5)) as connection:
        for number in range(1, 6):
            release()
            await connection.read_until(f'"index":{number},'.encode())
        assert len(_whole(await connection.read()).token_ids) == 5


async def check_refusal_passes(fleet: Fleet) -> None:
    """See the 429 of a full replica come through as it was written, from one replica only."""
    async with AsyncExitStack() as stack:
        for replica in fleet.replicas:
            await stack.enter_async_context(_full(replica))
        before = sum(fleet.metric("millrace_requests_refused_total", reason="no_permit"))
        for path in (STREAM, "/generate", "/v1/chat/completions"):
            body = SHORT | {"messages": [{"role": "user", "content": "Hello"}]}
            refusal = await call(fleet.url, "POST", path, body)
            assert refusal.status == 429
            assert refusal.headers["content-type"].startswith("application/json")
            assert "Model is overloaded" in refusal.body.decode()
            assert 1 <= int(refusal.headers["retry-after"]) <= 60
        after = sum(fleet.metric("millrace_requests_refused_total", reason="no_permit"))
        assert after - before == 3
    await _until_idle(fleet)


async def check_new_work_goes_where_there_is_less(fleet: Fleet) -> None:
    """See streams shared out evenly, and new work go to the replica whose streams have left.

    The other replica is stopped, so that its streams cannot have ended and it cannot answer.
    """
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        streams: tuple[list, list] = ([], [])
        for _ in range(6):
            stream = await stack.enter_async_context(begin(fleet.url, LONG))
            running = fleet.metric("millrace_requests_running")
            streams[len(streams[0]) == running[0]].append(stream)
        assert [len(ours) for ours in streams] == [3, 3]
        busy, idle = fleet.replicas
        for stream in streams[1]:
            stream.leave()
        await until(lambda: idle.metric("millrace_requests_running") == 0)
        before = idle.metric("millrace_requests_total")
        busy.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(6):
                assert (await call(fleet.url, "POST", "/generate", SHORT)).status == 200
        finally:
            busy.process.send_signal(signal.SIGCONT)
        assert idle.metric("millrace_requests_total") == before + 6
    await _until_idle(fleet)


async def check_operators_routes_are_hidden(url: str) -> None:
    """See that what needs no key and is not for the public does not pass."""
    for path in ("/metrics", "/%6detrics", "/ready", "/live"):
        assert (await call(url, "GET", path)).status == 404
    for path in ("/health", "/info", "/v1/models"):
        assert (await call(url, "GET", path)).status == 200


async def check_who_leaves_is_gone(fleet: Fleet) -> None:
    """See a replica stop computing for those who leave, in a stream or before the first byte."""

    def ended(how: str) -> float:
        return sum(fleet.metric("millrace_requests_ended_total", outcome=how))

    finished, dropped = ended("finished"), ended("dropped")
    async with begin(fleet.url, LONG) as stream:
        stream.leave()
    await until(lambda: ended("dropped") == dropped + 1)
    async with asking(fleet.url, "/generate", LONG) as waiting:
        await until(lambda: sum(fleet.metric("millrace_requests_running")) == 1)
        waiting.leave()
    await until(lambda: ended("dropped") == dropped + 2)
    await _until_idle(fleet)
    assert ended("finished") == finished


async def check_a_stop_loses_nothing(fleet: Fleet) -> None:
    """Stop a replica in the middle of streams and arrivals; see all of both answered whole."""
    stopping = fleet.replicas[0]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        opening = (stack.enter_async_context(begin(fleet.url, MEDIUM)) for _ in range(20))
        streams = await asyncio.gather(*opening)
        reads = [group.create_task(stream.read()) for stream in streams]
        async with _arrivals(fleet.url) as statuses:
            stopping.process.terminate()
            num_before = len(statuses)
            assert await asyncio.to_thread(stopping.process.wait, 60) == 0
            num_meanwhile = len(statuses) - num_before
            await until(lambda: len(statuses) >= num_before + num_meanwhile + 5)
    found = re.search(r"stopping: (\d+) running", stopping.log)
    assert found, stopping.log
    assert int(found[1]) >= 5, "the stop came too late to prove anything"
    assert num_meanwhile >= 3, "too few came while the replica drained"
    assert set(statuses) == {200}
    for read in reads:
        assert len(_whole(read.result()).token_ids) == 400


async def check_a_kill_is_seen(fleet: Fleet) -> None:
    """Kill a replica; see its streams cut without an end, the others whole, and arrivals served."""
    killed, other = fleet.replicas
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        streams = [
            await stack.enter_async_context(begin(fleet.url, question(2000))) for _ in range(8)
        ]
        reads = [group.create_task(stream.read()) for stream in streams]
        assert fleet.metric("millrace_streams_open") == [4, 4]
        killed.process.kill()
        await until(lambda: sum(read.done() for read in reads) == 4)
        broken = [read.result() for read in reads if read.done()]
        for _ in range(8):
            assert (await call(fleet.url, "POST", "/generate", SHORT)).status == 200
        assert other.metric("millrace_streams_open") == 4, "the others ended too early to prove it"
    for response in broken:
        assert not response.is_whole
        assert check(STREAM, response.body, is_whole=False).token_ids
    whole = [read.result() for read in reads if read.result() not in broken]
    assert [len(_whole(response).token_ids) for response in whole] == [2000] * 4


async def check_a_replica_comes_back(fleet: Fleet) -> None:
    """Start what has ended; see it get work again."""
    fleet.revive()

    async def has_work():
        assert (await call(fleet.url, "POST", "/generate", SHORT)).status == 200
        return all(fleet.metric("millrace_requests_total"))

    await until(has_work)


async def check_a_vanished_host_is_left_out(url: str) -> None:
    """See requests answered by the other replica when one does not even refuse."""
    for _ in range(4):
        assert (await call(url, "POST", "/generate", SHORT)).status == 200


@asynccontextmanager
async def _full(replica: Served):
    """Take all of a replica's permits."""
    body = {"model": "m", "prompt": ["A river runs"] * 24, "max_tokens": 3000, "stream": True}
    async with begin(replica.url, body | {"ignore_eos": True}, "/v1/completions"):
        assert replica.metric("millrace_permits_held") == 24
        yield


@asynccontextmanager
async def _arrivals(url: str):
    """Send one short request after the other, two at a time; give the list of their statuses."""
    statuses: list[int] = []

    async def ask():
        while True:
            statuses.append((await call(url, "POST", "/generate", SHORT)).status)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask()) for _ in range(2)]
        await until(lambda: len(statuses) >= 4)
        try:
            yield statuses
        finally:
            for task in tasks:
                task.cancel()


async def _until_idle(fleet: Fleet) -> None:
    await until(lambda: not any(fleet.metric("millrace_permits_held")))


def _whole(response):
    assert response.status == 200
    assert response.is_whole, "the stream was cut"
    said = check(STREAM, response.body)
    assert said.error is None, said.error
    return said


def _wait_for_port(process: subprocess.Popen, port: int, log_path: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert process.poll() is None, log_path.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens after 30 s:\n{log_path.read_text()}")
