"""A server in a process group of its own, from its start until it is told to stop."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

_READY_S = 300.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """A server that listens on this machine."""

    pid: int
    port: int
    ready_s: float
    """From its start until it was ready."""

    @property
    def url(self) -> str:
        """Where to send requests."""
        return f"http://127.0.0.1:{self.port}"

    def pause(self) -> None:
        """Take the processors from it and all its processes, until `resume`."""
        self.signal(signal.SIGSTOP)
        # until it has stopped, or ended; either is left for others to learn
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it run again."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and all its processes, as far as they are still there."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@contextmanager
def run_server(
    command: Sequence[str],
    port: int,
    core: int | None = None,
    *,
    health: str | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Child]:
    """Run a command that serves on `port`, bound to one core if wanted, until the block ends.

    It is ready when it takes connections, as our server does, or when `health` is answered by 200.
    What it says goes to `log`, without one its errors to ours. Raises RuntimeError when it does not
    come.
    """
    pin = None if core is None else partial(os.sched_setaffinity, 0, {core})
    with (
        open(log or os.devnull, "ab") as out,
        subprocess.Popen(
            command,
            stdout=out,
            stderr=None if log is None else out,
            env={**os.environ, **(env or {})},
            preexec_fn=pin,
            start_new_session=True,
        ) as process,
    ):
        try:
            ready_s = _wait_until_ready(process, port, health)
            yield Child(process.pid, port, ready_s)
        finally:
            _stop(process, Child(process.pid, port, 0.0))


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes], child: Child) -> None:
    """End the server as asked to, and whatever is left of its group."""
    if process.poll() is None:
        child.resume()
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
    child.signal(signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, health: str | None) -> float:
    """Wait, and say for how long."""
    start = time.monotonic()
    while time.monotonic() < start + _READY_S:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode} at its start")
        if _is_ready(port, health):
            return time.monotonic() - start
        time.sleep(0.02)
    raise RuntimeError(f"the server was not ready after {_READY_S} s")


def _is_ready(port: int, health: str | None) -> bool:
    try:
        if health is None:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return True
        connection = HTTPConnection("127.0.0.1", port, timeout=5.0)
        connection.request("GET", health)
        is_well = connection.getresponse().status == 200
        connection.close()
    except (OSError, HTTPException):
        return False
    return is_well
