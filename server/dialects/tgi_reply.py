"""TGI's answers: one event a token, the last with the whole text; or all of it in one object.

The numbers and words are TGI 3.3's; its own routes know nothing of requests and models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET

from engine import Delta, Finish, PromptToken, Token, TopToken
from server.dialects import wire
from server.dialects.answers import (
    BestOfSequence,
    Details,
    ErrorBody,
    GenerateAnswer,
    PrefillToken,
    StreamDetails,
    StreamEvent,
    TokenAnswer,
)
from server.dialects.gathered import Gathered
from server.errors import Problem

_TAIL = ',"generated_text":null,"details":null}\n\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an answer holds."""

    prefix: str
    """Goes in front of the text: the prompt, or nothing."""
    seeds: tuple[int | None, ...]
    """One a sequence; None where it meant nothing."""
    has_details: bool
    has_top_tokens: bool
    is_list: bool
    """A whole answer is an array of one."""


def error(problem: Problem) -> ErrorBody:
    """Phrase a problem as TGI does."""
    return ErrorBody(problem.message, problem.error_type.value)


class GenerateReply:
    """A whole answer; of several sequences the one with the highest mean logprob wins."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._gathered = [Gathered() for _ in shape.seeds]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered[index].add(delta)
        return b""

    @property
    def text(self) -> str:
        """The winner's text."""
        return self._text(self._best().finish)

    def end(self) -> bytes:
        """Render the answer."""
        details = self._details() if self._shape.has_details else UNSET
        answer = GenerateAnswer(generated_text=self.text, details=details)
        return wire.dumps([answer] if self._shape.is_list else answer)

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(error(problem))

    def _best(self) -> Gathered:
        return max(self._gathered, key=lambda gathered: gathered.mean_logprob)

    def _details(self) -> Details:
        sequences = [*map(self._sequence, self._gathered, self._shape.seeds)]
        winner = sequences.pop(self._gathered.index(self._best()))
        return Details(
            finish_reason=winner.finish_reason,
            generated_tokens=winner.generated_tokens,
            seed=winner.seed,
            cached_tokens=winner.cached_tokens,
            prefill=winner.prefill,
            tokens=winner.tokens,
            best_of_sequences=sequences or UNSET,
            top_tokens=winner.top_tokens,
        )

    def _sequence(self, gathered: Gathered, seed: int | None) -> BestOfSequence:
        finish = gathered.finish
        has_top = self._shape.has_top_tokens
        return BestOfSequence(
            generated_text=self._text(finish),
            finish_reason=finish.reason.value,
            generated_tokens=finish.usage.num_output_tokens,
            seed=seed,
            cached_tokens=finish.usage.num_cached_tokens,
            prefill=[_prefill(token) for token in finish.prompt],
            tokens=[_token(token) for token in gathered.tokens],
            top_tokens=[list(map(_token, t.top)) for t in gathered.tokens] if has_top else UNSET,
        )

    def _text(self, finish: Finish) -> str:
        return self._shape.prefix + finish.text


class GenerateStreamReply:
    """One event a token; the last token's event carries the whole text."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._index = 0

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one event a token."""
        if delta.finish is None:
            return self._events(delta.tokens)
        *before, last = delta.tokens
        return self._events(before) + self._last_event(last, delta.finish)

    def end(self) -> bytes:
        """Add nothing: a native stream just ends."""
        return b""

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event."""
        return wire.event(error(problem))

    def _events(self, tokens: Sequence[Token]) -> bytes:
        events = ""
        for token in tokens:
            self._index += 1
            top = f',"top_tokens":[{",".join(map(_candidate, token.top))}]' if token.top else ""
            events += f'data: {{"index":{self._index},"token":{_candidate(token)}{top}{_TAIL}'
        return events.encode("ascii")

    def _last_event(self, token: Token, finish: Finish) -> bytes:
        shape = self._shape
        details = StreamDetails(
            finish_reason=finish.reason.value,
            generated_tokens=finish.usage.num_output_tokens,
            seed=shape.seeds[0],
            input_length=finish.usage.num_prompt_tokens,
            cached_tokens=finish.usage.num_cached_tokens,
        )
        return wire.event(
            StreamEvent(
                index=self._index + 1,
                token=_token(token),
                top_tokens=[_token(top) for top in token.top] or UNSET,
                generated_text=shape.prefix + finish.text,
                details=details if shape.has_details else None,
            )
        )


def _candidate(token: Token | TopToken) -> str:
    """Write a token of a running stream; the same bytes as `_token`, in a microsecond."""
    return (
        f'{{"id":{token.id},"text":{wire.text(token.text)},"logprob":{wire.number(token.logprob)},'
        f'"special":{"true" if token.is_special else "false"}}}'
    )


def _token(token: Token | TopToken) -> TokenAnswer:
    return TokenAnswer(token.id, token.text, wire.finite(token.logprob), token.is_special)


def _prefill(token: PromptToken) -> PrefillToken:
    return PrefillToken(token.id, token.text, wire.finite(token.logprob))
