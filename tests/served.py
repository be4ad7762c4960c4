"""A real server process for tests: `millrace serve` with the built-in model, on a free port."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return response.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum the samples of a metric whose labels include these."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            sample, _, value = line.rpartition(" ")
            bare = sample.partition("{")[0]
            if bare == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def stop(self, timeout_s: float = 60.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


MODULE = (sys.executable, "-m", "server")
SCRIPT = (str(Path(sys.executable).with_name("millrace")),)
"""What people call: the current directory is not on its path."""


@contextmanager
def serve(
    *flags: str,
    port: int | None = None,
    env: dict[str, str] | None = None,
    program: tuple[str, ...] = MODULE,
    cwd: Path | None = None,
):
    """Start `millrace serve FLAGS`, wait until it is ready, and end it afterwards."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "server.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [*program, "serve", "--hostname", "127.0.0.1", "--port", str(port), *flags],
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        served = Served(f"http://127.0.0.1:{port}", process, log_path)
        try:
            wait_until_ready(served)
            yield served
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_until_ready(served: Served, timeout_s: float = 90.0) -> None:
    """Wait for `/ready`; a server that exits first shows its log."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if served.process.poll() is not None:
            raise AssertionError(f"the server exited {served.process.returncode}:\n{served.log}")
        try:
            served.get("/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"the server is not ready after {timeout_s} s:\n{served.log}")
