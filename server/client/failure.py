"""Failure: why a command has no whole answer, in a sentence that says what to do; exit codes.

Knows the statuses of HTTP and the error bodies of TGI and OpenAI, no sockets.
"""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

_MAX_BODY_CHARS = 300


class ExitCode(IntEnum):
    """What the commands that ask a server tell their caller."""

    ANSWERED = 0
    FAILED = 1
    """The server refused the request, or an error ended the answer."""
    WRONG_USE = 2
    """The command line; click's own code."""
    UNREACHABLE = 3
    """Nothing listens, or the connection was cut."""
    OVERLOADED = 4
    """429: the same request may be answered later."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """Nobody reads the output any more."""


class Failure(Exception):
    """No whole answer; the message is for a person."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(sentence)
        self.code = code


def refusal(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Phrase an answer that is no stream; a message in its body is told as it is."""
    message = _message(body)
    if status == 429:
        said = f" ({message})" if message else ""
        return Failure(
            f"the server has no room: ask again {_when(headers)}{said}", ExitCode.OVERLOADED
        )
    if status in (401, 403):
        said = f" ({message})" if message else ""
        return Failure(f"{url} wants a key: give it with --key or in MILLRACE_API_KEY{said}")
    if status in (404, 405):
        said = message or "no such route"
        return Failure(f"{url} answers {status}: {said}; look at --url and --dialect")
    if status >= 500:
        return Failure(f"the server failed with {status}: {message or 'it gave no reason'}")
    return Failure(message or f"{url} answers {status} and gives no reason")


def error_event(event: Mapping[str, Any]) -> Failure | None:
    """Phrase the event that ends a stream with an error; None for every other event."""
    if event.get("error") is None:
        return None
    return Failure(f"the server ended the answer with an error: {_said(event)}")


def _when(headers: Mapping[str, str]) -> str:
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return f"in {after} s"
    return f"after {after}" if after else "in a little while"


def _message(body: bytes) -> str:
    """Find the words in an error's body; without known ones its beginning."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()[:_MAX_BODY_CHARS]
    return _said(value) if isinstance(value, dict) else str(value)[:_MAX_BODY_CHARS]


def _said(value: Mapping[str, Any]) -> str:
    error = value.get("error", value)
    if isinstance(error, Mapping):
        error = error.get("message", error.get("detail", error))
    return str(error)
