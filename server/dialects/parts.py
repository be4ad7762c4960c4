"""Parts: a turn as thoughts, texts and calls in a row, each of which begins, grows and ends.

What the dialects with typed events are made of, streamed or not. Knows none of them.
"""

from collections.abc import Iterable, Sequence
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

    def add(self, text: str, tokens: Sequence[Token]) -> None:
        """Take what it gained."""
        self._pieces.append(text)
        self.tokens += tokens

    def extend(self, texts: Sequence[str]) -> None:
        """Take what it gained, in several pieces."""
        self._pieces += texts


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
    tokens: Sequence[Token] = ()
    """Those that brought a text, with those before them that brought nothing."""


class Parts:
    """The parts of one turn; without a parser all of it is text."""

    def __init__(self, parser: TurnParser | None) -> None:
        self.all: list[Part] = []
        self.num_thought_tokens = 0
        """Those of thoughts, with their closing marks and what space follows."""
        self._parser = parser
        self._open: Part | None = None
        self._pending: list[Token] = []
        """With logprobs, and without text so far."""
        self._changes: list[Change] = []

    @property
    def has_calls(self) -> bool:
        """Tell whether a call has begun."""
        return any(part.kind is Kind.CALL for part in self.all)

    def push(self, delta: Delta) -> list[Change]:
        """Take the next delta; there is at least one part when the last has been taken."""
        for token, gains in self._read(delta):
            if token is not None and token.logprob is not None:
                self._pending.append(token)
            for gain in gains:
                self._take(gain)
            is_thought = self._open is not None and self._open.kind is Kind.REASONING
            self.num_thought_tokens += is_thought and token is not None
        if delta.finish is not None:
            if not self.all:
                self._begin(Kind.CONTENT)
            self._end()
        changes, self._changes = self._changes, []
        return changes

    def push_plain(self, delta: Delta) -> list[str] | None:
        """Take a delta by which an open text grows and nothing else happens: a microsecond a token.

        Gives what each token brings; None, and nothing was taken, where it is another delta.
        """
        is_plain = self._parser is None and self._open is not None and delta.finish is None
        if not is_plain or any(token.logprob is not None for token in delta.tokens):
            return None
        texts = [token.visible for token in delta.tokens]
        self.all[-1].extend(texts)
        return texts

    def _read(self, delta: Delta) -> Iterable[tuple[Token | None, list[Gain]]]:
        if self._parser is not None:
            return self._parser.read(delta)
        return [(token, [Gain(Kind.CONTENT, token.visible)]) for token in delta.tokens]

    def _take(self, gain: Gain) -> None:
        if gain.kind is Kind.CALL:
            self._end()
            self._begin(Kind.CALL, gain.text)
            self._pending = []
            return
        part = self._part_of(Kind.CALL if gain.kind is Kind.ARGUMENTS else gain.kind)
        tokens = self._pending if part.kind is Kind.CONTENT else []
        self._pending = []
        part.add(gain.text, tokens)
        self._changes.append(Change(Stage.GROWS, part, gain.text, tokens))

    def _part_of(self, kind: Kind) -> Part:
        """Give the open part of this kind; if there is none, it begins."""
        if self._open is not None and self._open.kind is kind:
            return self._open
        self._end()
        if self.all:  # those before the last are marks, or belong to them
            self._pending = self._pending[-1:]
        return self._begin(kind)

    def _begin(self, kind: Kind, name: str = "") -> Part:
        self._open = Part(kind, len(self.all), name)
        self.all.append(self._open)
        self._changes.append(Change(Stage.BEGINS, self._open))
        return self._open

    def _end(self) -> None:
        if self._open is not None:
            self._changes.append(Change(Stage.ENDS, self._open))
            self._open = None
