"""TGI's own dialect: `/generate`, `/generate_stream`, and `POST /`, where the body decides.

Defaults, ranges and the order of the checks are TGI 3.3's.
https://github.com/huggingface/text-generation-inference/blob/db931fcf/router/src/server.rs
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine import Grammar, LogprobsMode, SamplingParams
from server.dialects import adapters, ranges, tgi_reply, wire
from server.dialects.bodies import CompatBody, GenerateBody, Parameters
from server.dialects.call import DialectConfig, EncodedPrompt, Generation, Reply
from server.dialects.decode import decode
from server.dialects.grammars import read_grammar
from server.dialects.tgi_reply import GenerateReply, GenerateStreamReply, Shape
from server.errors import Problem, invalid

NO_PROMPT_LOGPROBS = {"x-prefill": "empty; the server runs without --enable-prefill-logprobs"}


@dataclass(frozen=True, slots=True)
class NativeDialect:
    """What TGI's routes have in common."""

    config: DialectConfig

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body."""
        return wire.dumps(tgi_reply.error(problem))


class GenerateDialect(NativeDialect):
    """`POST /generate`: one JSON object."""

    def parse(self, body: bytes) -> "GenerateCall":
        """Decode a body; `stream` in it is ignored, as in TGI."""
        return generate_call(self.config, decode(body, GenerateBody))


class GenerateStreamDialect(NativeDialect):
    """`POST /generate_stream`: events, whatever the body says."""

    def parse(self, body: bytes) -> "GenerateCall":
        """Decode a body; `stream` in it is ignored, as in TGI."""
        return generate_call(self.config, decode(body, GenerateBody), is_stream=True)


class CompatDialect(NativeDialect):
    """`POST /`: an array of one object, or events if the body asks for them."""

    def parse(self, body: bytes) -> "GenerateCall":
        """Decode a body."""
        asked = decode(body, CompatBody)
        return generate_call(
            self.config,
            asked,
            is_stream=bool(asked.stream),
            is_list=True,
            is_full_text=self.config.is_full_text_default,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateCall:
    """One request in TGI's words."""

    config: DialectConfig
    inputs: str
    parameters: Parameters
    seeds: tuple[int, ...]
    """One a sequence."""
    is_stream: bool
    is_list: bool
    """A whole answer is an array of one."""
    is_full_text: bool
    """The prompt goes in front of the text."""

    @property
    def num_permits(self) -> int:
        """One a sequence of `best_of`."""
        return len(self.seeds)

    @property
    def headers(self) -> Mapping[str, str]:
        """Say why prompt logprobs that were asked for stay away."""
        asked = self.parameters.decoder_input_details
        return NO_PROMPT_LOGPROBS if asked and not self.config.is_prompt_logprobs_enabled else {}

    @property
    def has_details(self) -> bool:
        """Tell whether the answer has details."""
        return bool(self.parameters.details or self.parameters.decoder_input_details)

    def generations(self) -> tuple[Generation, ...]:
        """Check every range, in TGI's order."""
        _check(self)
        adapter = adapters.by_id(self.config, self.parameters.adapter_id)
        asked = self.parameters.grammar
        grammar = None if asked is None else read_grammar("grammar", asked)
        return tuple(
            Generation(
                prompt=self.inputs,
                params=self._params(seed, grammar, adapter),
                max_new_tokens=self.parameters.max_new_tokens,
                truncate=self.parameters.truncate,
            )
            for seed in self.seeds
        )

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> Reply:
        """Begin the answer; TGI's answers name neither request nor time."""
        return GenerateStreamReply(self._shape()) if self.is_stream else self.whole_reply()

    def whole_reply(self) -> GenerateReply:
        """Begin an answer in one piece."""
        return GenerateReply(self._shape())

    def _shape(self) -> Shape:
        asked = self.parameters
        return Shape(
            prefix=self.inputs if self.is_full_text else "",
            seeds=self.seeds if _is_sampled(asked) else (None,) * len(self.seeds),
            has_details=self.has_details,
            has_top_tokens=bool(asked.top_n_tokens),
            is_list=self.is_list,
        )

    def _params(self, seed: int, grammar: Grammar | None, adapter: str | None) -> SamplingParams:
        asked = self.parameters
        has_logprobs = self.is_stream or self.has_details
        return SamplingParams(
            max_new_tokens=asked.max_new_tokens or 1,
            min_new_tokens=asked.min_new_tokens or 0,
            ignore_eos=bool(asked.ignore_eos or asked.ignore_eos_token),
            stop=tuple(asked.stop or ()),
            keep_stop=True,
            length_first=True,
            do_sample=_is_sampled(asked),
            temperature=ranges.scale(asked.temperature),
            top_k=asked.top_k,
            top_p=asked.top_p,
            typical_p=asked.typical_p,
            seed=seed,
            repetition_penalty=ranges.scale(asked.repetition_penalty),
            frequency_share_penalty=asked.frequency_penalty or 0.0,
            watermark=bool(asked.watermark),
            grammar=grammar,
            adapter=adapter,
            is_prefix_cached=asked.prefix_caching is not False,
            logprobs=LogprobsMode.WARPED if has_logprobs or len(self.seeds) > 1 else None,
            num_top_logprobs=(asked.top_n_tokens or 0) if has_logprobs else 0,
            prompt_logprobs=bool(asked.decoder_input_details)
            and self.config.is_prompt_logprobs_enabled,
        )


