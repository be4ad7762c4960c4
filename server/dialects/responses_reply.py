"""The answers of `/v1/responses`: one object, or events with types and numbers.

In a stream the answer, its message and its text begin, each token is an event, and they end in
turn. There is no `[DONE]`: the answer's own last event is the end.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from itertools import count

from engine import Delta, Finish
from server.dialects import openai, wire
from server.dialects.gathered import Gathered
from server.dialects.openai import Head
from server.dialects.responses_types import (
    ContentPartEvent,
    FailedCode,
    FailedDetails,
    IncompleteDetails,
    InputTokensDetails,
    ItemStage,
    Lifecycle,
    MessageStatus,
    OutputItemEvent,
    OutputMessage,
    OutputText,
    OutputTokensDetails,
    PartStage,
    ResponseAnswer,
    ResponseEvent,
    ResponseFailedEvent,
    ResponsesBody,
    ResponseText,
    ResponseUsage,
    Status,
    TextDeltaEvent,
    TextDoneEvent,
    TextFormat,
)
from server.errors import Problem


class ResponsesReply:
    """A whole answer."""

    def __init__(self, head: Head, asked: ResponsesBody) -> None:
        self._draft = _Draft(head, asked)
        self._gathered = Gathered()

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered.add(delta)
        return b""

    def end(self) -> bytes:
        """Render the answer."""
        return wire.dumps(self._draft.finished(self._gathered.finish))

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))


class ResponsesStreamReply:
    """Events, numbered from 0; one a token between those that begin and those that end."""

    def __init__(self, head: Head, asked: ResponsesBody) -> None:
        self._draft = _Draft(head, asked)
        self._numbers = count()
        self._is_begun = False
        self._before, after = wire.template(
            TextDeltaEvent(item_id=self._draft.item_id, delta=wire.HOLE, sequence_number=0),
            wire.typed_event,
        )
        self._after = after.removesuffix("0}\n\n")  # the number is the last key

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one event a token."""
        events = b"" if self._is_begun else self._begin()
        self._is_begun = True
        before, after, numbers = self._before, self._after, self._numbers
        events += "".join(
            [
                f"{before}{wire.text(token.visible)}{after}{next(numbers)}}}\n\n"
                for token in delta.tokens
            ]
        ).encode("ascii")
        return events if delta.finish is None else events + self._finish(delta.finish)

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
        draft, answer = self._draft, self._draft.begun()
        return b"".join(
            (
                self._lifecycle("response.created", answer),
                self._lifecycle("response.in_progress", answer),
                self._item("response.output_item.added", draft.message("in_progress")),
                self._part("response.content_part.added", ""),
            )
        )

    def _finish(self, finish: Finish) -> bytes:
        draft, answer = self._draft, self._draft.finished(finish)
        (message,) = answer.output
        is_cut = answer.status == "incomplete"
        text = TextDoneEvent(
            item_id=draft.item_id, text=finish.text, sequence_number=next(self._numbers)
        )
        return b"".join(
            (
                wire.typed_event(text),
                self._part("response.content_part.done", finish.text),
                self._item("response.output_item.done", message),
                self._lifecycle("response.incomplete" if is_cut else "response.completed", answer),
            )
        )

    def _lifecycle(self, kind: Lifecycle, answer: ResponseAnswer) -> bytes:
        event = ResponseEvent(type=kind, response=answer, sequence_number=next(self._numbers))
        return wire.typed_event(event)

    def _item(self, kind: ItemStage, message: OutputMessage) -> bytes:
        event = OutputItemEvent(type=kind, item=message, sequence_number=next(self._numbers))
        return wire.typed_event(event)

    def _part(self, kind: PartStage, text: str) -> bytes:
        return wire.typed_event(
            ContentPartEvent(
                type=kind,
                item_id=self._draft.item_id,
                part=OutputText(text=text),
                sequence_number=next(self._numbers),
            )
        )


class _Draft:
    """What an answer repeats at each of its stages."""

    def __init__(self, head: Head, asked: ResponsesBody) -> None:
        self.item_id = head.id.replace("resp_", "msg_", 1)
        self._head = head
        self._asked = asked

    def begun(self) -> ResponseAnswer:
        """Give the answer before its first token."""
        return self._answer("in_progress")

    def failed(self, problem: Problem) -> ResponseAnswer:
        """Give the answer that there is not."""
        answer = self._answer("failed")
        is_full = problem.status == 429
        code: FailedCode = "rate_limit_exceeded" if is_full else "server_error"
        answer.error = FailedDetails(code, problem.message)
        return answer

    def finished(self, finish: Finish) -> ResponseAnswer:
        """Give the whole answer, or what the length left of it."""
        is_cut = openai.stop_reason(finish) == "length"
        status: MessageStatus = "incomplete" if is_cut else "completed"
        answer = self._answer(status)
        answer.output = [self.message(status, finish.text)]
        answer.usage = _usage(finish)
        if is_cut:
            answer.incomplete_details = IncompleteDetails("max_output_tokens")
        return answer

    def message(self, status: MessageStatus, text: str | None = None) -> OutputMessage:
        """Give the message, with its text if it has one by now."""
        content = [] if text is None else [OutputText(text=text)]
        return OutputMessage(id=self.item_id, status=status, content=content)

    def _answer(self, status: Status) -> ResponseAnswer:
        asked = self._asked
        return ResponseAnswer(
            id=self._head.id,
            created_at=self._head.created_s,
            status=status,
            error=None,
            incomplete_details=None,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            model=self._head.model,
            output=[],
            temperature=1.0 if asked.temperature is None else asked.temperature,
            text=ResponseText(TextFormat(type="text")),
            top_p=1.0 if asked.top_p is None else asked.top_p,
            usage=None,
            user=asked.user,
            metadata=asked.metadata or {},
        )


def _usage(finish: Finish) -> ResponseUsage:
    cost = openai.usage([finish])
    return ResponseUsage(
        input_tokens=cost.prompt_tokens,
        input_tokens_details=InputTokensDetails(cost.prompt_tokens_details.cached_tokens),
        output_tokens=cost.completion_tokens,
        output_tokens_details=OutputTokensDetails(0),
        total_tokens=cost.total_tokens,
    )
