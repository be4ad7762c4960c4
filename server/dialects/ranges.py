"""Range checks that every dialect shares; each raises a Problem in TGI's words.

A message names the field as the client wrote it, the limit, and the value given. The wording is
TGI's, with the value added where TGI leaves it out:
https://github.com/huggingface/text-generation-inference/blob/db931fcf/router/src/validation.rs
"""

import secrets
from collections.abc import Iterable, Sequence

from server.dialects.call import DialectConfig
from server.errors import Problem, invalid

MAX_SCALE = 1000.0
"""Of temperature and repetition penalty: far above any use, and safe to compute with."""
MIN_SCALE = 1e-4
"""Smaller ones overflow float32 logits and would choose the same tokens."""
MAX_SEED = 2**64 - 1
MAX_BIAS = 100.0
_MAX_SHOWN = 64


def require(is_met: bool, field: str, rule: str, given: object) -> None:
    """Raise a Problem unless the rule is met."""
    if not is_met:
        raise invalid(f"`{field}` {rule}. Given: {shown(given)}", field)


def shown(value: object) -> str:
    """Print a client's value, cut to a length that suits a message."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def check_scale(field: str, value: float | None) -> None:
    """Check a temperature or a repetition penalty."""
    if value is not None:
        require(value > 0.0, field, "must be strictly positive", value)
        require(value <= MAX_SCALE, field, f"must be <= {MAX_SCALE}", value)


def scale(value: float | None) -> float:
    """Return a checked scale that is safe to divide by; absent means 1."""
    return 1.0 if value is None else max(value, MIN_SCALE)


def check_between(field: str, value: float | None, low: float, high: float) -> None:
    """Check a closed range."""
    if value is not None:
        require(low <= value <= high, field, f"must be >= {low} and <= {high}", value)


def check_share(field: str, value: float | None) -> None:
    """Check an open share of one, such as a native `top_p`."""
    if value is not None:
        require(0.0 < value < 1.0, field, "must be > 0.0 and < 1.0", value)


def check_positive(field: str, value: int | None) -> None:
    """Check a count of at least one."""
    if value is not None:
        require(value > 0, field, "must be strictly positive", value)


def check_stop(config: DialectConfig, stop: Sequence[str], field: str = "stop") -> None:
    """Check how many stop strings there are, and that none is empty."""
    most = config.max_stop_sequences
    require(len(stop) <= most, field, f"supports up to {most} stop sequences", len(stop))
    if "" in stop:
        raise invalid(f"`{field}` must not contain an empty string", field)


def check_truncate(config: DialectConfig, value: int | None) -> None:
    """Check how many prompt tokens are to be kept; TGI says "less than" and means "at most"."""
    if value is not None:
        most = config.max_input_tokens
        rule = f"must be strictly positive and less than {most}"
        require(0 < value <= most, "truncate", rule, value)


def check_ids(config: DialectConfig, field: str, token_ids: Sequence[int]) -> None:
    """Check that every id is in the vocabulary; there may be hundreds of thousands."""
    for worst in (min(token_ids, default=0), max(token_ids, default=0)):
        rule = f"must hold token ids >= 0 and < {config.vocab_size}"
        require(0 <= worst < config.vocab_size, field, rule, worst)


def check_depth(field: str, value: object, most: int) -> None:
    """Check how deep objects and lists are nested within one another."""
    level, depth = [value], -1
    while level and depth <= most:
        level = [child for each in level for child in _children(each)]
        depth += 1
    require(depth <= most, field, f"must be nested at most {most} deep", f"more than {most}")


def draw_seed() -> int:
    """Draw the seed of a sequence whose client named none."""
    return secrets.randbits(64)


def unsupported(field: str, what: str) -> Problem:
    """Refuse by name what this version cannot do."""
    return invalid(f"`{field}`: {what} are not supported by this version", field)


def _children(value: object) -> Iterable[object]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
    return ()
