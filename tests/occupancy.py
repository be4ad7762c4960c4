"""What requests hold of a server: read it, wait until it is given back, or hold all of it."""

import asyncio
import socket
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from raw_http import request_bytes

IDLE = {
    "millrace_permits_held": 0,
    "millrace_generators_running": 0,
    "millrace_queue_depth": 0,
    "millrace_requests_running": 0,
    "millrace_kv_cache_blocks_used": 0,
    "millrace_streams_open": 0,
    "tgi_batch_current_size": 0,
    "tgi_queue_size": 0,
}
"""What every gauge of held things says when nobody is served."""
ENDLESS = {"inputs": "And so", "parameters": {"max_new_tokens": 4000, "ignore_eos": True}}
"""A request that goes on for much longer than a test."""


def gauges(server) -> dict[str, float]:
    """Read what requests hold, in one scrape."""
    lines = (line.rpartition(" ") for line in server.get("/metrics").splitlines())
    return {name: float(value) for name, _, value in lines if name in IDLE}


def wait_until_idle(server, timeout_s: float = 30.0) -> None:
    """Wait until nobody holds anything; what a client left may take one step more."""
    end = time.monotonic() + timeout_s
    while (held := gauges(server)) != IDLE:
        assert time.monotonic() < end, f"still held: {held}\n{server.log[-3000:]}"
        time.sleep(0.01)


async def wait_for(is_true, timeout_s: float = 30.0) -> None:
    """Wait for what other tasks or processes bring about."""
    async with asyncio.timeout(timeout_s):
        while not is_true():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.01)


@contextmanager
def given_up(server, count: int = 1):
    """See that so many sequences are ended because their clients leave, none of them by itself."""

    def ended():
        return server.metric("millrace_sequences_ended_total", reason="abort")

    before = ended()
    yield
    wait_until_idle(server)
    assert ended() - before == count


@contextmanager
def occupied(server, count: int):
    """Hold so many permits by streams that do not end by themselves; the first has begun."""
    place = urlsplit(server.url)
    with ExitStack() as stack:
        for number in range(count):
            sock = socket.create_connection((place.hostname, place.port), timeout=30)
            stack.enter_context(sock)
            sock.sendall(request_bytes("POST", "/generate_stream", ENDLESS))
            if number == 0:
                assert sock.recv(1)
        end = time.monotonic() + 30
        while gauges(server)["millrace_permits_held"] != count:
            assert time.monotonic() < end, gauges(server)
            time.sleep(0.01)
        yield


def assert_clean(log: str) -> None:
    """See that nothing went wrong in a server: no traceback, no line above a warning."""
    bad = [line for line in log.splitlines() if " ERROR " in line or " CRITICAL " in line]
    assert not bad, bad
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
