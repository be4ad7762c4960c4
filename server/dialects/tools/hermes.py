"""Hermes' and Qwen's calls: a JSON object between tags, anywhere in the turn.

https://huggingface.co/Qwen/Qwen2.5-7B-Instruct (its chat template)
"""

from server.dialects.tools.json_call import read_call
from server.dialects.tools.scanner import SPACE, Reading, Scanner
from server.dialects.tools.turn import Turn

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read a turn."""
    while (yield from scanner.upto(OPEN, turn.content)):
        yield from turn.attempt(_call(scanner, turn))


def _call(scanner: Scanner, turn: Turn) -> Reading[None]:
    yield from scanner.literal(OPEN)
    yield from scanner.run(SPACE)
    yield from read_call(scanner, turn)
    yield from scanner.run(SPACE)
    yield from scanner.literal(CLOSE)
    scanner.take()
