"""The Gradio app for tests: `millrace demo` in a process of its own, and Gradio's client to it."""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradio_client import Client
from served import free_port


@dataclass
class App:
    """A running app."""

    url: str
    process: subprocess.Popen
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def demo(url: str, *flags: str, env: dict[str, str] | None = None):
    """Run `millrace demo --url URL FLAGS`, wait until it is ready, and end it afterwards."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "demo.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "server", "demo", "--url", url, "--port", str(port), *flags],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        with process:
            try:
                first_line = process.stdout.readline()
                assert first_line, log_path.read_text()
                yield App(f"http://127.0.0.1:{port}", process, log_path)
                assert "Traceback" not in log_path.read_text(), log_path.read_text()
            finally:
                process.terminate()


def client_of(url: str, **options) -> Client:
    """Give Gradio's Python client, which asks nobody but the app."""
    return Client(url, verbose=False, analytics_enabled=False, **options)
