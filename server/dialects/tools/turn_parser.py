"""TurnParser: the tokens of one sequence in, the gains of its turn out.

The joined gains are those of the whole text, however it came in pieces.
"""

from collections.abc import Iterator, Sequence

from engine import Delta, Token
from server.dialects.tools import think
from server.dialects.tools.formats import Format
from server.dialects.tools.scanner import Reading, Scanner
from server.dialects.tools.turn import Gain, Turn


class TurnParser:
    """Parses one turn; with no format and no reasoning all of it is text."""

    def __init__(
        self,
        form: Format | None = None,
        names: frozenset[str] = frozenset(),
        *,
        has_reasoning: bool = False,
        is_thinking: bool = False,
        max_calls: int | None = None,
    ) -> None:
        self._form = form
        self._has_reasoning = has_reasoning
        self._is_thinking = is_thinking
        """The prompt ends inside a thought."""
        self._marks = form.marks if form is not None else ()
        if has_reasoning:
            self._marks = (*self._marks, think.OPEN, think.CLOSE)
        self._scanner = Scanner()
        self._turn = Turn(self._scanner, names, max_calls)
        self._reading = self._read()
        next(self._reading, None)

    @property
    def has_calls(self) -> bool:
        """Tell whether a call has begun."""
        return self._turn.has_calls

    def feed(self, text: str) -> list[Gain]:
        """Take a piece of the text."""
        self._scanner.feed(text)
        next(self._reading, None)
        return self._turn.gains()

    def end(self) -> list[Gain]:
        """Take the end of the text."""
        self._scanner.end()
        next(self._reading, None)
        self._turn.flush()
        return self._turn.gains()

    def text(self, token: Token, *, is_cut: bool = False) -> str:
        """Give the text of a token as far as it counts here: special tokens only if they are marks.

        A mark that is part of a stop string, which cut the text before it, does not count.
        """
        is_mark = token.is_special and token.text in self._marks and not is_cut
        return token.visible + token.text if is_mark else token.visible

    def read(self, delta: Delta) -> Iterator[tuple[Token | None, list[Gain]]]:
        """Give what each token gained, and at the sequence's end, without one, what was held."""
        finish, last = delta.finish, len(delta.tokens) - 1
        for number, token in enumerate(delta.tokens):
            is_cut = finish is not None and finish.stop is not None and number == last
            yield token, self.feed(self.text(token, is_cut=is_cut))
        if finish is not None:
            yield None, self.end()

    def whole(self, tokens: Sequence[Token], *, is_cut: bool) -> list[Gain]:
        """Take all tokens at once."""
        texts = [self.text(token) for token in tokens[:-1]]
        texts += [self.text(token, is_cut=is_cut) for token in tokens[-1:]]
        return self.feed("".join(texts)) + self.end()

    def _read(self) -> Reading[None]:
        if self._has_reasoning:
            yield from think.read(self._scanner, self._turn, is_open=self._is_thinking)
        if self._form is not None:
            yield from self._form.read(self._scanner, self._turn)
        yield from self._scanner.rest(self._turn.content)