def generate_call(
    config: DialectConfig,
    asked: GenerateBody,
    *,
    is_stream: bool = False,
    is_list: bool = False,
    is_full_text: bool = False,
) -> GenerateCall:
    """Check what TGI checks before it takes a permit; draw seeds where none is given.

    Without `parameters` TGI samples, with empty ones it is greedy.
    """
    parameters = asked.parameters or Parameters(do_sample=True)
    if is_stream:
        _check_stream(parameters)
    else:
        _check_best_of(config, parameters.best_of or 1)
    if parameters.return_full_text is not None:
        is_full_text = parameters.return_full_text
    return GenerateCall(
        config=config,
        inputs=asked.inputs,
        parameters=parameters,
        seeds=_seeds(parameters),
        is_stream=is_stream,
        is_list=is_list,
        is_full_text=is_full_text,
    )


def _is_sampled(asked: Parameters) -> bool:
    return (
        bool(asked.do_sample)
        or asked.temperature not in (None, 1.0)
        or asked.top_k is not None
        or asked.top_p is not None
        or asked.typical_p is not None
    )


def _seeds(asked: Parameters) -> tuple[int, ...]:
    if asked.seed is not None:
        return (asked.seed,) * max(1, asked.best_of or 1)
    return tuple(ranges.draw_seed() for _ in range(max(1, asked.best_of or 1)))


def _check_stream(asked: Parameters) -> None:
    if asked.best_of is not None:
        rule = "!= 1 is not supported when streaming tokens"
        ranges.require(asked.best_of == 1, "best_of", rule, asked.best_of)
    if asked.decoder_input_details:
        field = "decoder_input_details"
        raise invalid(f"`{field}` == true is not supported when streaming tokens", field)


def _check_best_of(config: DialectConfig, best_of: int) -> None:
    most = config.max_best_of
    rule = f"must be > 0 and <= {most}" if most > 1 else "!= 1 is not allowed for this endpoint"
    ranges.require(best_of <= most, "best_of", rule, best_of)


def _check(call: GenerateCall) -> None:
    """Check ranges; the order is TGI's, the first failure is told."""
    config, asked, best_of = call.config, call.parameters, len(call.seeds)
    if best_of > 1 and not _is_sampled(asked):
        raise invalid(f"you must use sampling when `best_of` is > 1. Given: {best_of}", "best_of")
    ranges.check_scale("temperature", asked.temperature)
    ranges.check_scale("repetition_penalty", asked.repetition_penalty)
    ranges.check_between("frequency_penalty", asked.frequency_penalty, -2.0, 2.0)
    ranges.check_share("top_p", asked.top_p)
    ranges.check_share("typical_p", asked.typical_p)
    ranges.check_positive("top_k", asked.top_k)
    ranges.check_positive("max_new_tokens", asked.max_new_tokens)
    ranges.check_stop(config, asked.stop or ())
    if asked.seed is not None:
        rule = "must not be set when `best_of` > 1"
        ranges.require(best_of == 1, "seed", rule, asked.seed)
        ranges.check_between("seed", asked.seed, 0, ranges.MAX_SEED)
    most = config.max_top_n_tokens
    rule = f"must be >= 0 and <= {most}" if most else "!= 0 is not allowed for this endpoint"
    ranges.require((asked.top_n_tokens or 0) <= most, "top_n_tokens", rule, asked.top_n_tokens)
    if not call.inputs:
        raise invalid("`inputs` cannot be empty", "inputs")
    ranges.check_truncate(config, asked.truncate)
