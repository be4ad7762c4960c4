"""Scanner: text that comes in pieces, read as though it were whole.

What reads is a generator that stops where the text so far ends, and goes on when more has come. So
the same reader serves a stream and a whole text, and how the text was cut cannot matter. Knows no
format.
"""

import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
Sink = Callable[[str], None]

SPACE = re.compile(r"\s*")


class Mismatch(Exception):
    """The text is not what it would have to be here."""


class Scanner:
    """A place in a text; what was read since the last `take` is held."""

    def __init__(self) -> None:
        self._text = ""
        self._mark = 0
        """What lies before has been taken."""
        self._at = 0
        self._is_ended = False

    def feed(self, text: str) -> None:
        """Add a piece."""
        self._text = self._text[self._mark :] + text
        self._at -= self._mark
        self._mark = 0

    def end(self) -> None:
        """Say that no piece will come any more."""
        self._is_ended = True

    @property
    def held(self) -> str:
        """What was read and not taken yet."""
        return self._text[self._mark : self._at]

    @property
    def is_over(self) -> bool:
        """Tell whether all there will ever be was read."""
        return self._is_ended and self._at == len(self._text)

    def take(self) -> str:
        """Return what is held, and hold it no longer."""
        held, self._mark = self.held, self._at
        return held

    def rewind(self) -> None:
        """Unread what is held."""
        self._at = self._mark

    def peek(self) -> Reading[str]:
        """Look at the next character; "" at the end."""
        while self._at == len(self._text):
            if self._is_ended:
                return ""
            yield
        return self._text[self._at]

    def next(self, sink: Sink | None = None) -> Reading[str]:
        """Read a character, into the sink if there is one; raises Mismatch at the end."""
        char = yield from self.peek()
        if not char:
            raise Mismatch
        self._at += 1
        if sink is not None:
            sink(self.take())
        return char

    def literal(self, text: str) -> Reading[None]:
        """Read exactly this; raises Mismatch."""
        for char in text:
            if (yield from self.peek()) != char:
                raise Mismatch
            self._at += 1

    def run(self, chars: re.Pattern[str], sink: Sink | None = None) -> Reading[str]:
        """Read as many characters of a class as come; the pattern is that class with a star.

        With a sink they go there as soon as they come.
        """
        parts = []
        while (yield from self.peek()):
            match = chars.match(self._text, self._at)
            assert match is not None, "This is a bug: the pattern does not match nothing"
            parts.append(match[0])
            self._at = match.end()
            if sink is not None:
                sink(self.take())
            if self._at < len(self._text):
                break
        return "".join(parts)

    def upto(self, mark: str, sink: Sink) -> Reading[bool]:
        """Hand on what is held and what comes before the mark; False if the mark never comes."""
        sink(self.take())
        while True:
            found = self._text.find(mark, self._at)
            self._at = self._beginning(mark) if found < 0 else found
            sink(self.take())
            if found >= 0:
                return True
            if self._is_ended:
                return False
            yield

    def rest(self, sink: Sink) -> Reading[None]:
        """Hand on what is held and all that comes."""
        while True:
            self._at = len(self._text)
            sink(self.take())
            if self._is_ended:
                return
            yield

    def _beginning(self, mark: str) -> int:
        """Find where the mark may begin whose rest is still to come; the end, if nowhere."""
        size = 0 if self._is_ended else min(len(mark) - 1, len(self._text) - self._at)
        while size and not self._text.endswith(mark[:size]):
            size -= 1
        return len(self._text) - size
