"""Reads one call written as a JSON object: a name, arguments, and maybe other keys.

As soon as the name is known to be a tool's and the arguments begin, it is a call, and the arguments
are handed on as the model writes them; they end where the brace is closed that opened them.
"""

import json
import re

from server.dialects.tools.scanner import SPACE, Mismatch, Reading, Scanner, Sink
from server.dialects.tools.turn import Turn

_ARGUMENTS = ("arguments", "parameters")
_OUTSIDE_STRINGS = re.compile(r'[^{}\[\]"]*')
_INSIDE_STRING = re.compile(r'[^"\\]*')
_SCALAR = re.compile(r"[\w.+-]*")


def read_call(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read `{"name": …, "arguments": {…}}`, in any order; raises Mismatch."""
    name = arguments = None
    is_begun = False
    turn.leave()
    yield from scanner.literal("{")
    while True:
        key = yield from _key(scanner)
        if key == "name" and name is None:
            name = yield from _name(scanner, turn)
        elif key not in _ARGUMENTS or arguments is not None or is_begun:
            yield from _skip_value(scanner)
        elif name is None:
            arguments = yield from _held_object(scanner)
        else:
            is_begun = True
            yield from begin(scanner, turn, name)
        if (yield from _is_last(scanner)):
            break
    if not is_begun:
        if name is None or arguments is None:
            raise Mismatch
        turn.call(name)
        turn.arguments(arguments)
    scanner.take()


def begin(scanner: Scanner, turn: Turn, name: str) -> Reading[None]:
    """Begin a call and read its arguments; raises Mismatch where they are no object."""
    if (yield from scanner.peek()) != "{":
        raise Mismatch
    scanner.take()
    turn.call(name)
    yield from _object(scanner, turn.arguments)


def _key(scanner: Scanner) -> Reading[str]:
    yield from scanner.run(SPACE)
    key = yield from _string(scanner)
    yield from scanner.run(SPACE)
    yield from scanner.literal(":")
    yield from scanner.run(SPACE)
    return key


def _is_last(scanner: Scanner) -> Reading[bool]:
    yield from scanner.run(SPACE)
    char = yield from scanner.next()
    if char not in ",}":
        raise Mismatch
    return char == "}"


def _name(scanner: Scanner, turn: Turn) -> Reading[str]:
    name = yield from _string(scanner)
    if name not in turn.names:
        raise Mismatch
    return name


def _string(scanner: Scanner) -> Reading[str]:
    start = len(scanner.held)
    yield from scanner.literal('"')
    yield from _rest_of_string(scanner)
    try:
        return str(json.loads(scanner.held[start:]))
    except ValueError:
        raise Mismatch from None


def _rest_of_string(scanner: Scanner, sink: Sink | None = None) -> Reading[None]:
    while True:
        yield from scanner.run(_INSIDE_STRING, sink)
        if (yield from scanner.next(sink)) == '"':
            return
        yield from scanner.next(sink)


def _held_object(scanner: Scanner) -> Reading[str]:
    if (yield from scanner.peek()) != "{":
        raise Mismatch
    start = len(scanner.held)
    yield from _object(scanner)
    return scanner.held[start:]


def _object(scanner: Scanner, sink: Sink | None = None) -> Reading[None]:
    """Read from a bracket to its partner; what is between need not be JSON."""
    depth = 0
    while True:
        char = yield from scanner.next(sink)
        depth += (char in "{[") - (char in "}]")
        if char == '"':
            yield from _rest_of_string(scanner, sink)
        if depth == 0:
            return
        yield from scanner.run(_OUTSIDE_STRINGS, sink)


def _skip_value(scanner: Scanner) -> Reading[None]:
    char = yield from scanner.peek()
    if char == '"':
        yield from _string(scanner)
    elif char in ("{", "["):
        yield from _object(scanner)
    elif not (yield from scanner.run(_SCALAR)):
        raise Mismatch
