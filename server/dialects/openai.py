"""What OpenAI's two dialects share: sampling in its words, errors, the head of an answer, usage.

`temperature` 0 is greedy and `top_p` 1 is off here; TGI's own names at top level count too, because
two families of clients send them. What cannot be done yet is refused by name, and only at values
that would change the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

from engine import Finish, FinishReason, LogprobsMode, SamplingParams
from server.dialects import adapters, ranges, wire
from server.dialects.answers import (
    ErrorDetail,
    OpenAIErrorBody,
    PromptTokensDetails,
    UsageAnswer,
)
from server.dialects.bodies import OpenAIBody
from server.dialects.call import DialectConfig
from server.dialects.grammars import Form, read_format, read_grammar
from server.errors import Problem, invalid

FINGERPRINT = f"millrace-{metadata.version('millrace')}"

_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
_MIN_TOKENS = ("min_tokens", "min_new_tokens")
_ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """What OpenAI's routes have in common."""

    config: DialectConfig

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body."""
        return wire.dumps(error(problem))


def error(problem: Problem) -> OpenAIErrorBody:
    """Phrase a problem as OpenAI does, with TGI's type and status beside it."""
    status = problem.status
    other = "server_error" if status >= 424 else "invalid_request_error"
    detail = ErrorDetail(
        message=problem.message,
        type=_ERROR_TYPES.get(status, other),
        param=problem.field,
        code=problem.error_type.value,
        http_status_code=status,
    )
    return OpenAIErrorBody(detail, problem.error_type.value)


def last_events(problem: Problem) -> bytes:
    """Phrase a problem as the end of a stream that has begun."""
    return wire.event(error(problem)) + wire.DONE


@dataclass(frozen=True, slots=True)
class Head:
    """What every piece of an answer repeats."""

    id: str
    created_s: int
    model: str


def usage(finishes: Iterable[Finish], num_each: int = 1) -> UsageAnswer:
    """Sum what the sequences cost; `num_each` in a row share a prompt, which counts once."""
    costs = [finish.usage for finish in finishes]
    firsts = costs[::num_each]
    prompt = sum(cost.num_prompt_tokens for cost in firsts)
    output = sum(cost.num_output_tokens for cost in costs)
    cached = PromptTokensDetails(sum(cost.num_cached_tokens for cost in firsts))
    return UsageAnswer(prompt, output, prompt + output, cached)


def stop_reason(finish: Finish) -> str:
    """Say why it ended in OpenAI's two words."""
    return "length" if finish.reason is FinishReason.LENGTH else "stop"


def has_usage(asked: OpenAIBody) -> bool:
    """Tell whether a stream ends with a chunk that holds the usage."""
    return asked.stream_options is not None and bool(asked.stream_options.include_usage)


def adapter(config: DialectConfig, asked: OpenAIBody) -> str | None:
    """Return the adapter that is asked for, None for the base model; raises Problem."""
    return adapters.by_id_or_model(config, asked.adapter_id, asked.model)


def model_name(config: DialectConfig, asked: OpenAIBody) -> str:
    """Name the model that speaks."""
    return adapter(config, asked) or config.model_id


def refuse_contradictions(asked: OpenAIBody) -> None:
    """Refuse names of one thing that contradict each other."""
    for names in (_MAX_TOKENS, _MIN_TOKENS):
        given = _given(asked, names)
        for name, value in given.items():
            first, wanted = next(iter(given.items()))
            ranges.require(value == wanted, name, f"must equal `{first}` ({wanted})", value)


def num_choices(config: DialectConfig, asked: OpenAIBody) -> int:
    """Return how many answers each prompt gets; raises Problem."""
    count = 1 if asked.n is None else asked.n
    ranges.require(
        1 <= count <= config.max_choices, "n", f"must be >= 1 and <= {config.max_choices}", count
    )
    return count


def max_tokens(asked: OpenAIBody) -> int | None:
    """Return how many tokens are asked for, under whichever name."""
    return next(iter(_given(asked, _MAX_TOKENS).values()), None)


def seeds(asked: OpenAIBody, num_prompts: int, num_each: int) -> tuple[int, ...]:
    """Return one seed a sequence: drawn, or the client's, read as unsigned.

    The answers to one prompt count up from it: from the same they would be the same.
    """
    if asked.seed is not None:
        each = tuple((asked.seed + number) % (ranges.MAX_SEED + 1) for number in range(num_each))
        return each * num_prompts
    return tuple(ranges.draw_seed() for _ in range(num_prompts * num_each))


