"""Anthropic's messages: turns in, one turn of the assistant out.

A request is a chat said otherwise, and is checked and generated as one. Tools belong into
`_chat_body`, once there are any. https://docs.claude.com/en/api/messages
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.dialects import messages_reply, openai, ranges, turns, wire
from server.dialects.bodies import ChatBody, ChatMessageBody
from server.dialects.call import ChatPrompt, DialectConfig, Generation, Reply
from server.dialects.chat import ChatCall, chat_call
from server.dialects.chat_prompt import chat_prompt
from server.dialects.decode import decode
from server.dialects.messages_reply import MessagesReply, MessagesStreamReply
from server.dialects.messages_types import CountTokensBody, MessagesBody
from server.dialects.openai import Head
from server.errors import Problem, invalid

_KINDS = ("text",)


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """`POST /v1/messages`."""

    config: DialectConfig

    def parse(self, body: bytes) -> "MessagesCall":
        """Decode a body."""
        asked = decode(body, MessagesBody)
        turns.refuse_choices(asked)
        return MessagesCall(self.config, asked, chat_call(self.config, _chat_body(asked)))

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body."""
        return wire.dumps(messages_reply.error(problem))


@dataclass(frozen=True, slots=True)
class MessagesCall:
    """One request for a turn."""

    config: DialectConfig
    asked: MessagesBody
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
        ranges.check_stop(self.config, self.asked.stop_sequences or (), "stop_sequences")
        return self.chat.generations()

    def reply(self, request_id: str, created_s: int, endings: Sequence[str] = ()) -> Reply:
        """Begin the answer."""
        head = Head(f"msg_{request_id}", created_s, self.chat.model)
        return MessagesStreamReply(head) if self.is_stream else MessagesReply(head)


def parse_count(body: bytes) -> ChatPrompt:
    """Decode a body of `/v1/messages/count_tokens`; raises Problem."""
    asked = decode(body, CountTokensBody)
    _refuse_tools(asked)
    return chat_prompt(_turns(asked))


def _chat_body(asked: MessagesBody) -> ChatBody:
    """Say the request as a chat."""
    _refuse_tools(asked)
    stops = [*(asked.stop_sequences or ()), *openai.stops(asked)]
    return turns.as_chat(asked, _turns(asked), stop=stops)


def _turns(asked: MessagesBody | CountTokensBody) -> list[ChatMessageBody]:
    if not asked.messages:
        raise invalid("`messages` cannot be empty", "messages")
    said = []
    if asked.system:
        system = turns.text_of("system", asked.system, _KINDS)
        said.append(ChatMessageBody(role="system", content=system))
    for number, turn in enumerate(asked.messages):
        content = turns.text_of(f"messages[{number}].content", turn.content, _KINDS)
        said.append(ChatMessageBody(role=turn.role, content=content))
    return said


def _refuse_tools(asked: MessagesBody | CountTokensBody) -> None:
    choice = asked.tool_choice
    turns.refuse_tools(asked.tools, None if choice is None else choice.type)
