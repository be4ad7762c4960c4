"""The answers of `/v1/messages`: one object, or events with types; and problems in its words.

A stream begins with the turn and its text, and what it cost comes at its end: the count of the
prompt is known by then. https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from engine import Delta, Finish, FinishReason
from server.dialects import wire
from server.dialects.gathered import Gathered
from server.dialects.messages_types import (
    BlockDeltaEvent,
    BlockStartEvent,
    BlockStopEvent,
    MessageAnswer,
    MessageDeltaEvent,
    MessageEnd,
    MessageError,
    MessageErrorBody,
    MessageStartEvent,
    MessageStopEvent,
    MessageUsage,
    PingEvent,
    TextBlock,
    TextDelta,
    TokenCount,
)
from server.dialects.openai import Head
from server.errors import Problem

_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class MessagesReply:
    """A whole answer."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._gathered = Gathered()

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered.add(delta)
        return b""

    def end(self) -> bytes:
        """Render the answer."""
        finish = self._gathered.finish
        end = _end(finish)
        return wire.dumps(
            MessageAnswer(
                id=self._head.id,
                content=[TextBlock(text=finish.text)],
                model=self._head.model,
                stop_reason=end.stop_reason,
                stop_sequence=end.stop_sequence,
                usage=_usage(finish),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(error(problem))


class MessagesStreamReply:
    """The turn's beginning, one event a token, its end."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._is_begun = False
        self._template = wire.template(
            BlockDeltaEvent(delta=TextDelta(text=wire.HOLE)), wire.typed_event
        )

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one event a token."""
        events = b"" if self._is_begun else self._begin()
        self._is_begun = True
        before, after = self._template
        events += "".join(
            [before + wire.text(token.visible) + after for token in delta.tokens]
        ).encode("ascii")
        return events if delta.finish is None else events + _finish(delta.finish)

    def end(self) -> bytes:
        """Add nothing: the last event has said that this was all."""
        return b""

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event."""
        return wire.typed_event(error(problem))

    def _begin(self) -> bytes:
        message = MessageAnswer(
            id=self._head.id,
            content=[],
            model=self._head.model,
            stop_reason=None,
            stop_sequence=None,
            usage=MessageUsage(input_tokens=0, cache_read_input_tokens=0, output_tokens=0),
        )
        return b"".join(
            (
                wire.typed_event(MessageStartEvent(message=message)),
                wire.typed_event(BlockStartEvent(content_block=TextBlock(text=""))),
                wire.typed_event(PingEvent()),
            )
        )


def error(problem: Problem) -> MessageErrorBody:
    """Phrase a problem as Anthropic does, with our stable type beside it."""
    status = problem.status
    other = "api_error" if status >= 424 else "invalid_request_error"
    detail = MessageError(_ERROR_TYPES.get(status, other), problem.message)
    return MessageErrorBody(error=detail, error_type=problem.error_type.value)


def count_body(num_tokens: int) -> bytes:
    """Render the answer of `/v1/messages/count_tokens`."""
    return wire.dumps(TokenCount(num_tokens))


def _finish(finish: Finish) -> bytes:
    return b"".join(
        (
            wire.typed_event(BlockStopEvent()),
            wire.typed_event(MessageDeltaEvent(delta=_end(finish), usage=_usage(finish))),
            wire.typed_event(MessageStopEvent()),
        )
    )


def _end(finish: Finish) -> MessageEnd:
    match finish.reason:
        case FinishReason.LENGTH:
            return MessageEnd(stop_reason="max_tokens", stop_sequence=None)
        case FinishReason.STOP_SEQUENCE:
            return MessageEnd(stop_reason="stop_sequence", stop_sequence=finish.stop)
        case _:
            return MessageEnd(stop_reason="end_turn", stop_sequence=None)


def _usage(finish: Finish) -> MessageUsage:
    cost = finish.usage
    return MessageUsage(
        input_tokens=cost.num_prompt_tokens - cost.num_cached_tokens,
        cache_read_input_tokens=cost.num_cached_tokens,
        output_tokens=cost.num_output_tokens,
    )
