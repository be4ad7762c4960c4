"""OpenAI's completions: `n` choices for each prompt, told apart by their index.

In a stream each token is a chunk; the last of a choice carries the reason. What is echoed comes
with the first one.
https://platform.openai.com/docs/api-reference/completions
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from msgspec import UNSET

from engine import Delta, PromptToken, SamplingParams, Token
from server.dialects import openai, ranges, wire
from server.dialects.answers import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    UsageAnswer,
)
from server.dialects.bodies import MAX_TOP_LOGPROBS, CompletionBody
from server.dialects.call import DialectConfig, EncodedPrompt, Generation, Reply
from server.dialects.decode import decode
from server.dialects.gathered import Gathered
from server.dialects.grammars import Form
from server.dialects.openai import Head, OpenAIDialect
from server.errors import ErrorType, Problem, invalid

Prompt = str | tuple[int, ...]


class CompletionsDialect(OpenAIDialect):
    """`POST /v1/completions`."""

    def parse(self, body: bytes) -> "CompletionsCall":
        """Decode a body."""
        asked = decode(body, CompletionBody)
        _refuse_unsupported(asked)
        openai.refuse_contradictions(asked)
        prompts = _prompts(self.config, asked)
        num_kept, num_each = _num_each(self.config, asked, len(prompts))
        seeds = openai.seeds(asked, len(prompts), num_each)
        return CompletionsCall(self.config, asked, prompts, num_kept, seeds)


@dataclass(frozen=True, slots=True)
class CompletionsCall:
    """One request for completions."""

    config: DialectConfig
    asked: CompletionBody
    prompts: tuple[Prompt, ...]
    num_kept: int
    """Choices of each prompt."""
    seeds: tuple[int, ...]
    """One a sequence; those of a prompt follow one another, at least `num_kept`."""

    @property
    def is_stream(self) -> bool:
        """Tell whether chunks are wanted."""
        return bool(self.asked.stream)

    @property
    def num_permits(self) -> int:
        """One a sequence."""
        return len(self.seeds)

    @property
    def num_each(self) -> int:
        """Count the sequences of each prompt."""
        return len(self.seeds) // len(self.prompts)

    @property
    def is_chosen(self) -> bool:
        """Tell whether only the likeliest sequences of a prompt are kept."""
        return self.num_each > self.num_kept

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return {}

    def generations(self) -> tuple[Generation, ...]:
        """Check every range."""
        asked = self.asked
        openai.check(self.config, asked, may_be_empty=bool(asked.echo))
        ranges.check_between("logprobs", asked.logprobs, 0, MAX_TOP_LOGPROBS)
        self._check_echo()
        for prompt in self.prompts:
            if not prompt:
                raise invalid("`prompt` cannot be empty", "prompt")
            if not isinstance(prompt, str):
                ranges.check_ids(self.config, "prompt", prompt)
        form = openai.form(asked)
        return tuple(
            Generation(
                prompt=self.prompts[number // self.num_each],
                params=self._params(seed, form),
                grammar_field=openai.field_of(form),
                max_new_tokens=1 if self.is_prompt_only else openai.max_tokens(asked),
                truncate=asked.truncate,
            )
            for number, seed in enumerate(self.seeds)
        )

    @property
    def is_prompt_only(self) -> bool:
        """Tell whether nothing but the echoed prompt is wanted; a token is made all the same."""
        return bool(self.asked.echo) and openai.max_tokens(self.asked) == 0

    def prefix(self, prompt: Prompt) -> str:
        """Give what goes in front of a text: the prompt, or nothing."""
        is_full = self.asked.return_full_text and not self.is_stream
        return prompt if (self.asked.echo or is_full) and isinstance(prompt, str) else ""

    def usage(self, gathered: Sequence[Gathered]) -> UsageAnswer:
        """Sum what the sequences cost; a token that is not shown is not counted."""
        usage = openai.usage([each.finish for each in gathered], self.num_each)
        if self.is_prompt_only:
            usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
        return usage

    def _params(self, seed: int, form: Form | None) -> SamplingParams:
        asked, num_top = self.asked, self.asked.logprobs
        if num_top is None and self.is_chosen:
            num_top = 0
        params = openai.sampling_params(self.config, asked, seed, num_top, form)
        return replace(params, prompt_logprobs=bool(asked.echo) and asked.logprobs is not None)

    def _check_echo(self) -> None:
        asked = self.asked
        if not asked.echo:
            return
        if asked.logprobs is None:
            if not all(isinstance(prompt, str) for prompt in self.prompts):
                raise invalid("`echo` of token ids needs `logprobs`", "echo")
        elif self.is_stream:
            raise invalid("`echo` with `logprobs` cannot be streamed", "echo")
        elif not self.config.is_prompt_logprobs_enabled:
            flag = "--enable-prefill-logprobs"
            raise invalid(f"`echo` with `logprobs` needs a server started with {flag}", "echo")

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer."""
        model = openai.model_name(self.config, self.asked)
        head = Head(f"cmpl-{request_id}", created_s, model)
        if self.is_stream:
            return CompletionsStreamReply(self, head)
        return CompletionsReply(self, head)


