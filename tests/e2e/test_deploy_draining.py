"""What a proxy relies on when a replica is told to stop."""

import asyncio
import signal
import subprocess
import sys
import time

import pytest
from deployed import FLAGS, LONG, SHORT, again, begin, until
from raw_http import connect
from served import serve


@pytest.fixture
def replica():
    with serve(*FLAGS) as served:
        yield served


async def test_who_came_before_the_signal_is_answered_and_who_kept_a_connection_is_sent_on(replica):
    url = replica.url
    async with begin(url, LONG) as stream, connect(url) as early, connect(url) as kept:
        for connection in (early, kept):  # so both have been accepted
            assert (await again(connection, "GET", "/live")).status == 200
        replica.process.terminate()
        await until(lambda: _is_closed(url))
        assert (await again(early, "POST", "/generate", SHORT)).status == 200
        await until(lambda: _is_told_to_close(early))
        refusal = await again(kept, "POST", "/generate", SHORT)
        assert refusal.status == 429
        assert refusal.json()["error_type"] == "overloaded"
        assert refusal.headers["retry-after"].isdigit()
        # or a proxy would send the next one on a connection that is being closed
        assert refusal.headers["connection"] == "close"
        assert not stream.response.is_whole
        stream.leave()
    assert await asyncio.to_thread(replica.process.wait, 30) == 0


def test_a_stop_signal_while_it_loads_is_heard_by_the_first_process_of_a_container(tmp_path):
    log_path = tmp_path / "server.log"
    command = [sys.executable, "-m", "server", "serve", "--port", "0", *FLAGS]
    # a signal that is ignored unless there is a handler: as for the first process of a container
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    signal.signal(signal.SIGTERM, ignored)
    try:
        while "loading weights" not in log_path.read_text():
            assert process.poll() is None, log_path.read_text()
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log_path.read_text()


async def _is_closed(url: str) -> bool:
    try:
        async with connect(url):
            return False
    except ConnectionRefusedError:
        return True


async def _is_told_to_close(connection) -> bool:
    if connection.response.headers.get("connection") != "close":
        await again(connection, "GET", "/live")
    return connection.response.headers.get("connection") == "close"
