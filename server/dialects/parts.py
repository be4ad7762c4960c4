"""Parts: a turn as thoughts, texts and calls in a row, each of which begins, grows and ends.

What the dialects with typed events are made of, streamed or not. Knows none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple, Self

from engine import Delta, Token
from server.dialects.tools.call_id import new_call_id
from server.dialects.tools.turn import Gain, Kind
from server.dialects.tools.turn_parser import TurnParser


@dataclass(eq=False, slots=True)
class Part:
    """One part of a turn."""

    kind: Kind
    """REASONING, CONTENT or CALL."""
    index: int
    """Its place in the turn."""
    name: str = ""
    """Of the tool that is called."""
    call_id: str = field(default_factory=new_call_id)
    tokens: list[Token] = field(default_factory=list)
    """Those whose text this is, where it is one and logprobs were asked for."""
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The thought, the text, or the arguments."""
        return "".join(self._pieces)

    def begun(self) -> Self:
        """Give it as it was when it began."""
        return replace(self, tokens=[], _pieces=[])

    def add(self, text: str, tokens: list[Token]) -> None:
        """Take what it gained."""
        self._pieces.append(text)
        self.tokens += tokens


class Stage(Enum):
    """What happens to a part."""

    BEGINS = auto()
    GROWS = auto()
    ENDS = auto()


class Change(NamedTuple):
    """One thing that happens to a part."""

    stage: Stage
    part: Part
    text: str = ""
    """What it gains."""
    tokens: tuple[Token, ...] = ()
    """Those that brought a text, with those before them that brought nothing."""


class Parts:
    """The parts of one turn; without a parser all of it is text."""

    def __init__(self, parser: TurnParser | None) -> None:
        self.all: list[Part] = []
        self._parser = parser
        self._is_open = False
        """The last one still grows."""
        self._pending: list[Token] = []

    @property
    def has_calls(self) -> bool:
        """Tell whether a call has begun."""
        return any(part.kind is Kind.CALL for part in self.all)

    def push(self, delta: Delta) -> list[Change]:
        """Take the next delta; there is at least one part when the last has been taken."""
        changes: list[Change] = []
        for token, gains in self._read(delta):
            if token is not None and token.logprob is not None:
                self._pending.append(token)
            for gain in gains:
                changes += self._take(gain)
        if delta.finish is not None:
            changes += self._finish()
        return changes

    def _read(self, delta: Delta) -> Iterator[tuple[Token | None, list[Gain]]]:
        if self._parser is not None:
            return self._parser.read(delta)
        return ((token, [Gain(Kind.CONTENT, token.visible)]) for token in delta.tokens)

    def _take(self, gain: Gain) -> Iterator[Change]:
        if gain.kind is Kind.CALL:
            yield from self._end()
            yield self._begin(Kind.CALL, gain.text)
            self._pending = []
            return
        kind = Kind.CALL if gain.kind is Kind.ARGUMENTS else gain.kind
        if not self._is_open or self.all[-1].kind is not kind:
            yield from self._end()
            if self.all:  # those before the last are marks, or belong to them
                self._pending = self._pending[-1:]
            yield self._begin(kind)
        part = self.all[-1]
        tokens = self._pending if kind is Kind.CONTENT else []
        part.add(gain.text, tokens)
        self._pending = []
        yield Change(Stage.GROWS, part, gain.text, tuple(tokens))

    def _finish(self) -> Iterator[Change]:
        if not self.all:
            yield self._begin(Kind.CONTENT)
        yield from self._end()

    def _begin(self, kind: Kind, name: str = "") -> Change:
        self.all.append(Part(kind, len(self.all), name))
        self._is_open = True
        return Change(Stage.BEGINS, self.all[-1])

    def _end(self) -> Iterator[Change]:
        if self._is_open:
            self._is_open = False
            yield Change(Stage.ENDS, self.all[-1])