def check(config: DialectConfig, asked: OpenAIBody, *, may_be_empty: bool = False) -> None:
    """Check the ranges that both dialects share; the first failure is told.

    Only an answer that may be empty may be asked for with 0 tokens.
    """
    ranges.check_between("temperature", asked.temperature, 0.0, ranges.MAX_SCALE)
    ranges.check_scale("repetition_penalty", asked.repetition_penalty)
    ranges.check_between("frequency_penalty", asked.frequency_penalty, -2.0, 2.0)
    ranges.check_between("presence_penalty", asked.presence_penalty, -2.0, 2.0)
    for field in ("top_p", "typical_p"):
        share = getattr(asked, field)
        if share is not None:
            ranges.require(0.0 < share <= 1.0, field, "must be > 0.0 and <= 1.0", share)
    ranges.check_between("min_p", asked.min_p, 0.0, 1.0)
    if asked.top_k is not None:
        ranges.require(asked.top_k >= -1, "top_k", "must be >= -1", asked.top_k)
    for field, count in _given(asked, _MAX_TOKENS).items():
        ranges.check_positive(field, count or int(may_be_empty))
    ranges.check_stop(config, stops(asked))
    ranges.check_between("seed", asked.seed, -(2**63), ranges.MAX_SEED)
    _check_bias(config, asked.logit_bias or {})
    ranges.check_truncate(config, asked.truncate)


def form(asked: OpenAIBody, own: Form | None = None) -> Form | None:
    """Read what the answer must be, under whichever name; raises Problem.

    `own` is what the dialect has read from a field that only it has.
    """
    forms = [own] if own is not None else []
    if asked.response_format is not None:
        found = read_format("response_format", asked.response_format)
        forms += [Form("response_format", found)] if found is not None else []
    if asked.grammar is not None:
        forms.append(Form("grammar", read_grammar("grammar", asked.grammar)))
    if len(forms) > 1:
        first, other = forms[-1].field, forms[-2].field
        raise invalid(f"`{first}` and `{other}` exclude each other", first)
    return forms[0] if forms else None


def field_of(form: Form | None) -> str:
    """Name the field that a form was read from."""
    return "grammar" if form is None else form.field


def sampling_params(
    config: DialectConfig,
    asked: OpenAIBody,
    seed: int,
    num_top_logprobs: int | None,
    form: Form | None = None,
) -> SamplingParams:
    """Translate a checked body; `num_top_logprobs` None means that no logprob is shown."""
    min_tokens = next(iter(_given(asked, _MIN_TOKENS).values()), 0)
    return SamplingParams(
        max_new_tokens=max_tokens(asked) or 1,
        min_new_tokens=min_tokens,
        ignore_eos=bool(asked.ignore_eos),
        stop=stops(asked),
        do_sample=_is_sampled(asked),
        temperature=ranges.scale(asked.temperature or None),
        top_k=_top_k(asked),
        top_p=_share(asked.top_p),
        typical_p=_share(asked.typical_p),
        min_p=asked.min_p or None,
        seed=seed,
        repetition_penalty=ranges.scale(asked.repetition_penalty),
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        logit_bias=tuple((int(key), bias) for key, bias in (asked.logit_bias or {}).items()),
        watermark=bool(asked.watermark),
        grammar=None if form is None else form.grammar,
        adapter=adapter(config, asked),
        is_prefix_cached=asked.prefix_caching is not False,
        logprobs=None if num_top_logprobs is None else LogprobsMode.RAW,
        num_top_logprobs=num_top_logprobs or 0,
    )


def stops(asked: OpenAIBody) -> tuple[str, ...]:
    """Return the stop strings, of which one may stand alone."""
    return (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())


def _given(asked: OpenAIBody, names: Iterable[str]) -> dict[str, int]:
    values = {name: getattr(asked, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _check_bias(config: DialectConfig, bias: Mapping[str, float]) -> None:
    for key, value in bias.items():
        is_id = key.isascii() and key.isdigit() and int(key) < config.vocab_size
        rule = f"must map token ids >= 0 and < {config.vocab_size}"
        ranges.require(is_id, "logit_bias", rule, key)
        ranges.check_between("logit_bias", value, -ranges.MAX_BIAS, ranges.MAX_BIAS)


def _is_sampled(asked: OpenAIBody) -> bool:
    if asked.temperature == 0.0:
        return False
    cuts = (_top_k(asked), _share(asked.top_p), _share(asked.typical_p), asked.min_p or None)
    is_shaped = asked.temperature not in (None, 1.0) or any(cut is not None for cut in cuts)
    return asked.do_sample is not False or is_shaped


def _top_k(asked: OpenAIBody) -> int | None:
    return asked.top_k if asked.top_k is not None and asked.top_k > 0 else None


def _share(value: float | None) -> float | None:
    return None if value == 1.0 else value
