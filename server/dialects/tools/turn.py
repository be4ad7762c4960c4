"""Turn: what a turn of the assistant gains, sorted into text, thoughts and calls.

White space next to a call or to the mark of a thought belongs to it and is not shown. Knows no
format: the readers say what is what.
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from server.dialects.tools.scanner import Mismatch, Reading, Scanner


class Kind(StrEnum):
    """What was gained."""

    CONTENT = "content"
    REASONING = "reasoning"
    CALL = "call"
    """A call began; the text is the tool's name."""
    ARGUMENTS = "arguments"
    """A piece of a call's arguments."""


class Gain(NamedTuple):
    """One piece of a turn."""

    kind: Kind
    text: str
    call: int | None = None
    """Which call it belongs to, from 0."""


class Turn:
    """One turn in the making."""

    def __init__(self, scanner: Scanner, names: frozenset[str], max_calls: int | None) -> None:
        self.names = names
        """The tools there are; what calls another is no call."""
        self.num_calls = 0
        self._scanner = scanner
        self._max_calls = max_calls
        self._gains: list[Gain] = []
        self._content = _Trimmed(is_at_edge=False)
        self._reasoning = _Trimmed(is_at_edge=True)
        self._is_in_call = False

    @property
    def has_calls(self) -> bool:
        """Tell whether a call has begun."""
        return self.num_calls > 0

    def content(self, text: str) -> None:
        """Add text."""
        if shown := self._content.push(text):
            self._gains.append(Gain(Kind.CONTENT, shown))

    def reasoning(self, text: str) -> None:
        """Add thoughts."""
        if shown := self._reasoning.push(text):
            self._gains.append(Gain(Kind.REASONING, shown))

    def reasoned(self) -> None:
        """Say that the thoughts have come to their end."""
        self._reasoning.touch()
        self._content.touch()

    def call(self, name: str) -> None:
        """Begin a call."""
        self._content.touch()
        self._is_in_call = True
        self.num_calls += 1
        self._add_to_call(Kind.CALL, name)

    def arguments(self, text: str) -> None:
        """Add to the arguments of the call that began last."""
        if text:
            self._add_to_call(Kind.ARGUMENTS, text)

    def leave(self) -> None:
        """Say that what comes does not belong to the call that began last."""
        self._is_in_call = False

    def attempt(self, reading: Reading[None]) -> Reading[None]:
        """Read what may be calls; from where it cannot be one, what is held is text.

        What a call that was cut short lacks at the end is not.
        """
        try:
            yield from reading
        except Mismatch:
            held = self._scanner.take()
            if not (self._is_in_call and self._scanner.is_over):
                self.content(held)

    def flush(self) -> None:
        """Show what white space is held, because the end came first."""
        for kind, text in ((Kind.REASONING, self._reasoning), (Kind.CONTENT, self._content)):
            if held := text.flush():
                self._gains.append(Gain(kind, held))

    def gains(self) -> list[Gain]:
        """Return what was gained since the last time, neighbours of one kind joined."""
        gains, self._gains = self._gains, []
        return list(_joined(gains))

    def _add_to_call(self, kind: Kind, text: str) -> None:
        number = self.num_calls - 1
        if self._max_calls is None or number < self._max_calls:
            self._gains.append(Gain(kind, text, number))


class _Trimmed:
    """Text whose white space is kept, except where it touches something that is no text."""

    def __init__(self, *, is_at_edge: bool) -> None:
        self._is_at_edge = is_at_edge
        self._space = ""

    def push(self, text: str) -> str:
        """Add text; return what is to be shown now."""
        text = self._space + text
        if self._is_at_edge:
            text = text.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self._is_at_edge = False
        return shown

    def touch(self) -> None:
        """Say that something else stands here."""
        self._space = ""
        self._is_at_edge = True

    def flush(self) -> str:
        """Return the space at the end."""
        space, self._space = self._space, ""
        return space


def _joined(gains: list[Gain]) -> Iterator[Gain]:
    for (kind, call), same in groupby(gains, key=lambda gain: (gain.kind, gain.call)):
        yield Gain(kind, "".join(gain.text for gain in same), call)
