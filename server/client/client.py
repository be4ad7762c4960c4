"""Client: sends a request to a server and gives its events; what fails is told in words.

Each request has a connection of its own, so that hanging up cancels it and nothing else.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp

from server.client.answer import Answer
from server.client.asking import full_url
from server.client.event_reader import EventReader
from server.client.failure import ExitCode, Failure, refusal

_CONNECT_S = 10.0
_DONE = b"[DONE]"


class Client:
    """Asks one server; make it within a running loop, and close it there."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = full_url(url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            # An answer takes as long as it takes; only a connection must come soon.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
        )

    async def __aenter__(self) -> Self:
        """Nothing to do: connections are made when they are needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    @property
    def is_openai(self) -> bool:
        """Tell whether the address names OpenAI's routes: it ends in `/v1`."""
        return self.url.endswith("/v1")

    async def get(self, path: str) -> Any:
        """Give the JSON that answers; None where the server has none to give. Raises Failure."""
        try:
            async with self._session.get(self._place(path)) as response:
                body = await response.read() if response.ok else b"null"
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failure(error) from error
        try:
            return json.loads(body)
        except ValueError:
            return None

    async def model(self) -> str:
        """Give the name of the server's first model; a server that lists none takes any name."""
        match await self.get("/v1/models"):
            case {"data": [{"id": str(name)}, *_]}:
                return name
        return "model"

    async def stream(self, path: str, body: object) -> AsyncGenerator[dict[str, Any]]:
        """Give the events of an answer as they come, up to the last; raises Failure."""
        reader = EventReader()
        is_done = False
        try:
            async with self._session.post(self._place(path), json=body) as response:
                await self._check(response, path)
                async for piece in response.content.iter_any():
                    for data in reader.feed(piece):
                        is_done = is_done or data == _DONE
                        if not is_done:
                            yield _parse(data)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failure(error) from error

    async def answer(
        self,
        path: str,
        body: object,
        answer: Answer,
        write: Callable[[str], None],
        write_thought: Callable[[str], None] | None = None,
    ) -> None:
        """Ask, and write the text as it comes; raises Failure, what came till then is kept."""
        answer.sent = time.monotonic()
        async with aclosing(self.stream(path, body)) as events:
            async for event in events:
                num_thought = len(answer.thoughts)
                text = answer.add(event, time.monotonic())
                if write_thought is not None:
                    write_thought(answer.thoughts[num_thought:])
                write(text)
        answer.check_end()

    async def _check(self, response: aiohttp.ClientResponse, path: str) -> None:
        if not response.ok:
            body = await response.read()
            raise refusal(self.url, response.status, response.headers, body)
        if response.content_type != "text/event-stream":
            raise Failure(f"{self.url} does not stream: {path} answers {response.content_type}")

    def _place(self, path: str) -> str:
        return self.url.removesuffix("/v1") + path

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return Failure(
                f"the url must be http://host:port. Given: {self.url}", ExitCode.WRONG_USE
            )
        if isinstance(error, aiohttp.ClientPayloadError):
            sentence = "the connection was cut before the answer ended"
        elif isinstance(error, aiohttp.ClientConnectorDNSError):
            sentence = f"there is no host of this name: {self.url}"
        elif isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
            sentence = f"nothing listens at {self.url}: start it with `millrace serve`"
        elif isinstance(error, TimeoutError):
            sentence = f"{self.url} takes no connection within {_CONNECT_S:.0f} s"
        else:
            sentence = f"the connection to {self.url} broke: {error or type(error).__name__}"
        return Failure(sentence, ExitCode.UNREACHABLE)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Failure(f"not an event of TGI or OpenAI: {data[:200].decode(errors='replace')}")
    return event
