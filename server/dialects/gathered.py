"""Gathered: one sequence's deltas put together, for answers that are not streamed."""

from dataclasses import dataclass, field

from engine import Delta, Finish, Token


@dataclass(eq=False, slots=True)
class Gathered:
    """Tokens and end of one sequence so far."""

    tokens: list[Token] = field(default_factory=list)
    _finish: Finish | None = None

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        self.tokens += delta.tokens
        if delta.finish is not None:
            self._finish = delta.finish

    @property
    def finish(self) -> Finish:
        """The end, which must have come."""
        if self._finish is None:
            raise RuntimeError("This is a bug: an answer was asked for before its sequence ended")
        return self._finish
