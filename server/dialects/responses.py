"""OpenAI's responses, in their form without a memory: input in, one message out.

A request is a chat said otherwise, and is checked and generated as one. What would need a memory is
refused by name. Tools and other forms than text belong into `_chat_body`, once there are any.
https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.dialects import ranges, turns
from server.dialects.bodies import ChatBody, ChatMessageBody
from server.dialects.call import DialectConfig, Generation, Reply
from server.dialects.chat import ChatCall, chat_call
from server.dialects.decode import decode
from server.dialects.openai import Head, OpenAIDialect
from server.dialects.responses_reply import ResponsesReply, ResponsesStreamReply
from server.dialects.responses_types import PART_KINDS, InputMessage, ResponsesBody
from server.errors import ErrorType, Problem, invalid

_TOOL_ITEMS = ("function_call", "function_call_output")
_SYSTEM = "system"


class ResponsesDialect(OpenAIDialect):
    """`POST /v1/responses`."""

    def parse(self, body: bytes) -> "ResponsesCall":
        """Decode a body."""
        asked = decode(body, ResponsesBody)
        _refuse_unsupported(asked)
        return ResponsesCall(self.config, asked, chat_call(self.config, _chat_body(asked)))


@dataclass(frozen=True, slots=True)
class ResponsesCall:
    """One request for a response."""

    config: DialectConfig
    asked: ResponsesBody
    chat: ChatCall

    @property
    def is_stream(self) -> bool:
        """Tell whether events are wanted."""
        return self.chat.is_stream

    @property
    def num_permits(self) -> int:
        """One: there is one answer."""
        return self.chat.num_permits

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return self.chat.headers

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        most = self.asked.max_output_tokens
        if most is not None:
            ranges.require(most >= 1, "max_output_tokens", "must be >= 1", most)
        return self.chat.generations()

    def reply(self, request_id: str, created_s: int, endings: Sequence[str] = ()) -> Reply:
        """Begin the answer."""
        head = Head(f"resp_{request_id}", created_s, self.chat.model)
        if self.is_stream:
            return ResponsesStreamReply(head, self.asked)
        return ResponsesReply(head, self.asked)


def _chat_body(asked: ResponsesBody) -> ChatBody:
    """Say the request as a chat."""
    messages = _turns(asked)
    if asked.instructions is not None:
        messages.insert(0, ChatMessageBody(role=_SYSTEM, content=asked.instructions))
    if asked.max_output_tokens is None:
        return turns.as_chat(asked, messages)
    return turns.as_chat(asked, messages, max_tokens=_max_tokens(asked))


def _max_tokens(asked: ResponsesBody) -> int | None:
    """Return what both names say, which must be the same."""
    most, other = asked.max_output_tokens, asked.max_tokens
    rule = f"must equal `max_output_tokens` ({most})"
    ranges.require(other in (None, most), "max_tokens", rule, other)
    return most


def _turns(asked: ResponsesBody) -> list[ChatMessageBody]:
    if not asked.input:
        raise invalid("`input` cannot be empty", "input")
    if isinstance(asked.input, str):
        return [ChatMessageBody(role="user", content=asked.input)]
    return [_turn(f"input[{number}]", item) for number, item in enumerate(asked.input)]


def _turn(field: str, item: InputMessage) -> ChatMessageBody:
    if item.type in _TOOL_ITEMS:
        message = f"Tool error: `{field}.type`: tools are supported on /v1/chat/completions only"
        raise Problem(ErrorType.TOOL_ERROR, message, f"{field}.type")
    if item.type not in (None, "message"):
        what = f"items of type `{ranges.shown(item.type)}`"
        raise ranges.unsupported(f"{field}.type", what)
    if item.role is None:
        raise invalid(f"`{field}.role` is missing", f"{field}.role")
    if item.content is None:
        raise invalid(f"`{field}.content` is missing", f"{field}.content")
    role = _SYSTEM if item.role == "developer" else item.role
    content = turns.text_of(f"{field}.content", item.content, PART_KINDS)
    return ChatMessageBody(role=role, content=content)


def _refuse_unsupported(asked: ResponsesBody) -> None:
    """Refuse what needs a memory, and what this version cannot do."""
    for field in ("previous_response_id", "conversation"):
        if getattr(asked, field) is not None:
            raise ranges.unsupported(field, "stored responses")
    if asked.background:
        raise ranges.unsupported("background", "background responses")
    turns.refuse_choices(asked)
    turns.refuse_tools(asked.tools, asked.tool_choice)
    form = None if asked.text is None else asked.text.format
    if form is not None and form.type != "text":
        raise ranges.unsupported("text.format", "grammars")
