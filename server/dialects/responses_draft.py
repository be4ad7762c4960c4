"""ResponseDraft: an answer of `/v1/responses` and its items, at each of their stages."""

from collections.abc import Sequence

from engine import Finish, Token
from server.dialects import openai
from server.dialects.answers import ChatLogprob
from server.dialects.chat_reply import logprob_of
from server.dialects.openai import Head
from server.dialects.parts import Part, Parts
from server.dialects.responses_types import (
    FailedCode,
    FailedDetails,
    FunctionCall,
    IncompleteDetails,
    InputTokensDetails,
    Item,
    ItemStatus,
    OutputMessage,
    OutputText,
    OutputTokensDetails,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponsesBody,
    ResponseText,
    ResponseUsage,
    Status,
    TextFormat,
)
from server.dialects.tools.turn import Kind
from server.errors import Problem

_PREFIXES = {Kind.REASONING: "rs", Kind.CONTENT: "msg"}


class ResponseDraft:
    """What an answer repeats at each of its stages."""

    def __init__(self, head: Head, asked: ResponsesBody) -> None:
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

    def finished(self, finish: Finish, parts: Parts) -> ResponseAnswer:
        """Give the whole answer, or what the length left of it."""
        *others, last = parts.all
        status = self.status(finish)
        answer = self._answer(status)
        answer.output = [*(self.item(part, "completed") for part in others)]
        answer.output.append(self.item(last, status))
        answer.usage = _usage(finish, parts.num_thought_tokens)
        if status == "incomplete":
            answer.incomplete_details = IncompleteDetails("max_output_tokens")
        return answer

    def status(self, finish: Finish | None) -> ItemStatus:
        """Say whether an answer, and the last of its items, is whole."""
        is_cut = finish is not None and openai.stop_reason(finish) == "length"
        return "incomplete" if is_cut else "completed"

    def item_id(self, part: Part) -> str:
        """Name an item."""
        if part.kind is Kind.CALL:
            return f"fc_{part.call_id}"
        name = self._head.id.replace("resp", _PREFIXES[part.kind], 1)
        return f"{name}_{part.index}" if part.index else name

    def item(self, part: Part, status: ItemStatus) -> Item:
        """Give an item; while it is in progress nothing is in it."""
        item_id, content = self.item_id(part), self.content(part)
        is_begun = status == "in_progress"
        match content:
            case ReasoningText():
                thought = [] if is_begun else [content]
                return ReasoningItem(id=item_id, status=status, content=thought)
            case OutputText():
                text = [] if is_begun else [content]
                return OutputMessage(id=item_id, status=status, content=text)
        return FunctionCall(
            id=item_id,
            status=status,
            call_id=part.call_id,
            name=part.name,
            arguments=part.text,
        )

    def content(self, part: Part) -> OutputText | ReasoningText | None:
        """Give what an item has inside; a call has nothing there."""
        match part.kind:
            case Kind.REASONING:
                return ReasoningText(text=part.text)
            case Kind.CONTENT:
                return OutputText(text=part.text, logprobs=logprobs_of(part.tokens))
        return None

    def _answer(self, status: Status) -> ResponseAnswer:
        asked = self._asked
        form = None if asked.text is None else asked.text.format
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
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            text=ResponseText(form or TextFormat(type="text")),
            tool_choice=asked.tool_choice or "auto",
            tools=asked.tools or [],
            top_p=1.0 if asked.top_p is None else asked.top_p,
            usage=None,
            user=asked.user,
            metadata=asked.metadata or {},
        )


def logprobs_of(tokens: Sequence[Token]) -> list[ChatLogprob]:
    """Show the logprobs of a text's tokens."""
    return [logprob_of(token) for token in tokens]


def _usage(finish: Finish, num_thought_tokens: int) -> ResponseUsage:
    cost = openai.usage([finish])
    return ResponseUsage(
        input_tokens=cost.prompt_tokens,
        input_tokens_details=InputTokensDetails(cost.prompt_tokens_details.cached_tokens),
        output_tokens=cost.completion_tokens,
        output_tokens_details=OutputTokensDetails(num_thought_tokens),
        total_tokens=cost.total_tokens,
    )
