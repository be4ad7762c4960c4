"""`/tokenize`, `/chat_tokenize`, `/detokenize`: what to encode or decode, how the answer reads.

No generation, no permit: the route asks the engine for spans, ids or text and renders them here.
`inputs` gives TGI's array; `prompt` and `messages` give a plain list of ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine import TextSpan
from server.dialects import ranges, wire
from server.dialects.answers import ChatTokenizeAnswer, DetokenizeAnswer, SpanAnswer
from server.dialects.bodies import ChatBody, ChatTokenizeBody, DetokenizeBody, TokenizeBody
from server.dialects.call import ChatPrompt, DialectConfig
from server.dialects.chat import chat_call
from server.dialects.chat_prompt import chat_prompt
from server.dialects.decode import decode
from server.errors import Problem, invalid


@dataclass(frozen=True, slots=True)
class TokenizeCall:
    """What to tokenize."""

    prompt: str | ChatPrompt
    has_spans: bool
    """Answer with spans, else with ids."""


def parse(config: DialectConfig, body: bytes) -> TokenizeCall:
    """Decode a body of `/tokenize`; raises Problem."""
    asked = decode(body, TokenizeBody)
    fields = ("inputs", "prompt", "messages")
    given = [field for field in fields if getattr(asked, field) is not None]
    if len(given) != 1:
        raise _not_one(given)
    if asked.messages is not None:
        chat = ChatBody(messages=asked.messages, tools=asked.tools)
        return TokenizeCall(chat_call(config, chat).prompt, has_spans=False)
    if asked.tools:
        raise invalid("`tools` must come with `messages`", "tools")
    text = asked.inputs if asked.prompt is None else asked.prompt
    if not text:
        raise invalid(f"`{given[0]}` cannot be empty", given[0])
    return TokenizeCall(text, has_spans=asked.prompt is None)


def parse_chat(body: bytes) -> ChatPrompt:
    """Decode a body of `/chat_tokenize`; raises Problem."""
    return chat_prompt(decode(body, ChatTokenizeBody).messages)


def parse_ids(config: DialectConfig, body: bytes) -> list[int]:
    """Decode a body of `/detokenize`; raises Problem."""
    token_ids = decode(body, DetokenizeBody).tokens
    ranges.check_ids(config, "tokens", token_ids)
    return token_ids


def spans_body(spans: Sequence[TextSpan]) -> bytes:
    """Render the answer to `inputs`."""
    return wire.dumps(_spans(spans))


def ids_body(token_ids: Sequence[int]) -> bytes:
    """Render the answer to `prompt` and `messages`."""
    return wire.dumps(list(token_ids))


def chat_body(spans: Sequence[TextSpan], templated_text: str) -> bytes:
    """Render the answer of `/chat_tokenize`."""
    return wire.dumps(ChatTokenizeAnswer(_spans(spans), templated_text))


def text_body(text: str) -> bytes:
    """Render the answer of `/detokenize`."""
    return wire.dumps(DetokenizeAnswer(text))


def _spans(spans: Sequence[TextSpan]) -> list[SpanAnswer]:
    return [SpanAnswer(span.id, span.text, span.start, span.stop) for span in spans]


def _not_one(given: Sequence[str]) -> Problem:
    if not given:
        return invalid("one of `inputs`, `prompt` and `messages` is missing", "inputs")
    names = " and ".join(f"`{field}`" for field in given)
    return invalid(f"only one of `inputs`, `prompt` and `messages` may be given. Given: {names}")
