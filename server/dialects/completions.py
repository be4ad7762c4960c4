"""OpenAI's completions: each prompt is a sequence of its own, told apart by its index.

In a stream each token is a chunk; the last of a prompt carries the reason.
https://platform.openai.com/docs/api-reference/completions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from msgspec import UNSET

from engine import Delta, Token
from server.dialects import openai, ranges, wire
from server.dialects.answers import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
)
from server.dialects.bodies import MAX_TOP_LOGPROBS, CompletionBody
from server.dialects.call import DialectConfig, Generation, Reply
from server.dialects.decode import decode
from server.dialects.gathered import Gathered
from server.dialects.openai import Head, OpenAIDialect
from server.errors import ErrorType, Problem, invalid

Prompt = str | tuple[int, ...]


class CompletionsDialect(OpenAIDialect):
    """`POST /v1/completions`."""

    def parse(self, body: bytes) -> "CompletionsCall":
        """Decode a body."""
        asked = decode(body, CompletionBody)
        _refuse_unsupported(asked)
        openai.refuse_unsupported(asked)
        prompts = _prompts(self.config, asked)
        return CompletionsCall(self.config, asked, prompts, openai.seeds(asked, len(prompts)))


@dataclass(frozen=True, slots=True)
class CompletionsCall:
    """One request for completions."""

    config: DialectConfig
    asked: CompletionBody
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    """One a prompt."""

    @property
    def is_stream(self) -> bool:
        """Tell whether chunks are wanted."""
        return bool(self.asked.stream)

    @property
    def num_permits(self) -> int:
        """One a prompt."""
        return len(self.prompts)

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return {}

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        asked = self.asked
        openai.check(self.config, asked)
        ranges.check_between("logprobs", asked.logprobs, 0, MAX_TOP_LOGPROBS)
        for prompt in self.prompts:
            if not prompt:
                raise invalid("`prompt` cannot be empty", "prompt")
            if not isinstance(prompt, str):
                ranges.check_ids(self.config, "prompt", prompt)
        return tuple(
            Generation(
                prompt=prompt,
                params=openai.sampling_params(asked, seed, asked.logprobs),
                max_new_tokens=openai.max_tokens(asked),
                truncate=asked.truncate,
            )
            for prompt, seed in zip(self.prompts, self.seeds, strict=True)
        )

    def reply(self, request_id: str, created_s: int) -> Reply:
        """Begin the answer."""
        head = Head(f"cmpl-{request_id}", created_s, self.config.model_id)
        if self.is_stream:
            return CompletionsStreamReply(self, head)
        return CompletionsReply(self, head)


class CompletionsReply:
    """A whole answer: one choice a prompt, in the order of the prompts."""

    def __init__(self, call: CompletionsCall, head: Head) -> None:
        self._call = call
        self._head = head
        self._gathered = [Gathered() for _ in call.prompts]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Keep what came."""
        self._gathered[index].add(delta)
        return b""

    def end(self) -> bytes:
        """Render the answer."""
        return wire.dumps(
            Completion(
                object="text_completion",
                id=self._head.id,
                created=self._head.created_s,
                model=self._head.model,
                system_fingerprint=openai.FINGERPRINT,
                choices=[self._choice(index) for index in range(len(self._gathered))],
                usage=openai.usage(gathered.finish for gathered in self._gathered),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))

    def _choice(self, index: int) -> CompletionChoice:
        asked, gathered = self._call.asked, self._gathered[index]
        prompt = self._call.prompts[index]
        prefix = prompt if asked.return_full_text and isinstance(prompt, str) else ""
        logprobs = None
        if asked.logprobs is not None:
            logprobs = _columns(gathered.tokens, len(prefix), asked.logprobs)
        reason = openai.stop_reason(gathered.finish)
        return CompletionChoice(index, prefix + gathered.finish.text, logprobs, reason)


