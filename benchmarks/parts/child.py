"""A server in a process of its own, from its start until it is told to stop."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

_READY_S = 300.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """A server that listens on this machine."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Where to send requests."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def run_server(command: Sequence[str], port: int, core: int | None = None) -> Iterator[Child]:
    """Run a command that serves on `port`, bound to one core if wanted, until the block ends.

    Our server takes connections only when it is ready. Raises RuntimeError when it does not come.
    """
    pin = None if core is None else partial(os.sched_setaffinity, 0, {core})
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pin) as process:
        try:
            _wait_until_ready(process, port)
            yield Child(process.pid, port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode} at its start")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the server was not ready after {_READY_S} s")
