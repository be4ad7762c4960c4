"""Gathered: one sequence's deltas put together, for answers that are not streamed."""

from dataclasses import dataclass, field

from engine import Delta, Finish, Token
from server.dialects import wire


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
    def mean_logprob(self) -> float:
        """Score it; without a finite score of each token it loses."""
        logprobs = [wire.finite(token.logprob) for token in self.tokens]
        finite = [logprob for logprob in logprobs if logprob is not None]
        is_scored = finite and len(finite) == len(logprobs)
        return sum(finite) / len(finite) if is_scored else float("-inf")

    @property
    def finish(self) -> Finish:
        """The end, which must have come."""
        if self._finish is None:
            raise RuntimeError("This is a bug: an answer was asked for before its sequence ended")
        return self._finish