class CompletionsStreamReply:
    """One chunk a token; the chunks of several prompts are interleaved as they come."""

    def __init__(self, call: CompletionsCall, head: Head) -> None:
        self._num_top = call.asked.logprobs
        self._head = head
        self._has_usage = openai.has_usage(call.asked)
        self._gathered = [Gathered() for _ in call.prompts]
        self._offsets = [0] * len(call.prompts)
        self._templates = [
            wire.template(self._chunk(CompletionChoice(index, wire.HOLE, None, None)))
            for index in range(len(call.prompts))
        ]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one chunk a token."""
        if delta.finish is None:
            return self._events(index, delta.tokens)
        self._gathered[index].add(delta)
        *before, last = delta.tokens
        choice = CompletionChoice(
            index,
            last.visible,
            None if self._num_top is None else self._logprobs(index, last),
            openai.stop_reason(delta.finish),
        )
        return self._events(index, before) + wire.event(self._chunk(choice))

    def end(self) -> bytes:
        """Add the usage where it is wanted, and say that this was all."""
        if not self._has_usage:
            return wire.DONE
        chunk = self._chunk()
        chunk.usage = openai.usage(gathered.finish for gathered in self._gathered)
        return wire.event(chunk) + wire.DONE

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event but one."""
        return openai.last_events(problem)

    def _events(self, index: int, tokens: Sequence[Token]) -> bytes:
        if self._num_top is None:
            before, after = self._templates[index]
            return "".join([before + wire.text(t.visible) + after for t in tokens]).encode("ascii")
        choices = [
            CompletionChoice(index, t.visible, self._logprobs(index, t), None) for t in tokens
        ]
        return b"".join(wire.event(self._chunk(choice)) for choice in choices)

    def _logprobs(self, index: int, token: Token) -> CompletionLogprobs:
        columns = _columns([token], self._offsets[index], self._num_top or 0)
        self._offsets[index] += _width(token)
        return columns

    def _chunk(self, *choices: CompletionChoice) -> CompletionChunk:
        return CompletionChunk(
            object="text_completion",
            id=self._head.id,
            created=self._head.created_s,
            choices=list(choices),
            model=self._head.model,
            system_fingerprint=openai.FINGERPRINT,
            usage=None if self._has_usage else UNSET,
        )


def _columns(tokens: Sequence[Token], offset: int, num_top: int) -> CompletionLogprobs:
    """Write tokens as OpenAI's columns; offsets are where the text would be, had no stop cut it."""
    offsets = list(accumulate(map(_width, tokens), initial=offset))[:-1]
    return CompletionLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[wire.finite(token.logprob) for token in tokens],
        top_logprobs=[_top(token) for token in tokens] if num_top else None,
        text_offset=offsets,
    )


def _width(token: Token) -> int:
    """Count the characters a token adds to the text."""
    return 0 if token.is_special else len(token.text)


def _top(token: Token) -> dict[str, float | None]:
    """Map candidates to logprobs, best first; the token itself is always among them."""
    top: dict[str, float | None] = {}
    for candidate in token.top:
        top.setdefault(candidate.text, wire.finite(candidate.logprob))
    top.setdefault(token.text, wire.finite(token.logprob))
    return top


def _refuse_unsupported(asked: CompletionBody) -> None:
    if asked.suffix:
        message = "Suffix is not supported and can be achieved by preprocessing the prompt."
        raise Problem(ErrorType.SUFFIX_NOT_SUPPORTED, message, "suffix")
    if asked.echo:
        raise ranges.unsupported("echo", "echoed prompts")


def _prompts(config: DialectConfig, asked: CompletionBody) -> tuple[Prompt, ...]:
    """Tell one text, several texts, one list of ids and several such lists apart."""
    prompts = _listed(asked.prompt)
    most = config.max_client_batch_size
    if len(prompts) > most:
        message = (
            f"Number of prompts exceeds the maximum allowed batch size of {most}. "
            f"Given: {len(prompts)}"
        )
        raise Problem(ErrorType.BATCH_SIZE_EXCEEDED, message, "prompt")
    if asked.return_full_text and not all(isinstance(prompt, str) for prompt in prompts):
        raise invalid("`return_full_text` needs a prompt of text", "return_full_text")
    return prompts


def _listed(prompt: str | list[str | int | list[int]]) -> tuple[Prompt, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    texts = [item for item in prompt if isinstance(item, str)]
    ids = [item for item in prompt if isinstance(item, int)]
    lists = [tuple(item) for item in prompt if isinstance(item, list)]
    if not prompt:
        raise invalid("`prompt` cannot be empty", "prompt")
    if len(prompt) not in (len(texts), len(ids), len(lists)):
        raise invalid("`prompt` must hold only texts, only token ids, or only lists", "prompt")
    return tuple(texts) or ((tuple(ids),) if ids else tuple(lists))
