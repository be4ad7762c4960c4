"""The load generator: sends requests in a closed or an open loop and records what comes back.

While the clock runs it only notes bytes and moments; `question.py` reads them afterwards, so that
the client takes as little as can be of the cores it shares with the server. Each request has a
connection of its own, which the server closes at the end of its answer.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast
from urllib.parse import urlsplit

from server.cpu import CpuMeter, CpuUse
from server.question import PATHS, Dialect, Outcome, Question
from server.recording import Recording
from server.report import Figures, figures_of


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; plain HTTP, since a measurement of TLS is another one."""

    host: str
    port: int
    path: str = ""
    """Stands before each route's own."""
    key: str | None = None

    @classmethod
    def parse(cls, url: str, key: str | None = None) -> Self:
        """Read `http://host:port/prefix`; raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the url must be http://host:port. Given: {url!r}")
        return cls(parts.hostname, parts.port or 80, parts.path.rstrip("/"), key)

    def request(self, dialect: Dialect, body: bytes) -> bytes:
        """Write a whole HTTP request."""
        key = "" if self.key is None else f"Authorization: Bearer {self.key}\r\n"
        head = (
            f"POST {self.path}{PATHS[dialect]} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{key}"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How often one kind of question is asked: by so many clients in turn, or at a rate."""

    question: Question
    num_requests: int
    num_clients: int | None = None
    """Closed loop: each client asks again when its last answer has ended."""
    rate: float | None = None
    """Open loop: requests per second on average, independent of each other (Poisson)."""
    seed: int = 1
    timeout_s: float = 300.0
    """For one whole answer."""

    def __post_init__(self) -> None:
        """Check that it is one of the two loops."""
        if (self.num_clients is None) == (self.rate is None):
            raise ValueError("a load has either a number of clients or a rate")


class Stream(asyncio.Protocol):
    """One request on its way; while it runs nothing of it is read, only kept."""

    def __init__(self, request: bytes, due: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        self.recording = Recording(now if due is None else due, now)
        self.begun: asyncio.Future[None] = loop.create_future()
        """Done with the first bytes, or with the end."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._transport: asyncio.WriteTransport | None = None

    async def run(self, target: Target, timeout_s: float) -> None:
        """Send the request, wait for the end of its answer, and hang up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.open(target)
                await self.ended
        except TimeoutError:
            self.recording.failure = f"no end after {timeout_s} s"
        finally:
            self.recording.is_ended = True
            self.close()

    async def open(self, target: Target) -> None:
        """Connect and send; a connection that fails is a stream that has ended with a failure."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, target.host, target.port)
        except OSError as error:
            self.connection_lost(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # A cast, because uvloop's transports inherit from nothing.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note bytes and moment."""
        self.recording.reads.append((time.monotonic(), data))
        if not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        if exc is not None:
            self.recording.failure = f"{type(exc).__name__}: {exc}"
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Hang up, whether the answer has ended or not."""
        if self._transport is not None:
            self._transport.close()


async def ask(
    target: Target, request: bytes, timeout_s: float, due: float | None = None
) -> Recording:
    """Send a request and wait for the end of its answer."""
    stream = Stream(request, due)
    await stream.run(target, timeout_s)
    return stream.recording


async def closed_loop(
    target: Target,
    requests: Sequence[bytes],
    num_clients: int,
    timeout_s: float,
    recordings: list[Recording] | None = None,
) -> list[Recording]:
    """Let so many clients share the requests, each with one at a time.

    A list that is handed in fills as requests are sent, for those who look on.
    """
    waiting = iter(requests)
    recordings = [] if recordings is None else recordings
    async with asyncio.TaskGroup() as group:
        for _ in range(num_clients):
            group.create_task(_client(target, waiting, timeout_s, recordings))
    return recordings


async def open_loop(
    target: Target, requests: Sequence[bytes], rate: float, timeout_s: float, seed: int
) -> list[Recording]:
    """Send each request when it is due, whatever has become of the others."""
    dice = random.Random(seed)
    due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for request in requests:
            due += dice.expovariate(rate)
            tasks.append(group.create_task(_ask_when_due(target, request, timeout_s, due)))
    return [task.result() for task in tasks]


async def record(
    target: Target,
    load: Load,
    server_pid: int | None = None,
    recordings: list[Recording] | None = None,
) -> tuple[list[Outcome], CpuUse]:
    """Put a load on a server once; read what came only after the clock has stopped.

    A list that is handed in fills while a closed loop runs.
    """
    question, dice = load.question, random.Random(load.seed)
    requests = [
        target.request(question.dialect, question.body(question.prompt(dice)))
        for _ in range(load.num_requests)
    ]
    meter = CpuMeter(server_pid)
    if load.num_clients is not None:
        recorded = await closed_loop(target, requests, load.num_clients, load.timeout_s, recordings)
    else:
        assert load.rate is not None
        recorded = await open_loop(target, requests, load.rate, load.timeout_s, load.seed)
    use = meter.stop()
    return [question.outcome(recording) for recording in recorded], use


async def measure(target: Target, load: Load, server_pid: int | None = None) -> Figures:
    """Put a load on a server once and give its figures."""
    return figures_of(*await record(target, load, server_pid))


async def warm_up(target: Target, load: Load) -> Figures:
    """Ask once, with a prompt of its own, for what is slow only the first time."""
    return await measure(target, replace(load, num_requests=1, num_clients=1, rate=None, seed=0))


async def _client(
    target: Target, waiting: Iterator[bytes], timeout_s: float, recordings: list[Recording]
) -> None:
    for request in waiting:
        stream = Stream(request)
        recordings.append(stream.recording)
        await stream.run(target, timeout_s)


async def _ask_when_due(target: Target, request: bytes, timeout_s: float, due: float) -> Recording:
    await asyncio.sleep(due - time.monotonic())
    return await ask(target, request, timeout_s, due)
