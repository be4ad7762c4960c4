"""OpenAI's chat: messages in, one turn of the assistant out.

In a stream the first chunk gives the role, then each token is a chunk, and the last gives the
reason.
https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from engine import Delta, Token, TopToken
from server.dialects import openai, ranges, wire
from server.dialects.answers import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    TopLogprob,
)
from server.dialects.bodies import MAX_TOP_LOGPROBS, ChatBody, ChatMessageBody
from server.dialects.call import ChatPrompt, DialectConfig, Generation, Reply
from server.dialects.decode import decode
from server.dialects.gathered import Gathered
from server.dialects.openai import Head, OpenAIDialect
from server.errors import ErrorType, Problem, invalid


class ChatDialect(OpenAIDialect):
    """`POST /v1/chat/completions`."""

    def parse(self, body: bytes) -> "ChatCall":
        """Decode a body."""
        return chat_call(self.config, decode(body, ChatBody))


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request for a turn."""

    config: DialectConfig
    asked: ChatBody
    prompt: ChatPrompt
    seed: int

    @property
    def is_stream(self) -> bool:
        """Tell whether chunks are wanted."""
        return bool(self.asked.stream)

    @property
    def num_permits(self) -> int:
        """One turn, one permit."""
        return 1

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return {}

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        asked = self.asked
        openai.check(self.config, asked)
        ranges.check_between("top_logprobs", asked.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if asked.top_logprobs and not asked.logprobs:
            raise invalid("`top_logprobs` needs `logprobs` to be true", "top_logprobs")
        num_top = (asked.top_logprobs or 0) if asked.logprobs else None
        generation = Generation(
            prompt=self.prompt,
            params=openai.sampling_params(asked, self.seed, num_top),
            max_new_tokens=openai.max_tokens(asked),
            truncate=asked.truncate,
        )
        return (generation,)

    def reply(self, request_id: str, created_s: int) -> Reply:
        """Begin the answer."""
        if not self.is_stream:
            return self.whole_reply(request_id, created_s)
        return ChatStreamReply(self._head(request_id, created_s), self.asked)

    def whole_reply(self, request_id: str, created_s: int) -> "ChatReply":
        """Begin an answer in one piece."""
        return ChatReply(self._head(request_id, created_s), has_logprobs=bool(self.asked.logprobs))

    def _head(self, request_id: str, created_s: int) -> Head:
        return Head(f"chatcmpl-{request_id}", created_s, self.config.model_id)


def chat_call(config: DialectConfig, asked: ChatBody) -> ChatCall:
    """Refuse what cannot be done, and read the messages."""
    _refuse_tools(asked)
    openai.refuse_unsupported(asked)
    return ChatCall(config, asked, chat_prompt(asked.messages), openai.seeds(asked, 1)[0])


def chat_prompt(turns: Sequence[ChatMessageBody]) -> ChatPrompt:
    """Read messages; if the assistant speaks last, its turn goes on."""
    if not turns:
        raise invalid("`messages` cannot be empty", "messages")
    messages = tuple(_message(f"messages[{number}]", turn) for number, turn in enumerate(turns))
    return ChatPrompt(messages, is_continued=turns[-1].role == "assistant")


class ChatReply:
    """A whole answer."""

    def __init__(self, head: Head, *, has_logprobs: bool) -> None:
        self._head = head
        self._has_logprobs = has_logprobs
        self._gathered = Gathered()

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered.add(delta)
        return b""

    @property
    def text(self) -> str:
        """The turn's text."""
        return self._gathered.finish.text

    def end(self) -> bytes:
        """Render the answer."""
        tokens, finish = self._gathered.tokens, self._gathered.finish
        logprobs = ChatLogprobs([_logprob(t) for t in tokens]) if self._has_logprobs else None
        message = ChatMessage("assistant", self.text)
        return wire.dumps(
            ChatCompletion(
                object="chat.completion",
                id=self._head.id,
                created=self._head.created_s,
                model=self._head.model,
                system_fingerprint=openai.FINGERPRINT,
                choices=[ChatChoice(0, message, logprobs, openai.stop_reason(finish))],
                usage=openai.usage([finish]),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))


class ChatStreamReply:
    """The role, one chunk a token, the reason."""

    def __init__(self, head: Head, asked: ChatBody) -> None:
        self._head = head
        self._has_logprobs = bool(asked.logprobs)
        self._has_usage = openai.has_usage(asked)
        self._has_begun = False
        self._gathered = Gathered()
        self._template = wire.template(self._chunk(ChatDelta(content=wire.HOLE)))

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one chunk a token."""
        events = b"" if self._has_begun else self._first()
        self._has_begun = True
        if delta.finish is None:
            return events + self._events(delta.tokens)
        self._gathered.add(delta)
        reason = openai.stop_reason(delta.finish)
        end = wire.event(self._chunk(ChatDelta(), finish_reason=reason))
        return events + self._events(delta.tokens) + end

    def end(self) -> bytes:
        """Add the usage where it is wanted, and say that this was all."""
        if not self._has_usage:
            return wire.DONE
        chunk = self._chunk(ChatDelta())
        chunk.choices, chunk.usage = [], openai.usage([self._gathered.finish])
        return wire.event(chunk) + wire.DONE

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event but one."""
        return openai.last_events(problem)

    def _first(self) -> bytes:
        return wire.event(self._chunk(ChatDelta(role="assistant", content="")))

    def _events(self, tokens: Sequence[Token]) -> bytes:
        if not self._has_logprobs:
            before, after = self._template
            return "".join([before + wire.text(t.visible) + after for t in tokens]).encode("ascii")
        return b"".join(
            wire.event(self._chunk(ChatDelta(content=t.visible), ChatLogprobs([_logprob(t)])))
            for t in tokens
        )

    def _chunk(
        self,
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
            choices=[ChatChunkChoice(0, delta, logprobs, finish_reason)],
            usage=None if self._has_usage else UNSET,
        )


def _logprob(token: Token) -> ChatLogprob:
    own = _top(token)
    return ChatLogprob(own.token, own.logprob, own.bytes, [_top(top) for top in token.top])


def _top(token: Token | TopToken) -> TopLogprob:
    return TopLogprob(token.text, wire.finite(token.logprob), list(token.text.encode()))


def _refuse_tools(asked: ChatBody) -> None:
    """Refuse tools that would be used; TGI has a message of its own for tools with a format."""
    form = asked.response_format
    if asked.tools is not None and form is not None and form.type != "text":
        message = "Tool error: Grammar and tools are mutually exclusive"
        raise Problem(ErrorType.TOOL_ERROR, message, "tools")
    if asked.tool_choice not in (None, "none", "auto"):
        raise _no_tools("tool_choice")
    if asked.tools and asked.tool_choice != "none":
        raise _no_tools("tools")


def _no_tools(field: str) -> Problem:
    message = f"Tool error: `{field}`: tools are not supported by this version"
    return Problem(ErrorType.TOOL_ERROR, message, field)


def _message(field: str, turn: ChatMessageBody) -> dict[str, str]:
    if turn.tool_calls:
        raise _no_tools(f"{field}.tool_calls")
    message = {"role": turn.role, "content": _content(f"{field}.content", turn)}
    return message if turn.name is None else {**message, "name": turn.name}


def _content(field: str, turn: ChatMessageBody) -> str:
    """Return a message's text, its parts joined as TGI joins them."""
    if turn.content is None:
        raise invalid(f"`{field}` is missing", field)
    if isinstance(turn.content, str):
        return turn.content
    for number, part in enumerate(turn.content):
        here = f"{field}[{number}]"
        if part.type != "text":
            what = f"parts of type `{ranges.shown(part.type)}`"
            raise ranges.unsupported(f"{here}.type", what)
        if part.text is None:
            raise invalid(f"`{here}.text` is missing", f"{here}.text")
    return "".join(part.text or "" for part in turn.content)
