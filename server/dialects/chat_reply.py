"""OpenAI's chat answers: whole ones, and streams.

In a stream the first chunk gives the role, then each token is a chunk, and the last gives the
reason. A turn may hold thoughts and calls of tools beside text.
https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Sequence

from msgspec import UNSET

from engine import Delta, Finish, Token, TopToken
from server.dialects import openai, wire
from server.dialects.answers import (
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
)
from server.dialects.bodies import ChatBody
from server.dialects.gathered import Gathered
from server.dialects.openai import Head
from server.dialects.tools.call_id import new_call_id
from server.dialects.tools.turn import Gain, Kind
from server.dialects.tools.turn_parser import TurnParser
from server.errors import Problem


class ChatReply:
    """A whole answer."""

    def __init__(
        self,
        head: Head,
        num_choices: int,
        parsers: Sequence[TurnParser] = (),
        *,
        has_logprobs: bool,
    ) -> None:
        self._head = head
        self._parsers = parsers
        """One a choice; none where all of a turn is text."""
        self._has_logprobs = has_logprobs
        self._gathered = [Gathered() for _ in range(num_choices)]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered[index].add(delta)
        return b""

    @property
    def text(self) -> str:
        """The first turn's text."""
        return self._gathered[0].finish.text

    def end(self) -> bytes:
        """Render the answer."""
        finishes = [gathered.finish for gathered in self._gathered]
        return wire.dumps(
            ChatCompletion(
                object="chat.completion",
                id=self._head.id,
                created=self._head.created_s,
                model=self._head.model,
                system_fingerprint=openai.FINGERPRINT,
                choices=[self._choice(*choice) for choice in enumerate(self._gathered)],
                usage=openai.usage(finishes, num_each=len(finishes)),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))

    def _choice(self, index: int, gathered: Gathered) -> ChatChoice:
        tokens, finish = gathered.tokens, gathered.finish
        logprobs = ChatLogprobs([logprob_of(t) for t in tokens]) if self._has_logprobs else None
        if not self._parsers:
            message = ChatMessage("assistant", finish.text)
            return ChatChoice(index, message, logprobs, openai.stop_reason(finish))
        parser = self._parsers[index]
        message = _message(parser.whole(tokens, is_cut=finish.stop is not None))
        return ChatChoice(index, message, logprobs, _stop_reason(parser, finish))


class ChatStreamReply:
    """For each choice the role, one chunk a token, the reason; they come as they come."""

    def __init__(self, head: Head, asked: ChatBody, num_choices: int) -> None:
        self._head = head
        self._has_logprobs = bool(asked.logprobs)
        self._has_usage = openai.has_usage(asked)
        self._gathered = [Gathered() for _ in range(num_choices)]
        self._begun: set[int] = set()
        self._templates = [
            wire.template(self._chunk(index, ChatDelta(content=wire.HOLE)))
            for index in range(num_choices)
        ]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one chunk a token."""
        events = b"" if index in self._begun else self._first(index)
        self._begun.add(index)
        events += self._events(index, delta)
        if delta.finish is None:
            return events
        self._gathered[index].add(delta)
        return events + self._reason(index, delta.finish)

    def end(self) -> bytes:
        """Add the usage where it is wanted, and say that this was all."""
        if not self._has_usage:
            return wire.DONE
        finishes = [gathered.finish for gathered in self._gathered]
        chunk = self._chunk(0, ChatDelta())
        chunk.choices, chunk.usage = [], openai.usage(finishes, num_each=len(finishes))
        return wire.event(chunk) + wire.DONE

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event but one."""
        return openai.last_events(problem)

    def _reason(self, index: int, finish: Finish) -> bytes:
        reason = self._stop_reason(index, finish)
        return wire.event(self._chunk(index, ChatDelta(), finish_reason=reason))

    def _stop_reason(self, index: int, finish: Finish) -> str:
        return openai.stop_reason(finish)

    def _first(self, index: int) -> bytes:
        return wire.event(self._chunk(index, ChatDelta(role="assistant", content="")))

    def _events(self, index: int, delta: Delta) -> bytes:
        tokens = delta.tokens
        if not self._has_logprobs:
            before, after = self._templates[index]
            return "".join([before + wire.text(t.visible) + after for t in tokens]).encode("ascii")
        return b"".join(
            wire.event(
                self._chunk(index, ChatDelta(content=t.visible), ChatLogprobs([logprob_of(t)]))
            )
            for t in tokens
        )

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        finish_reason: str | None = None,
    ) -> ChatChunk:
        return ChatChunk(
            object="chat.completion.chunk",
            id=self._head.id,
            created=self._head.created_s,
            model=self._head.model,
            system_fingerprint=openai.FINGERPRINT,
            choices=[ChatChunkChoice(index, delta, logprobs, finish_reason)],
            usage=None if self._has_usage else UNSET,
        )


