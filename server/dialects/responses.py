"""OpenAI's responses, in their form without a memory: input in, one turn of the assistant out.

A request is a chat said otherwise, and is checked and generated as one. What would need a memory is
refused by name. https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine import Grammar, GrammarKind
from server.dialects import ranges, turns
from server.dialects.bodies import MAX_TOP_LOGPROBS, ChatBody
from server.dialects.call import EncodedPrompt, Generation, Reply
from server.dialects.chat import chat_call
from server.dialects.decode import decode
from server.dialects.grammars import Form, read_schema_of
from server.dialects.openai import Head, OpenAIDialect
from server.dialects.responses_input import read_choice, read_tools, read_turns
from server.dialects.responses_reply import ResponsesReply, ResponsesStreamReply
from server.dialects.responses_types import FORMS, LOGPROBS, ResponsesBody, TextFormat
from server.dialects.retold import RetoldCall
from server.errors import invalid

_FORM = "text.format"


class ResponsesDialect(OpenAIDialect):
    """`POST /v1/responses`."""

    def parse(self, body: bytes) -> "ResponsesCall":
        """Decode a body."""
        asked = decode(body, ResponsesBody)
        _refuse_unsupported(asked)
        chat = chat_call(
            self.config,
            _chat_body(asked),
            schema_field="parameters",
            has_form=_format(asked) is not None,
        )
        return ResponsesCall(self.config, chat, asked)


@dataclass(frozen=True, slots=True)
class ResponsesCall(RetoldCall):
    """One request for a response."""

    asked: ResponsesBody

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        most, num_top = self.asked.max_output_tokens, self.asked.top_logprobs
        if most is not None:
            ranges.require(most >= 1, "max_output_tokens", "must be >= 1", most)
        ranges.check_between("top_logprobs", num_top, 0, MAX_TOP_LOGPROBS)
        if num_top and not _has_logprobs(self.asked):
            raise invalid(f"`top_logprobs` needs `include` to hold `{LOGPROBS}`", "top_logprobs")
        return self.chat.generations(_form(self.asked))

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer."""
        head = Head(f"resp_{request_id}", created_s, self.chat.model)
        parser = self.parser(prompts)
        if self.is_stream:
            return ResponsesStreamReply(head, self.asked, parser)
        return ResponsesReply(head, self.asked, parser)


def _chat_body(asked: ResponsesBody) -> ChatBody:
    """Say the request as a chat."""
    has_logprobs = _has_logprobs(asked)
    return turns.as_chat(
        asked,
        read_turns(asked),
        max_tokens=_max_tokens(asked),
        tools=read_tools(asked.tools),
        tool_choice=read_choice(asked.tool_choice),
        parallel_tool_calls=asked.parallel_tool_calls,
        logprobs=has_logprobs,
        top_logprobs=asked.top_logprobs if has_logprobs else None,
        reasoning_effort=None if asked.reasoning is None else asked.reasoning.effort,
    )


def _max_tokens(asked: ResponsesBody) -> int | None:
    """Return what both names say, which must be the same."""
    most, other = asked.max_output_tokens, asked.max_tokens
    if most is None:
        return other
    rule = f"must equal `max_output_tokens` ({most})"
    ranges.require(other in (None, most), "max_tokens", rule, other)
    return most


def _has_logprobs(asked: ResponsesBody) -> bool:
    return LOGPROBS in (asked.include or ())


def _format(asked: ResponsesBody) -> TextFormat | None:
    """Give the form that is asked for, if it is more than text."""
    given = None if asked.text is None else asked.text.format
    return None if given is None or given.type == "text" else given


def _form(asked: ResponsesBody) -> Form | None:
    """Read what the answer must be; raises Problem."""
    given = _format(asked)
    if given is None:
        return None
    if given.type not in FORMS:
        raise ranges.unsupported(f"{_FORM}.type", f"formats of type `{ranges.shown(given.type)}`")
    if given.type == "json_object":
        return Form(_FORM, Grammar(GrammarKind.JSON_OBJECT))
    if given.schema is None:
        raise invalid(f"`{_FORM}.schema` is missing", f"{_FORM}.schema")
    return Form(_FORM, read_schema_of(f"{_FORM}.schema", given.schema))


def _refuse_unsupported(asked: ResponsesBody) -> None:
    """Refuse what needs a memory."""
    for field in ("previous_response_id", "conversation"):
        if getattr(asked, field) is not None:
            raise ranges.unsupported(field, "stored responses")
    if asked.background:
        raise ranges.unsupported("background", "background responses")
    turns.refuse_choices(asked)
