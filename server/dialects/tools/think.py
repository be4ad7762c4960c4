"""Thoughts at the beginning of a turn, between `<think>` and `</think>`.

Where the prompt ends with `<think>`, the turn begins inside; a model that says it again says
nothing new.
"""

from server.dialects.tools.scanner import SPACE, Mismatch, Reading, Scanner
from server.dialects.tools.turn import Turn

OPEN, CLOSE = "<think>", "</think>"


def read(scanner: Scanner, turn: Turn, *, is_open: bool) -> Reading[None]:
    """Read up to where the thoughts end, if there are any."""
    if not (yield from _opened(scanner)) and not is_open:
        return
    if (yield from scanner.upto(CLOSE, turn.reasoning)):
        yield from scanner.literal(CLOSE)
        scanner.take()
        turn.reasoned()


def is_open_after(text: str) -> bool:
    """Tell whether what comes after this text is thought."""
    return text.rfind(OPEN) > text.rfind(CLOSE)


def _opened(scanner: Scanner) -> Reading[bool]:
    try:
        yield from scanner.run(SPACE)
        yield from scanner.literal(OPEN)
    except Mismatch:
        scanner.rewind()
        return False
    scanner.take()
    return True
