"""encode_value: what a generator yields, as JSON; or a sentence that says why it cannot be sent."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
import numpy as np

from server.generators.picture import NotAPicture, picture_url

MAX_VALUE_BYTES = 16 << 20
"""Of one value as JSON, a picture's base64 included."""


class Unsendable(Exception):
    """A value that no event can carry; the message says why, and what would do."""


def encode_value(value: Any) -> bytes:
    """Write a value as one line of ASCII JSON, pictures in it as data URLs; raises Unsendable."""
    try:
        text = _ENCODER.encode(value)
        if "\\ud" in text:
            msgspec.json.decode(text)  # half a character is JSON, but no client could read it
    except NotAPicture as error:
        raise Unsendable(str(error)) from None
    except msgspec.DecodeError:
        raise Unsendable("it holds half of a character; text must be valid Unicode") from None
    except RecursionError:
        raise Unsendable("it is nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:  # NaN, a circle, a key that is no text
        raise Unsendable(str(error)) from None
    if len(text) > MAX_VALUE_BYTES:
        raise Unsendable(
            f"a value must be at most {MAX_VALUE_BYTES} bytes of JSON. Given: {len(text)}"
        )
    return text.encode("ascii")


def is_small(value: Any) -> bool:
    """Tell whether a value is encoded in no time, so that it may be done on the event loop."""
    return value is None or isinstance(value, int | float) or _is_short_text(value)


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 10_000


def _rewritten(value: Any) -> Any:
    """Give in JSON's terms what the encoder does not know by itself."""
    if isinstance(value, np.generic):
        return value.item()
    if (url := picture_url(value)) is not None:
        return url
    if isinstance(value, set | frozenset):
        raise Unsendable("a set has no order; send a sorted list")
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    try:
        return msgspec.to_builtins(value)  # a date, an enum's member, bytes and the like
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise Unsendable(f"a value of type {kind} is neither JSON nor a picture") from None


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_rewritten)
