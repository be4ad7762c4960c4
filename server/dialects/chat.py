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
    seeds: tuple[int, ...]
    """One a choice."""

    @property
    def is_stream(self) -> bool:
        """Tell whether chunks are wanted."""
        return bool(self.asked.stream)

    @property
    def num_permits(self) -> int:
        """One a choice."""
        return len(self.seeds)

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
        grammar = openai.grammar(asked)
        return tuple(
            Generation(
                prompt=self.prompt,
                params=openai.sampling_params(asked, seed, num_top, grammar),
                max_new_tokens=openai.max_tokens(asked),
                grammar_field=openai.grammar_field(asked),
                truncate=asked.truncate,
            )
            for seed in self.seeds
        )

    def reply(self, request_id: str, created_s: int) -> Reply:
        """Begin the answer."""
        if not self.is_stream:
            return self.whole_reply(request_id, created_s)
        return ChatStreamReply(self._head(request_id, created_s), self.asked, len(self.seeds))

    def whole_reply(self, request_id: str, created_s: int) -> "ChatReply":
        """Begin an answer in one piece."""
        head = self._head(request_id, created_s)
        return ChatReply(head, len(self.seeds), has_logprobs=bool(self.asked.logprobs))

    def _head(self, request_id: str, created_s: int) -> Head:
        return Head(f"chatcmpl-{request_id}", created_s, self.config.model_id)


def chat_call(config: DialectConfig, asked: ChatBody) -> ChatCall:
    """Refuse what cannot be done, and read the messages."""
    _refuse_tools(asked)
    openai.refuse_unsupported(asked)
    seeds = openai.seeds(asked, 1, openai.num_choices(config, asked))
    return ChatCall(config, asked, chat_prompt(asked.messages), seeds)


def chat_prompt(turns: Sequence[ChatMessageBody]) -> ChatPrompt:
    """Read messages; if the assistant speaks last, its turn goes on."""
    if not turns:
        raise invalid("`messages` cannot be empty", "messages")
    messages = tuple(_message(f"messages[{number}]", turn) for number, turn in enumerate(turns))
    return ChatPrompt(messages, is_continued=turns[-1].role == "assistant")


class ChatReply:
    """A whole answer."""

    def __init__(self, head: Head, num_choices: int, *, has_logprobs: bool) -> None:
        self._head = head
        self._has_logprobs = has_logprobs
        self._gathered = [Gathered() for _ in range(num_choices)]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered[index].add(delta)
        return b""

    @property
    def text(self) -> str:
        """The first turn's text."""
        return self._gathered[0].finish.text

    def end(self) -> bytes:
        """Render the answer."""
        finishes = [gathered.finish for gathered in self._gathered]
        return wire.dumps(
            ChatCompletion(
                object="chat.completion",
                id=self._head.id,
                created=self._head.created_s,
                model=self._head.model,
                system_fingerprint=openai.FINGERPRINT,
                choices=[self._choice(*choice) for choice in enumerate(self._gathered)],
                usage=openai.usage(finishes, num_each=len(finishes)),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))

    def _choice(self, index: int, gathered: Gathered) -> ChatChoice:
        tokens, finish = gathered.tokens, gathered.finish
        logprobs = ChatLogprobs([_logprob(t) for t in tokens]) if self._has_logprobs else None
        message = ChatMessage("assistant", finish.text)
        return ChatChoice(index, message, logprobs, openai.stop_reason(finish))


class ChatStreamReply:
    """For each choice the role, one chunk a token, the reason; they come as they come."""

    def __init__(self, head: Head, asked: ChatBody, num_choices: int) -> None:
        self._head = head
        self._has_logprobs = bool(asked.logprobs)
        self._has_usage = openai.has_usage(asked)
        self._gathered = [Gathered() for _ in range(num_choices)]
        self._begun: set[int] = set()
        self._templates = [
            wire.template(self._chunk(index, ChatDelta(content=wire.HOLE)))
            for index in range(num_choices)
        ]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one chunk a token."""
        events = b"" if index in self._begun else self._first(index)
        self._begun.add(index)
        if delta.finish is None:
            return events + self._events(index, delta.tokens)
        self._gathered[index].add(delta)
        reason = openai.stop_reason(delta.finish)
        end = wire.event(self._chunk(index, ChatDelta(), finish_reason=reason))
        return events + self._events(index, delta.tokens) + end

    def end(self) -> bytes:
        """Add the usage where it is wanted, and say that this was all."""
        if not self._has_usage:
            return wire.DONE
        finishes = [gathered.finish for gathered in self._gathered]
        chunk = self._chunk(0, ChatDelta())
        chunk.choices, chunk.usage = [], openai.usage(finishes, num_each=len(finishes))
        return wire.event(chunk) + wire.DONE

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event but one."""
        return openai.last_events(problem)

    def _first(self, index: int) -> bytes:
        return wire.event(self._chunk(index, ChatDelta(role="assistant", content="")))

    def _events(self, index: int, tokens: Sequence[Token]) -> bytes:
        if not self._has_logprobs:
            before, after = self._templates[index]
            return "".join([before + wire.text(t.visible) + after for t in tokens]).encode("ascii")
        return b"".join(
            wire.event(
                self._chunk(index, ChatDelta(content=t.visible), ChatLogprobs([_logprob(t)]))
            )
            for t in tokens
        )

    def _chunk(
        self,
        index: int,
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
            choices=[ChatChunkChoice(index, delta, logprobs, finish_reason)],
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