class TurnStreamReply(ChatStreamReply):
    """The same where a turn holds more than text: a chunk for each thing that a token gained.

    A token that gained nothing yet, since it may be part of a mark, is a chunk without text.
    """

    def __init__(self, head: Head, asked: ChatBody, parsers: Sequence[TurnParser]) -> None:
        super().__init__(head, asked, len(parsers))
        self._parsers = parsers
        self._gain_templates: dict[tuple[int, Kind, int | None], tuple[str, str]] = {}

    def _events(self, index: int, delta: Delta) -> bytes:
        before, after = self._templates[index]
        events = []
        for token, gains in self._parsers[index].read(delta):
            if len(gains) == 1 and gains[0].kind is Kind.CONTENT and not self._has_logprobs:
                events.append((before + wire.text(gains[0].text) + after).encode("ascii"))
            else:
                events.append(self._gained(index, gains, token))
        return b"".join(events)

    def _stop_reason(self, index: int, finish: Finish) -> str:
        return _stop_reason(self._parsers[index], finish)

    def _gained(self, index: int, gains: Sequence[Gain], token: Token | None) -> bytes:
        if token is None:
            return b"".join([self._event(index, gain) for gain in gains])
        first, *others = gains or (Gain(Kind.CONTENT, ""),)
        events = self._event(index, first, token if self._has_logprobs else None)
        return events + b"".join([self._event(index, gain) for gain in others])

    def _event(self, index: int, gain: Gain, scored: Token | None = None) -> bytes:
        """Render a gain, with the logprobs of the token that brought it."""
        if scored is not None:
            logprobs = ChatLogprobs([logprob_of(scored)])
            return wire.event(self._chunk(index, _delta(gain), logprobs))
        if gain.kind is Kind.CALL:
            return wire.event(self._chunk(index, _delta(gain)))
        key = (index, gain.kind, gain.call)
        if key not in self._gain_templates:
            hole = self._chunk(index, _delta(gain._replace(text=wire.HOLE)))
            self._gain_templates[key] = wire.template(hole)
        before, after = self._gain_templates[key]
        return (before + wire.text(gain.text) + after).encode("ascii")


def _delta(gain: Gain) -> ChatDelta:
    match gain.kind:
        case Kind.CONTENT:
            return ChatDelta(content=gain.text)
        case Kind.REASONING:
            return ChatDelta(reasoning_content=gain.text)
    number = gain.call or 0
    if gain.kind is Kind.ARGUMENTS:
        more = ToolCallDelta(index=number, function=FunctionDelta(arguments=gain.text))
        return ChatDelta(tool_calls=[more])
    begun = FunctionDelta(name=gain.text, arguments="")
    first = ToolCallDelta(index=number, id=new_call_id(), type="function", function=begun)
    return ChatDelta(tool_calls=[first])


def _message(gains: Sequence[Gain]) -> ChatMessage:
    """Put a whole turn together."""
    content, reasoning = (
        "".join(gain.text for gain in gains if gain.kind is kind)
        for kind in (Kind.CONTENT, Kind.REASONING)
    )
    calls: list[ToolCall] = []
    for gain in gains:
        if gain.kind is Kind.CALL:
            calls.append(ToolCall(new_call_id(), "function", CalledFunction(gain.text, "")))
        elif gain.kind is Kind.ARGUMENTS:
            calls[-1].function.arguments += gain.text
    return ChatMessage(
        "assistant", (content or None) if calls else content, reasoning or UNSET, calls or UNSET
    )


def _stop_reason(parser: TurnParser, finish: Finish) -> str:
    reason = openai.stop_reason(finish)
    return "tool_calls" if parser.has_calls and reason == "stop" else reason


def logprob_of(token: Token) -> ChatLogprob:
    """Show a token's logprob and its alternatives."""
    own = _top(token)
    return ChatLogprob(own.token, own.logprob, own.bytes, [_top(top) for top in token.top])


def _top(token: Token | TopToken) -> TopLogprob:
    return TopLogprob(token.text, wire.finite(token.logprob), list(token.text.encode()))
