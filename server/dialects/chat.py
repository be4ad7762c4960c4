"""OpenAI's chat: messages in, one turn of the assistant out.

https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, structs

from server.dialects import openai, ranges
from server.dialects.bodies import MAX_TOP_LOGPROBS, ChatBody
from server.dialects.call import ChatPrompt, DialectConfig, EncodedPrompt, Generation, Reply
from server.dialects.chat_prompt import chat_prompt
from server.dialects.chat_reply import ChatReply, ChatStreamReply, TurnStreamReply
from server.dialects.decode import decode
from server.dialects.grammars import Form
from server.dialects.openai import Head, OpenAIDialect
from server.dialects.tools import think
from server.dialects.tools.offer import Offer, offer
from server.dialects.tools.turn_parser import TurnParser
from server.errors import invalid


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
    offer: Offer | None = None
    """What the model may call."""

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

    @property
    def model(self) -> str:
        """Name the model that speaks."""
        return openai.model_name(self.config, self.asked)

    @property
    def forced(self) -> Form | None:
        """The calls that the turn must be made of."""
        if self.offer is None or self.offer.grammar is None:
            return None
        return Form("tools", self.offer.grammar)

    def generations(self, form: Form | None = None) -> tuple[Generation, ...]:
        """Check every range; `form` was read from a field that only another dialect has."""
        asked = self.asked
        openai.check(self.config, asked)
        ranges.check_between("top_logprobs", asked.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if asked.top_logprobs and not asked.logprobs:
            raise invalid("`top_logprobs` needs `logprobs` to be true", "top_logprobs")
        num_top = (asked.top_logprobs or 0) if asked.logprobs else None
        form = self.forced or openai.form(asked, form)
        return tuple(
            Generation(
                prompt=self.prompt,
                params=openai.sampling_params(self.config, asked, seed, num_top, form),
                max_new_tokens=openai.max_tokens(asked),
                grammar_field=openai.field_of(form),
                truncate=asked.truncate,
            )
            for seed in self.seeds
        )

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer."""
        if not self.is_stream:
            return self.whole_reply(request_id, created_s, prompts)
        head, parsers = self._head(request_id, created_s), self.parsers(prompts)
        if parsers:
            return TurnStreamReply(head, self.asked, parsers)
        return ChatStreamReply(head, self.asked, len(self.seeds))

    def whole_reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> ChatReply:
        """Begin an answer in one piece."""
        head, parsers = self._head(request_id, created_s), self.parsers(prompts)
        return ChatReply(head, len(self.seeds), parsers, has_logprobs=bool(self.asked.logprobs))

    def parsers(self, prompts: Sequence[EncodedPrompt]) -> list[TurnParser]:
        """Give a parser a choice, or none where all of a turn is text."""
        if self.offer is None and not self.config.has_reasoning:
            return []
        return [
            TurnParser(
                None if self.offer is None else self.offer.form,
                frozenset() if self.offer is None else self.offer.names,
                has_reasoning=self.config.has_reasoning,
                is_thinking=self._is_thinking(prompt.ending),
                max_calls=None if self.offer is None else self.offer.max_calls,
            )
            for prompt in prompts or (EncodedPrompt(0),) * len(self.seeds)
        ]

    def _is_thinking(self, ending: str) -> bool:
        """Tell whether the turn begins inside a thought: the prompt's, or that which goes on."""
        if self.prompt.is_continued:
            return think.is_open_after(self.prompt.messages[-1]["content"])
        return self.forced is None and ending.rstrip().endswith(think.OPEN)

    def _head(self, request_id: str, created_s: int) -> Head:
        return Head(f"chatcmpl-{request_id}", created_s, self.model)


def chat_call(
    config: DialectConfig,
    asked: ChatBody,
    *,
    schema_field: str = "function.parameters",
    has_form: bool = False,
) -> ChatCall:
    """Refuse what cannot be done, and read messages and tools.

    For a chat that was said otherwise: where its tools have their schemas, and whether a field of
    its own says what the answer must be.
    """
    offered = offer(config, asked, schema_field, has_form=has_form)
    openai.refuse_contradictions(asked)
    if asked.chat_template is not None:
        raise ranges.unsupported("chat_template", "templates other than the model's")
    seeds = openai.seeds(asked, 1, openai.num_choices(config, asked))
    prompt = chat_prompt(
        asked.messages, _variables(asked, offered), is_ending_wanted=config.has_reasoning
    )
    return ChatCall(config, asked, prompt, seeds, offered)


def _variables(asked: ChatBody, offered: Offer | None) -> dict[str, Any]:
    """Collect what the template is told beside the messages; mostly nothing."""
    variables: dict[str, Any] = {}
    if offered is not None:
        variables["tools"] = list(offered.tools)
    if asked.reasoning_effort is not None:
        variables["reasoning_effort"] = asked.reasoning_effort
    if asked.chat_template_kwargs is not None:
        options = structs.asdict(asked.chat_template_kwargs)
        variables |= {name: value for name, value in options.items() if value is not UNSET}
    return variables
