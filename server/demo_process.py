"""DemoProcess: the Gradio app as a child of the server, and the way to it at `GET /demo`.

Knows the command that it runs, nothing of Gradio. The child is in a session of its own, so that
Ctrl-C reaches the server alone, and ends when its standard input does: also if we are killed.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from yarl import URL

from server.config import ServerConfig
from server.errors import ErrorType, Problem

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of a machine's, and the one by which it reaches itself."""


class DemoProcess:
    """Starts the app, knows whether it is ready, and ends it."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._is_settled = asyncio.Event()
        """Ready, or over."""
        self._is_ready = False

    @asynccontextmanager
    async def run(self, server_port: int) -> AsyncIterator[None]:
        """Run the app beside what happens inside; it asks the server on this port."""
        task = asyncio.create_task(self._run(server_port), name="demo")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def lead(self, request: web.Request) -> web.Response:
        """Send a browser to the app once it is ready: the host it asked us by, the app's port."""
        await self._is_settled.wait()
        if not self._is_ready:
            raise Problem(ErrorType.NOT_FOUND, "The demo has ended; the server's log says why")
        try:
            place = URL.build(
                scheme="http", host=request.url.host or "localhost", port=self._config.demo_port
            )
        except ValueError as error:
            message = f"The Host header must be a host's name. Given: {request.host!r}"
            raise Problem(ErrorType.VALIDATION, message, status_override=400) from error
        headers = {hdrs.LOCATION: str(place), hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(status=307, headers=headers)

    async def _run(self, server_port: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(server_port),
            stdin=PIPE,
            stdout=PIPE,
            env=self._environment(),
            start_new_session=True,
        )
        try:
            await self._follow(process)
            logger.error("the demo ended with code %d", await process.wait())
        finally:
            self._is_ready = False
            self._is_settled.set()
            await _end(process)

    async def _follow(self, process: Process) -> None:
        """Wait for its first line, which says that it is ready, and for the end of its output."""
        assert process.stdout is not None
        if await process.stdout.readline():
            self._is_ready = True
            self._is_settled.set()
            logger.info("the demo is ready on port %d", self._config.demo_port)
        while await process.stdout.read(1 << 16):
            pass

    def _command(self, server_port: int) -> tuple[str, ...]:
        hostname = self._config.hostname
        server = URL.build(
            scheme="http", host=_EVERYWHERE.get(hostname, hostname), port=server_port
        )
        return (
            *(sys.executable, "-P", "-m", "server", "demo", "--child"),
            *("--url", str(server), "--hostname", hostname),
            *("--port", str(self._config.demo_port)),
        )

    def _environment(self) -> dict[str, str]:
        """Hand the key on where no list of processes shows it."""
        environment = {k: v for k, v in os.environ.items() if k != "MILLRACE_API_KEY"}
        if self._config.api_keys:
            environment["MILLRACE_API_KEY"] = self._config.api_keys[0]
        return environment


async def no_demo(request: web.Request) -> web.Response:
    """Say how to get a demo."""
    raise Problem(
        ErrorType.NOT_FOUND,
        "No demo runs beside this server: start it with --demo, or run `millrace demo --url` "
        "with its address",
    )


async def _end(process: Process) -> None:
    """Let it clean up for a moment, and end it and what it has started."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