class CompletionsReply:
    """A whole answer: the choices of each prompt, in the order of the prompts."""

    def __init__(self, call: CompletionsCall, head: Head) -> None:
        self._call = call
        self._head = head
        self._gathered = [Gathered() for _ in call.seeds]

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
                choices=[self._choice(*kept) for kept in enumerate(self._kept())],
                usage=self._call.usage(self._gathered),
            )
        )

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(openai.error(problem))

    def _kept(self) -> Iterator[tuple[Prompt, Gathered]]:
        """Give the choices with their prompts; where not all are kept the likeliest, best first."""
        call = self._call
        for number, prompt in enumerate(call.prompts):
            gathered = self._gathered[number * call.num_each :][: call.num_each]
            if call.is_chosen:
                gathered.sort(key=lambda each: each.mean_logprob, reverse=True)
            for each in gathered[: call.num_kept]:
                yield prompt, each

    def _choice(self, index: int, kept: tuple[Prompt, Gathered]) -> CompletionChoice:
        call, (prompt, gathered) = self._call, kept
        finish, num_top = gathered.finish, call.asked.logprobs
        echo = Echo(finish.prompt, prompt) if finish.prompt else None
        prefix = call.prefix(prompt) if echo is None else echo.text
        if call.is_prompt_only:
            columns = None if echo is None else echo.columns(num_top or 0)
            return CompletionChoice(index, prefix, columns, "length")
        columns = None
        if num_top is not None:
            columns = _columns(gathered.tokens, len(prefix), num_top)
        if echo is not None and columns is not None:
            columns = _joined(echo.columns(num_top or 0), columns)
        return CompletionChoice(index, prefix + finish.text, columns, openai.stop_reason(finish))


class CompletionsStreamReply:
    """One chunk a token; the chunks of several choices are interleaved as they come."""

    def __init__(self, call: CompletionsCall, head: Head) -> None:
        self._call = call
        self._num_top = call.asked.logprobs
        self._head = head
        self._has_usage = openai.has_usage(call.asked)
        self._gathered = [Gathered() for _ in call.seeds]
        self._echoes = [
            call.prefix(call.prompts[number // call.num_each]) for number in range(len(call.seeds))
        ]
        """What goes before a choice's first token."""
        self._offsets = [*map(len, self._echoes)]
        self._templates = [
            wire.template(self._chunk(CompletionChoice(index, wire.HOLE, None, None)))
            for index in range(len(call.seeds))
        ]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Render one chunk a token, and one for an echoed prompt before them."""
        events, self._echoes[index] = self._echo(index), ""
        if delta.finish is None:
            return events + self._events(index, delta.tokens)
        self._gathered[index].add(delta)
        *before, last = delta.tokens
        choice = CompletionChoice(
            index,
            last.visible,
            None if self._num_top is None else self._logprobs(index, last),
            openai.stop_reason(delta.finish),
        )
        if self._call.is_prompt_only:
            choice = CompletionChoice(index, "", None, "length")
        return events + self._events(index, before) + wire.event(self._chunk(choice))

    def end(self) -> bytes:
        """Add the usage where it is wanted, and say that this was all."""
        if not self._has_usage:
            return wire.DONE
        chunk = self._chunk()
        chunk.usage = self._call.usage(self._gathered)
        return wire.event(chunk) + wire.DONE

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as the last event but one."""
        return openai.last_events(problem)

    def _echo(self, index: int) -> bytes:
        text = self._echoes[index]
        return wire.event(self._chunk(CompletionChoice(index, text, None, None))) if text else b""

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


class Echo:
    """A prompt with logprobs, as the beginning of an answer."""

    def __init__(self, tokens: Sequence[PromptToken], prompt: Prompt) -> None:
        self._tokens = tokens
        self.text = prompt if isinstance(prompt, str) else "".join(t.text for t in tokens)

    def columns(self, num_top: int) -> CompletionLogprobs:
        """Write it as OpenAI's columns; a token that the tokenizer added has no width."""
        texts = [token.text for token in self._tokens]
        logprobs = [wire.finite(token.logprob) for token in self._tokens]
        pairs = zip(texts[1:], logprobs[1:], strict=True)
        offsets, at = [], 0
        for text in texts:
            offsets.append(at)
            at += len(text) if self.text.startswith(text, at) else 0
        return CompletionLogprobs(
            tokens=texts,
            token_logprobs=logprobs,
            top_logprobs=[None, *({text: logprob} for text, logprob in pairs)] if num_top else None,
            text_offset=offsets,
        )


def _joined(before: CompletionLogprobs, after: CompletionLogprobs) -> CompletionLogprobs:
    tops = None
    if before.top_logprobs is not None and after.top_logprobs is not None:
        tops = before.top_logprobs + after.top_logprobs
    return CompletionLogprobs(
        tokens=before.tokens + after.tokens,
        token_logprobs=before.token_logprobs + after.token_logprobs,
        top_logprobs=tops,
        text_offset=before.text_offset + after.text_offset,
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


def _num_each(config: DialectConfig, asked: CompletionBody, num_prompts: int) -> tuple[int, int]:
    """Return how many choices of each prompt are kept, and how many are generated."""
    num_kept = openai.num_choices(config, asked)
    num_each = asked.best_of or num_kept
    rule = f"must be >= `n` ({num_kept}) and <= {config.max_choices}"
    ranges.require(num_kept <= num_each <= config.max_choices, "best_of", rule, num_each)
    if asked.stream:
        rule = f"must equal `n` ({num_kept}) in a stream"
        ranges.require(num_each == num_kept, "best_of", rule, num_each)
    num_sequences = num_prompts * num_each
    rule = f"times {num_prompts} prompts must be <= {config.max_choices}"
    ranges.require(num_sequences <= config.max_choices, "n", rule, num_each)
    return num_kept, num_each


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
