"""Anthropic's messages: turns in, one turn of the assistant out.

A request is a chat said otherwise, and is checked and generated as one.
https://docs.claude.com/en/api/messages
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.dialects import messages_reply, openai, ranges, turns, wire
from server.dialects.bodies import ChatBody
from server.dialects.call import ChatPrompt, DialectConfig, EncodedPrompt, Generation, Reply
from server.dialects.chat import ChatCall, chat_call
from server.dialects.decode import decode
from server.dialects.grammars import Form, read_schema_of
from server.dialects.messages_reply import MessagesReply, MessagesStreamReply
from server.dialects.messages_turns import read_choice, read_thinking, read_tools, read_turns
from server.dialects.messages_types import CountTokensBody, MessageFormat, MessagesBody
from server.dialects.openai import Head
from server.dialects.retold import RetoldCall
from server.errors import Problem, invalid

_FORM = "output_config.format"


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """`POST /v1/messages`."""

    config: DialectConfig

    def parse(self, body: bytes) -> "MessagesCall":
        """Decode a body."""
        asked = decode(body, MessagesBody)
        turns.refuse_choices(asked)
        stops = [*(asked.stop_sequences or ()), *openai.stops(asked)]
        said = turns.as_chat(asked, read_turns(asked), stop=stops, **_told(asked))
        chat = _call(self.config, said, has_form=_format(asked) is not None)
        return MessagesCall(self.config, chat, asked)

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body."""
        return wire.dumps(messages_reply.error(problem))


@dataclass(frozen=True, slots=True)
class MessagesCall(RetoldCall):
    """One request for a turn."""

    asked: MessagesBody

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        ranges.check_stop(self.config, self.asked.stop_sequences or (), "stop_sequences")
        return self.chat.generations(_form(self.asked))

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer."""
        head = Head(f"msg_{request_id}", created_s, self.chat.model)
        parser = self.parser(prompts)
        if not self.is_stream:
            return MessagesReply(head, parser)
        return MessagesStreamReply(head, parser, sum(prompt.num_tokens for prompt in prompts))


def parse_count(config: DialectConfig, body: bytes) -> ChatPrompt:
    """Decode a body of `/v1/messages/count_tokens`; raises Problem."""
    asked = decode(body, CountTokensBody)
    return _call(config, ChatBody(messages=read_turns(asked), **_told(asked))).prompt


def _told(asked: MessagesBody | CountTokensBody) -> dict[str, Any]:
    """Say in a chat's words what both bodies have beside the turns."""
    choice = asked.tool_choice
    is_single = choice is not None and choice.disable_parallel_tool_use is True
    return {
        "tools": read_tools(asked.tools),
        "tool_choice": read_choice(choice),
        "parallel_tool_calls": False if is_single else None,
        "chat_template_kwargs": read_thinking(asked.thinking),
    }


def _call(config: DialectConfig, said: ChatBody, *, has_form: bool = False) -> ChatCall:
    return chat_call(config, said, schema_field="input_schema", has_form=has_form)


def _format(asked: MessagesBody) -> MessageFormat | None:
    return None if asked.output_config is None else asked.output_config.format


def _form(asked: MessagesBody) -> Form | None:
    """Read what the answer must be; raises Problem."""
    given = _format(asked)
    if given is None:
        return None
    if given.type != "json_schema":
        what = f"formats of type `{ranges.shown(given.type)}`"
        raise ranges.unsupported(f"{_FORM}.type", what)
    if given.schema is None:
        raise invalid(f"`{_FORM}.schema` is missing", f"{_FORM}.schema")
    return Form(_FORM, read_schema_of(f"{_FORM}.schema", given.schema))
