"""Bytes to a typed body, or a Problem that names the path and what was expected there.

Knows no particular body. TGI answers these in plain text, which clients cannot read; here they have
the JSON shape of every other error, with TGI's statuses (400 malformed, 422 mistyped).
"""

import re
from typing import TypeVar

import msgspec

from server.errors import ErrorType, Problem, invalid

T = TypeVar("T")

_LONE = re.compile(
    rb"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})(?<!\\)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_BYTE = re.compile(r"\(byte (\d+)\)")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>.*)`)?", re.S)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")


def decode(body: bytes, kind: type[T], *, within: str = "") -> T:
    """Decode and check types; unknown fields are ignored. `within` is the path of a part."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error), within) from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise _lone_surrogate(body, str(error)) or _malformed(str(error)) from None


def _malformed(reason: str) -> Problem:
    message = f"Input validation error: the body is not JSON: {reason}"
    return Problem(ErrorType.VALIDATION, message, status_override=400)


def _mistyped(message: str, within: str) -> Problem:
    """Turn msgspec's "Expected … - at `$.a.b`" into a sentence that begins with the path."""
    match = _PATH.fullmatch(message)
    what, path = (match["what"], match["path"]) if match else (message, None)
    path = path.replace("key` in `", "").removeprefix("$") if path else ""
    path = (within + path).removeprefix(".")
    missing = _MISSING.fullmatch(what)
    if missing:
        field = f"{path}.{missing['name']}" if path else missing["name"]
        return invalid(f"`{field}` is missing", field)
    what = what[:1].lower() + what[1:]
    return invalid(f"`{path}`: {what}", path) if path else invalid(f"the body: {what}")


def _lone_surrogate(body: bytes, message: str) -> Problem | None:
    """Tell whether decoding stopped at half of a character, which JSON can write and no text has.

    Looks near the byte msgspec names, or at the end, where it says that the input was cut short.
    """
    where = _BYTE.search(message)
    near = int(where[1]) if where else len(body)
    lone = _LONE.search(body, max(0, near - 13), near + 12)
    if lone is None:
        return None
    escape = lone[0].decode("ascii")
    return invalid(f"{escape} is half of a character; text must be valid Unicode")
