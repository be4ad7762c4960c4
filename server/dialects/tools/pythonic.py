"""Calls written as a list of Python calls with keywords, which begins the turn: Llama 4 and others.

Values are literals, and come out as JSON. A call is shown when it is whole, since only then it is
known to be one.
"""

import json
import re
from collections.abc import Callable

from server.dialects.tools.scanner import SPACE, Mismatch, Reading, Scanner
from server.dialects.tools.turn import Turn

_Item = Callable[[Scanner, int], Reading[str]]

_MAX_DEPTH = 32
_NAME = re.compile(r"[\w.:/-]*")
_WORD = re.compile(r"[\w.+-]*")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_WORDS = {
    **{"True": "true", "False": "false", "None": "null"},
    **{word: word for word in ("true", "false", "null")},  # models of JSON's habits
}
_INSIDE = {quote: re.compile(rf"[^{quote}\\]*") for quote in "'\""}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


def read(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read a turn."""
    yield from turn.attempt(_calls(scanner, turn))
    yield from scanner.rest(turn.content)


def _calls(scanner: Scanner, turn: Turn) -> Reading[None]:
    yield from scanner.run(SPACE)
    yield from scanner.literal("[")
    while True:
        turn.leave()
        yield from scanner.run(SPACE)
        name = yield from scanner.run(_NAME)
        if name not in turn.names:
            raise Mismatch
        arguments = yield from _items(scanner, "()", _argument, 0)
        scanner.take()
        turn.call(name)
        turn.arguments("{" + ", ".join(arguments) + "}")
        yield from scanner.run(SPACE)
        char = yield from scanner.next()
        if char == "]":
            scanner.take()
            return
        if char != ",":
            raise Mismatch


def _items(scanner: Scanner, brackets: str, item: _Item, depth: int) -> Reading[list[str]]:
    """Read what is between brackets, with commas; each item comes back as JSON."""
    if depth > _MAX_DEPTH:
        raise Mismatch
    items = []
    yield from scanner.literal(brackets[0])
    yield from scanner.run(SPACE)
    while (yield from scanner.peek()) != brackets[1]:
        items.append((yield from item(scanner, depth)))
        yield from scanner.run(SPACE)
        if (yield from scanner.peek()) != ",":
            break
        yield from scanner.literal(",")
        yield from scanner.run(SPACE)
    yield from scanner.literal(brackets[1])
    return items


def _argument(scanner: Scanner, depth: int) -> Reading[str]:
    name = yield from scanner.run(_NAME)
    if not name:
        raise Mismatch
    value = yield from _after(scanner, "=", depth)
    return f"{json.dumps(name)}: {value}"


def _pair(scanner: Scanner, depth: int) -> Reading[str]:
    key = yield from _string(scanner)
    value = yield from _after(scanner, ":", depth)
    return f"{key}: {value}"


def _after(scanner: Scanner, sign: str, depth: int) -> Reading[str]:
    yield from scanner.run(SPACE)
    yield from scanner.literal(sign)
    yield from scanner.run(SPACE)
    return (yield from _value(scanner, depth))


def _value(scanner: Scanner, depth: int) -> Reading[str]:
    match (yield from scanner.peek()):
        case "'" | '"':
            return (yield from _string(scanner))
        case "[":
            return f"[{', '.join((yield from _items(scanner, '[]', _value, depth + 1)))}]"
        case "{":
            return "{" + ", ".join((yield from _items(scanner, "{}", _pair, depth + 1))) + "}"
    word = yield from scanner.run(_WORD)
    if word in _WORDS:
        return _WORDS[word]
    if not _NUMBER.fullmatch(word):
        raise Mismatch
    return word


def _string(scanner: Scanner) -> Reading[str]:
    quote = yield from scanner.next()
    if quote not in _INSIDE:
        raise Mismatch
    text = ""
    while True:
        text += yield from scanner.run(_INSIDE[quote])
        char = yield from scanner.next()
        if char == quote:
            return json.dumps(_ESCAPE.sub(_unescaped, text))
        text += char + (yield from scanner.next())


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPED.get(found[3], found[3])
