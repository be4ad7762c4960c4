"""Mistral's calls after `[TOOL_CALLS]`: a JSON array of them, or a name and then its arguments.

https://github.com/mistralai/mistral-common (its tokenizers from v3 to v13)
"""

import re

from server.dialects.tools.json_call import begin, read_call
from server.dialects.tools.scanner import SPACE, Mismatch, Reading, Scanner
from server.dialects.tools.turn import Turn

OPEN, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

_NAME = re.compile(r"[\w.:/-]*")


def read(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read a turn."""
    while (yield from scanner.upto(OPEN, turn.content)):
        yield from turn.attempt(_calls(scanner, turn))


def _calls(scanner: Scanner, turn: Turn) -> Reading[None]:
    yield from scanner.literal(OPEN)
    yield from scanner.run(SPACE)
    is_array = (yield from scanner.peek()) == "["
    yield from _array(scanner, turn) if is_array else _named(scanner, turn)
    scanner.take()


def _array(scanner: Scanner, turn: Turn) -> Reading[None]:
    yield from scanner.literal("[")
    while True:
        yield from scanner.run(SPACE)
        yield from read_call(scanner, turn)
        yield from scanner.run(SPACE)
        char = yield from scanner.next()
        if char == "]":
            return
        if char != ",":
            raise Mismatch


def _named(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read `name[CALL_ID]id[ARGS]{…}`; of the middle parts each may be missing."""
    name = yield from scanner.run(_NAME)
    if name not in turn.names:
        raise Mismatch
    yield from scanner.run(SPACE)
    if (yield from scanner.peek()) == "[":
        yield from scanner.literal("[")
        if (yield from scanner.peek()) == "C":
            yield from scanner.literal(CALL_ID[1:])
            yield from scanner.run(_NAME)
            yield from scanner.literal("[")
        yield from scanner.literal(ARGS[1:])
        yield from scanner.run(SPACE)
    yield from begin(scanner, turn, name)
