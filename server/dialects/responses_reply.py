"""The answers of `/v1/responses`: one object, or events with types and numbers.

In a stream the answer begins, then each item in turn begins, grows by an event a token, and ends.
There is no `[DONE]`: the answer's own last event is the end.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Sequence
from itertools import count

from engine import Delta, Finish, Token
from server.dialects import openai, wire
from server.dialects.gathered import Gathered
from server.dialects.openai import Head
from server.dialects.parts import Change, Part, Parts, Stage
from server.dialects.responses_draft import ResponseDraft, logprobs_of
from server.dialects.responses_types import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ContentPartEvent,
    ItemStage,
    ItemStatus,
    Lifecycle,
    OutputItemEvent,
    PartStage,
    ResponseAnswer,
    ResponseEvent,
    ResponseFailedEvent,
    ResponsesBody,
    TextDeltaEvent,
    TextDoneEvent,
    ThoughtDeltaEvent,
    ThoughtDoneEvent,
)
from server.dialects.tools.turn import Kind
from server.dialects.tools.turn_parser import TurnParser
from server.errors import Problem


class ResponsesReply:
    """A whole answer."""

    def __init__(self, head: Head, asked: ResponsesBody, parser: TurnParser | None) -> None:
        self._draft = ResponseDraft(head, asked)
        self._gathered = Gathered()
        self._parts = Parts(parser)

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered.add(delta)
        self._parts.push(delta)
        return b""

    def end(self) -> bytes:
        """Render the answer."""
        return wire.dumps(self._draft.finished(self._gathered.finish, self._parts))

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))


class ResponsesStreamReply:
    """Events, numbered from 0."""

    def __init__(self, head: Head, asked: ResponsesBody, parser: TurnParser | None) -> None:
        self._draft = ResponseDraft(head, asked)
        self._numbers = count()
        self._is_begun = False
        self._parts = Parts(parser)
        self._template = ("", "")
        """Of the events by which the open item grows; their number is to come after it."""

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one event a token, and what begins and ends."""
        if (texts := self._parts.push_plain(delta)) is not None:
            return "".join([self._grown(text) for text in texts]).encode("ascii")
        events = [] if self._is_begun else [self._begin()]
        self._is_begun = True
        for change in self._parts.push(delta):
            match change.stage:
                case Stage.BEGINS:
                    events.append(self._begin_item(change.part))
                case Stage.GROWS:
                    events.append(self._grow(change))
                case Stage.ENDS:
                    events.append(self._end_item(change.part, delta.finish))
        if delta.finish is not None:
            events.append(self._finish(delta.finish))
        return b"".join(events)

    def end(self) -> bytes:
        """Add nothing: the last event has said that this was all."""
        return b""

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event."""
        error = openai.error(problem)
        return wire.typed_event(
            ResponseFailedEvent(
                response=self._draft.failed(problem),
                sequence_number=next(self._numbers),
                error=error.error,
                error_type=error.error_type,
            )
        )

    def _begin(self) -> bytes:
        answer = self._draft.begun()
        created = self._lifecycle("response.created", answer)
        return created + self._lifecycle("response.in_progress", answer)

    def _finish(self, finish: Finish) -> bytes:
        answer = self._draft.finished(finish, self._parts)
        is_cut = answer.status == "incomplete"
        return self._lifecycle("response.incomplete" if is_cut else "response.completed", answer)

    def _begin_item(self, part: Part) -> bytes:
        before, after = wire.template(self._gain(part, wire.HOLE, 0), wire.typed_event)
        self._template = (before, after.removesuffix("0}\n\n"))  # the number is the last key
        begun = part.begun()
        item = self._item("response.output_item.added", begun, "in_progress")
        return item + self._content("response.content_part.added", begun)

    def _grow(self, change: Change) -> bytes:
        if not change.tokens:
            return self._grown(change.text).encode("ascii")
        number = next(self._numbers)
        event = self._gain(change.part, change.text, number, change.tokens)
        return wire.typed_event(event)

    def _grown(self, text: str) -> str:
        before, after = self._template
        return f"{before}{wire.text(text)}{after}{next(self._numbers)}}}\n\n"

    def _end_item(self, part: Part, finish: Finish | None) -> bytes:
        is_last = finish is not None and part is self._parts.all[-1]
        status = self._draft.status(finish) if is_last else "completed"
        done = wire.typed_event(self._done(part, next(self._numbers)))
        content = self._content("response.content_part.done", part)
        return done + content + self._item("response.output_item.done", part, status)

    def _lifecycle(self, kind: Lifecycle, answer: ResponseAnswer) -> bytes:
        event = ResponseEvent(type=kind, response=answer, sequence_number=next(self._numbers))
        return wire.typed_event(event)

    def _item(self, kind: ItemStage, part: Part, status: ItemStatus) -> bytes:
        return wire.typed_event(
            OutputItemEvent(
                type=kind,
                output_index=part.index,
                item=self._draft.item(part, status),
                sequence_number=next(self._numbers),
            )
        )

    def _content(self, kind: PartStage, part: Part) -> bytes:
        """Render what an item has inside; a call has nothing there."""
        content = self._draft.content(part)
        if content is None:
            return b""
        return wire.typed_event(
            ContentPartEvent(
                type=kind,
                item_id=self._draft.item_id(part),
                output_index=part.index,
                part=content,
                sequence_number=next(self._numbers),
            )
        )

    def _gain(
        self, part: Part, text: str, number: int, tokens: Sequence[Token] = ()
    ) -> TextDeltaEvent | ThoughtDeltaEvent | ArgumentsDeltaEvent:
        item_id, index = self._draft.item_id(part), part.index
        match part.kind:
            case Kind.CALL:
                return ArgumentsDeltaEvent(
                    item_id=item_id, output_index=index, delta=text, sequence_number=number
                )
            case Kind.REASONING:
                return ThoughtDeltaEvent(
                    item_id=item_id, output_index=index, delta=text, sequence_number=number
                )
        return TextDeltaEvent(
            item_id=item_id,
            output_index=index,
            delta=text,
            logprobs=logprobs_of(tokens),
            sequence_number=number,
        )

    def _done(
        self, part: Part, number: int
    ) -> TextDoneEvent | ThoughtDoneEvent | ArgumentsDoneEvent:
        item_id, index, text = self._draft.item_id(part), part.index, part.text
        match part.kind:
            case Kind.CALL:
                return ArgumentsDoneEvent(
                    item_id=item_id,
                    output_index=index,
                    name=part.name,
                    arguments=text,
                    sequence_number=number,
                )
            case Kind.REASONING:
                return ThoughtDoneEvent(
                    item_id=item_id, output_index=index, text=text, sequence_number=number
                )
        return TextDoneEvent(
            item_id=item_id,
            output_index=index,
            text=text,
            logprobs=logprobs_of(part.tokens),
            sequence_number=number,
        )
