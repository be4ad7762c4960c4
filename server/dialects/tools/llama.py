"""Llama 3's calls: JSON objects with semicolons between them, at the turn's start or after a tag.

https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct (its chat template)
"""

from server.dialects.tools.json_call import read_call
from server.dialects.tools.scanner import SPACE, Reading, Scanner
from server.dialects.tools.turn import Turn

TAG = "<|python_tag|>"


def read(scanner: Scanner, turn: Turn) -> Reading[None]:
    """Read a turn."""
    yield from scanner.run(SPACE)
    if (yield from scanner.peek()) == "{":
        yield from turn.attempt(_calls(scanner, turn))
    while (yield from scanner.upto(TAG, turn.content)):
        yield from turn.attempt(_tagged(scanner, turn))


def _tagged(scanner: Scanner, turn: Turn) -> Reading[None]:
    yield from scanner.literal(TAG)
    yield from scanner.run(SPACE)
    yield from _calls(scanner, turn)


def _calls(scanner: Scanner, turn: Turn) -> Reading[None]:
    while True:
        yield from read_call(scanner, turn)
        yield from scanner.run(SPACE)
        if (yield from scanner.peek()) != ";":
            return
        yield from scanner.literal(";")
        yield from scanner.run(SPACE)
