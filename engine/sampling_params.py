"""SamplingParams: how one sequence wants its tokens chosen; frozen, checked once.

Knows no dialect: the dialects translate their own words and defaults into these fields, and phrase
an InvalidParameter in them.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from engine.errors import InvalidParameter
from engine.grammar import Grammar

MAX_SEED = 2**64 - 1


class LogprobsMode(StrEnum):
    """Which distribution a reported logprob is taken from."""

    RAW = "raw"
    """The model's own, before temperature, penalties and masks (OpenAI)."""
    WARPED = "warped"
    """The one that was sampled from, after all of them (TGI)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose tokens, and when to end.

    Neutral values mean off. Raises InvalidParameter, which names the field.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    """End tokens and stop strings are not looked for before so many tokens are out; end tokens
    are not sampled before."""
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    """Keep the stop string in the text, and hold nothing back for it (TGI's native routes)."""
    length_first: bool = False
    """An end on the last allowed token counts as `length` (TGI's native routes)."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    """Drawn by the caller where the client gave none, so that the answer can name it."""

    repetition_penalty: float = 1.0
    """Over prompt and output: positive logits are divided by it, negative ones multiplied."""
    frequency_share_penalty: float = 0.0
    """TGI's frequency penalty: times the token's share of prompt and output."""
    frequency_penalty: float = 0.0
    """OpenAI's: times how often the token is in the output."""
    presence_penalty: float = 0.0
    """OpenAI's: once when the token is in the output at all."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs (token id, bias) added to the logits; ids below the vocabulary's size."""
    watermark: bool = False
    """Kirchenbauer's green list, https://arxiv.org/abs/2301.10226."""

    grammar: Grammar | None = None
    """What the output must be. Its end ends the sequence, whatever `ignore_eos` and
    `min_new_tokens` say: nothing else may follow."""

    adapter: str | None = None
    """Which of the loaded adapters is added to the model; None: none."""

    is_prefix_cached: bool = True
    """Take known blocks from the prefix cache; without, the whole prompt is computed."""

    logprobs: LogprobsMode | None = None
    num_top_logprobs: int = 0
    prompt_logprobs: bool = False

    def __post_init__(self) -> None:
        """Check every range; see the module's docstring for who phrases the message."""
        _at_least("max_new_tokens", self.max_new_tokens, 1)
        _at_least("min_new_tokens", self.min_new_tokens, 0)
        _above_zero("temperature", self.temperature)
        _above_zero("repetition_penalty", self.repetition_penalty)
        for field in ("frequency_share_penalty", "frequency_penalty", "presence_penalty"):
            _between(field, getattr(self, field), -2.0, 2.0)
        if self.top_k is not None:
            _at_least("top_k", self.top_k, 1)
        for field in ("top_p", "typical_p"):
            value = getattr(self, field)
            if value is not None and not 0.0 < value < 1.0:
                raise InvalidParameter(field, f"`{field}` must be > 0.0 and < 1.0. Given: {value}")
        if self.min_p is not None:
            _between("min_p", self.min_p, 0.0, 1.0)
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidParameter("seed", f"`seed` must be 0 to {MAX_SEED}. Given: {self.seed}")
        if any(not stop for stop in self.stop):
            raise InvalidParameter("stop", "`stop` must not contain an empty string")
        _at_least("num_top_logprobs", self.num_top_logprobs, 0)
        for token_id, bias in self.logit_bias:
            _at_least("logit_bias", token_id, 0)
            _between("logit_bias", bias, -100.0, 100.0)

    @property
    def has_penalty(self) -> bool:
        """Tell whether the choice depends on the tokens so far."""
        return (
            self.repetition_penalty != 1.0
            or self.frequency_share_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
        )


def _at_least(field: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise InvalidParameter(field, f"`{field}` must be >= {minimum}. Given: {value}")


def _above_zero(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise InvalidParameter(field, f"`{field}` must be strictly positive. Given: {value}")


def _between(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidParameter(field, f"`{field}` must be {low} to {high}. Given: {value}")
