"""The answers of `/v1/messages`: one object, or events with types; and problems in its words.

A stream begins with the turn and the length of its prompt; how much of that was cached is told at
the end. https://docs.claude.com/en/docs/build-with-claude/streaming
"""

import json
import math
from typing import Any

from engine import Delta, Finish, FinishReason
from server.dialects import ranges, wire
from server.dialects.bodies import MAX_TOOL_DEPTH
from server.dialects.gathered import Gathered
from server.dialects.messages_types import (
    NOT_JSON,
    Block,
    BlockDelta,
    BlockDeltaEvent,
    BlockStartEvent,
    BlockStopEvent,
    InputJsonDelta,
    MessageAnswer,
    MessageDeltaEvent,
    MessageEnd,
    MessageError,
    MessageErrorBody,
    MessageStartEvent,
    MessageStopEvent,
    MessageUsage,
    PingEvent,
    SignatureDelta,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    TokenCount,
    ToolUseBlock,
)
from server.dialects.openai import Head
from server.dialects.parts import Change, Part, Parts, Stage
from server.dialects.tools.turn import Kind
from server.dialects.tools.turn_parser import TurnParser
from server.errors import Problem

_ERROR_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class MessagesReply:
    """A whole answer."""

    def __init__(self, head: Head, parser: TurnParser | None) -> None:
        self._head = head
        self._parts = Parts(parser)
        self._gathered = Gathered()

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered.add(delta)
        self._parts.push(delta)
        return b""

    def end(self) -> bytes:
        """Render the answer."""
        finish = self._gathered.finish
        end = _end(finish, self._parts)
        return wire.dumps(
            MessageAnswer(
                id=self._head.id,
                content=[_whole(part) for part in self._parts.all],
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
    """The turn's beginning; each block's beginning, one event a token, its end; the turn's end."""

    def __init__(self, head: Head, parser: TurnParser | None, num_prompt_tokens: int) -> None:
        self._head = head
        self._num_prompt_tokens = num_prompt_tokens
        self._is_begun = False
        self._parts = Parts(parser)
        self._template = ("", "")
        """Of the events by which the open block grows."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one event a token, and what begins and ends."""
        if (texts := self._parts.push_plain(delta)) is not None:
            before, after = self._template
            return "".join([before + wire.text(text) + after for text in texts]).encode("ascii")
        events = [] if self._is_begun else [self._begin()]
        self._is_begun = True
        events += [self._change(change) for change in self._parts.push(delta)]
        if delta.finish is not None:
            events.append(self._finish(delta.finish))
        return b"".join(events)

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
            usage=MessageUsage(
                input_tokens=self._num_prompt_tokens, cache_read_input_tokens=0, output_tokens=0
            ),
        )
        return wire.typed_event(MessageStartEvent(message=message))

    def _change(self, change: Change) -> bytes:
        if change.stage is Stage.GROWS:
            before, after = self._template
            return (before + wire.text(change.text) + after).encode("ascii")
        if change.stage is Stage.BEGINS:
            return self._begin_block(change.part)
        return _end_block(change.part)

    def _begin_block(self, part: Part) -> bytes:
        hole = BlockDeltaEvent(index=part.index, delta=_gain(part.kind, wire.HOLE))
        self._template = wire.template(hole, wire.typed_event)
        begun = BlockStartEvent(index=part.index, content_block=_begun(part))
        ping = b"" if part.index else wire.typed_event(PingEvent())
        return wire.typed_event(begun) + ping

    def _finish(self, finish: Finish) -> bytes:
        end = MessageDeltaEvent(delta=_end(finish, self._parts), usage=_usage(finish))
        return wire.typed_event(end) + wire.typed_event(MessageStopEvent())


def error(problem: Problem) -> MessageErrorBody:
    """Phrase a problem as Anthropic does, with our stable type beside it."""
    status = problem.status
    other = "api_error" if status >= 424 else "invalid_request_error"
    detail = MessageError(_ERROR_TYPES.get(status, other), problem.message)
    return MessageErrorBody(error=detail, error_type=problem.error_type.value)


def count_body(num_tokens: int) -> bytes:
    """Render the answer of `/v1/messages/count_tokens`."""
    return wire.dumps(TokenCount(num_tokens))


def _begun(part: Part) -> Block:
    match part.kind:
        case Kind.REASONING:
            return ThinkingBlock(thinking="")
        case Kind.CALL:
            return ToolUseBlock(id=part.call_id, name=part.name, input={})
    return TextBlock(text="")


def _gain(kind: Kind, text: str) -> BlockDelta:
    match kind:
        case Kind.REASONING:
            return ThinkingDelta(thinking=text)
        case Kind.CALL:
            return InputJsonDelta(partial_json=text)
    return TextDelta(text=text)


def _end_block(part: Part) -> bytes:
    signed = b""
    if part.kind is Kind.REASONING:
        signed = wire.typed_event(BlockDeltaEvent(index=part.index, delta=SignatureDelta()))
    return signed + wire.typed_event(BlockStopEvent(index=part.index))


def _whole(part: Part) -> Block:
    match part.kind:
        case Kind.REASONING:
            return ThinkingBlock(thinking=part.text)
        case Kind.CALL:
            return ToolUseBlock(id=part.call_id, name=part.name, input=_input(part.text))
    return TextBlock(text=part.text)


def _input(arguments: str) -> dict[str, Any]:
    """Read what the model wrote, which need not be JSON, or all of it."""
    try:
        value = json.loads(arguments or "{}", parse_constant=_number, parse_float=_number)
        ranges.check_depth("input", value, MAX_TOOL_DEPTH)
    except (ValueError, RecursionError, Problem):
        value = None
    return value if isinstance(value, dict) else {NOT_JSON: arguments}


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"JSON has no {text}")
    return number


def _end(finish: Finish, parts: Parts) -> MessageEnd:
    match finish.reason:
        case FinishReason.LENGTH:
            return MessageEnd(stop_reason="max_tokens", stop_sequence=None)
        case FinishReason.STOP_SEQUENCE:
            return MessageEnd(stop_reason="stop_sequence", stop_sequence=finish.stop)
    reason: StopReason = "tool_use" if parts.has_calls else "end_turn"
    return MessageEnd(stop_reason=reason, stop_sequence=None)


def _usage(finish: Finish) -> MessageUsage:
    cost = finish.usage
    return MessageUsage(
        input_tokens=cost.num_prompt_tokens - cost.num_cached_tokens,
        cache_read_input_tokens=cost.num_cached_tokens,
        output_tokens=cost.num_output_tokens,
    )
