"""A small HTTP client over a bare socket: every byte is seen, and it can leave in every way."""

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Response:
    """What came back; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_whole: bool = False
    """The body ended as its framing says; else the connection was cut."""

    def json(self):
        return json.loads(self.body)


@dataclass(eq=False)
class Connection:
    """One connection; nothing is read but when asked."""

    sock: socket.socket
    buffer: bytes = b""
    response: Response | None = None
    _left: int | None = field(default=None, repr=False)
    """Bytes of the body still to come; None when it is chunked or goes on to the end."""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read_head(self) -> Response:
        """Read status and headers; interim answers (1xx) are skipped."""
        while True:
            head = await self._read_until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = (line.split(":", 1) for line in lines if line)
            headers = {name.strip().lower(): value.strip() for name, value in pairs}
            status = int(first.split()[1])
            if status >= 200:
                break
        self.response = Response(status, headers)
        length = headers.get("content-length")
        self._left = None if length is None else int(length)
        return self.response

    async def read_some(self) -> bytes:
        """Read the next part of the body as it comes; b"" at its end, whole or not."""
        if self.response is None:
            await self.read_head()
        if self.response.is_whole:
            return b""
        if self.response.headers.get("transfer-encoding") == "chunked":
            data = await self._read_chunk()
        else:
            data = await self._read_plain()
        self.response.body += data
        return data

    async def read(self) -> Response:
        """Read all of the answer."""
        while await self.read_some():
            pass
        return self.response

    async def read_until(self, mark: bytes) -> bytes:
        """Read the body until it holds this; the answer must not end before."""
        while self.response is None or mark not in self.response.body:
            assert await self.read_some(), f"ended before {mark!r}: {self.response}"
        return self.response.body

    def leave(self) -> None:
        """Close in good manners (FIN)."""
        self.sock.close()

    def reset(self) -> None:
        """Close at once (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def _read_chunk(self) -> bytes:
        try:
            size = int((await self._read_until(b"\r\n")).split(b";")[0], 16)
            data = await self._read_exactly(size)
            assert await self._read_exactly(2) == b"\r\n"
        except (EOFError, ConnectionError):
            return b""
        self.response.is_whole = size == 0
        return data

    async def _read_plain(self) -> bytes:
        if self._left == 0:
            self.response.is_whole = True
            return b""
        try:
            await self._more()
        except ConnectionError:
            return b""
        except EOFError:  # without a length the end of the connection ends it
            self.response.is_whole = self._left is None
            return b""
        data = self.buffer[: self._left]
        self.buffer = self.buffer[len(data) :]
        if self._left is not None:
            self._left -= len(data)
            self.response.is_whole = self._left == 0
        return data

    async def _read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            await self._receive()
        data, self.buffer = self.buffer.split(mark, 1)
        return data

    async def _read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self._receive()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def _more(self) -> None:
        if not self.buffer:
            await self._receive()

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        if not data:
            raise EOFError
        self.buffer += data


@asynccontextmanager
async def connect(url: str, *, receive_buffer: int | None = None):
    """Open a connection and close it afterwards."""
    place = urlsplit(url)
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (place.hostname, place.port))
        yield Connection(sock)
    finally:
        with suppress(OSError):
            sock.close()


def request_bytes(
    method: str, path: str, body=None, *headers: str, version: str = "1.1", host: str = "millrace"
) -> bytes:
    """Write a request; a body that is not bytes goes as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", *headers]
    names = {line.split(":")[0].lower() for line in headers}
    if body is not None and "content-type" not in names:
        lines.append("Content-Type: application/json")
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


async def call(url: str, method: str, path: str, body=None, *headers: str, **more) -> Response:
    """Ask once on a connection of its own and read the whole answer."""
    async with connect(url) as connection:
        await connection.send(request_bytes(method, path, body, *headers, **more))
        return await (connection.read_head() if method == "HEAD" else connection.read())


class Kept:
    """A connection that is opened again when the server has closed it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open = None
        self._connection: Connection | None = None

    async def post(self, path: str, body, *headers: str) -> Response:
        """POST and read the whole answer."""
        for _ in range(2):
            if self._connection is None:
                self._open = connect(self.url)
                self._connection = await self._open.__aenter__()
            self._connection.response = None
            with suppress(EOFError, ConnectionError):
                await self._connection.send(request_bytes("POST", path, body, *headers))
                answer = await self._connection.read()
                if answer.headers.get("connection") == "close":
                    await self.close()
                return answer
            await self.close()
        raise AssertionError(f"no answer to {body[:200]!r}")

    async def close(self) -> None:
        if self._open is not None:
            await self._open.__aexit__(None, None, None)
        self._open = self._connection = None


@asynccontextmanager
async def kept(url: str):
    """Keep a connection for as long as the server does."""
    client = Kept(url)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def asking(url: str, path: str, body, *headers: str, receive_buffer: int | None = None):
    """POST on a connection of its own; what is read, and when, is up to the test."""
    async with connect(url, receive_buffer=receive_buffer) as connection:
        await connection.send(request_bytes("POST", path, body, *headers))
        yield connection
