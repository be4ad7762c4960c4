"""The real commands as processes: with pipes, or in a terminal of their own to type in."""

import asyncio
import fcntl
import os
import re
import struct
import sys
import termios
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from server.serving import make_runner

PATIENCE_S = 60
MILLRACE = (sys.executable, "-m", "server")
ROWS, COLUMNS = 30, 100


@dataclass
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: str


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a command: no key, nothing unbuffered, a terminal that can redraw."""
    unset = ("MILLRACE_API_KEY", "PYTHONUNBUFFERED")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    return env | {"TERM": "xterm", "PYTHONUTF8": "1"} | more


async def start(*words: str, **env: str) -> asyncio.subprocess.Process:
    """Start `millrace WORDS` with pipes."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *MILLRACE, *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(**env)
    )


async def millrace(*words: str, stdin: bytes = b"", **env: str) -> Done:
    """Run `millrace WORDS` to its end."""
    process = await start(*words, **env)
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
    return Done(process.returncode, out, err.decode())


class Terminal:
    """What a person sees and types; `screen` keeps every byte."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.screen = b""
        self._master = master
        self._came = asyncio.Event()
        self._is_closed = False
        asyncio.get_running_loop().add_reader(master, self._read)

    async def until(self, mark: bytes, *, after: int = 0) -> int:
        """Wait until the screen shows this; return the place behind it."""
        async with asyncio.timeout(PATIENCE_S):
            while (at := self.screen.find(mark, after)) < 0:
                assert not self._is_closed, f"ended before {mark!r}: {self.screen!r}"
                self._came.clear()
                await self._came.wait()
        return at + len(mark)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    async def interrupt(self) -> int:
        """Press Ctrl-C until the command has ended; return its code.

        Between its prompt and its wait for keys, Python's readline keeps a signal for the next one.
        """
        while self.process.returncode is None:
            self.type(b"\x03")
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.process.wait()
        return await self.end()

    async def end(self) -> int:
        """Wait until the command has ended and all it wrote is read; return its code."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_closed:
                self._came.clear()
                await self._came.wait()
            return await self.process.wait()

    @property
    def text(self) -> str:
        """Give the screen without what moves the cursor or switches modes."""
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", self.screen.decode()).replace("\r\n", "\n")

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that nobody has the other end open
            data = b""
        if not data:
            self._is_closed = True
            asyncio.get_running_loop().remove_reader(self._master)
        self.screen += data
        self._came.set()


@asynccontextmanager
async def terminal(*words: str, **env: str):
    """Run `millrace WORDS` in a terminal; it is ended at the end of the block."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *MILLRACE, *words, env=environment(**env), preexec_fn=lambda: os.login_tty(slave)
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        asyncio.get_running_loop().remove_reader(master)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)


class Scripted:
    """A server that answers as a test says, and keeps what it was asked."""

    def __init__(self, handler) -> None:
        self.url = ""
        self.bodies: list[dict] = []
        self.paths: list[str] = []
        self.asked = asyncio.Event()
        """A request has come."""
        self.left = asyncio.Event()
        """A client hung up before its answer had ended."""
        self._handler = handler

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(await request.json())
        self.asked.set()
        try:
            return await self._handler(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise


@asynccontextmanager
async def scripted(handler, info=None):
    """Serve a handler for every POST; `GET /info` gives `info`, or 404."""
    server = Scripted(handler)

    async def get_info(request: web.Request) -> web.Response:
        return web.Response(status=404) if info is None else web.json_response(info)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", server.handle), web.get("/info", get_info)])
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def begin_stream(request: web.Request) -> web.StreamResponse:
    """Send the head of a stream."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


def streaming(*events: bytes, is_cut: bool = False):
    """Give a handler that sends these and ends, or breaks the connection."""

    async def handle(request):
        response = await begin_stream(request)
        for event in events:
            await response.write(event)
        if is_cut:
            request.transport.close()
        return response

    return handle
