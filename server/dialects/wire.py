"""JSON as it goes on the wire: one line, ASCII only, and events of it. Knows no dialect.

ASCII only, because clients that split lines as Unicode does break on a raw U+2028 or U+0085.
"""

import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

import msgspec

DONE = b"data: [DONE]\n\n"
"""How OpenAI's streams end; with this one space, and never on TGI's native routes."""

HOLE = "\0"
"""Stands in a template for a text to come; no name and no id holds it."""

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def dumps(value: Any) -> bytes:
    """Encode structs, and what JSON has, as a whole body."""
    return _ENCODER.encode(msgspec.to_builtins(value)).encode("ascii")


def event(value: Any) -> bytes:
    """Encode a value as one server-sent event."""
    return b"data: " + dumps(value) + b"\n\n"


class Typed(Protocol):
    """A value that says what kind of event it is."""

    @property
    def type(self) -> str:
        """Name its kind."""
        ...


def typed_event(value: Typed) -> bytes:
    """Encode a value as an event that bears its type as a name, too."""
    return b"event: " + value.type.encode("ascii") + b"\n" + event(value)


def template(value: Any, encode: Callable[[Any], bytes] = event) -> tuple[str, str]:
    """Encode an event that holds HOLE once; return what goes before and after the quoted text."""
    before, after = encode(value).decode("ascii").split('"\\u0000"')
    return before, after


text = encode_basestring_ascii
"""Quote and escape a string; for templates, where a token has a microsecond."""


def number(value: float | None) -> str:
    """Write a float; what JSON cannot say is null."""
    return "null" if value is None or not math.isfinite(value) else repr(value)


def finite(value: float | None) -> float | None:
    """Drop what JSON cannot say."""
    return None if value is None or not math.isfinite(value) else value
