"""Cuts: which candidates top-k, top-p, typical-p and min-p leave; knows no logits and no torch.

Candidates of a row come best first, ties by lower id, so that a cut by rank or by mass is a prefix
and the same whether a row was given 64 candidates or its whole vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.compute.draws import Floats, Ints
from engine.sampling_params import SamplingParams

Mask = NDArray[np.bool_]

_MAX_RANK = np.iinfo(np.int64).max
_TEMPERATURES = (1e-30, 1e30)
"""Beyond these nothing changes, but float32 would make 0 / 0 or inf / inf of them."""


def temperatures(params: Sequence[SamplingParams]) -> Floats:
    """Collect the rows' temperatures, kept to what float32 can divide by."""
    return np.clip([p.temperature for p in params], *_TEMPERATURES)


def is_cut(params: SamplingParams) -> bool:
    """Tell whether the draw is from less than the whole vocabulary."""
    return bool(params.top_k or params.top_p or params.typical_p or params.min_p)


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """The cuts of some rows, one array entry per row; `full_mass` is asked for by top-p alone."""

    temperature: Floats
    top_k: Ints
    top_p: Floats
    typical_p: Floats
    min_p: Floats
    full_mass: Floats
    """Sum of exp((value - best value) / temperature) over the row's whole vocabulary."""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], full_mass: Floats) -> "Cuts":
        """Write "off" as a cut that nothing fails."""
        return cls(
            temperatures(params),
            np.array([min(p.top_k or _MAX_RANK, _MAX_RANK) for p in params], dtype=np.int64),
            np.array([p.top_p or np.inf for p in params]),
            np.array([p.typical_p or np.inf for p in params]),
            np.array([p.min_p or 0.0 for p in params]),
            full_mass,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Remainder:
    """What the cuts left of some rows' candidates, [rows, candidates]; not normalised."""

    logs: Floats
    """(value - best value) / temperature of what is left, -inf elsewhere."""
    weights: Floats
    """exp(logs)."""
    is_settled: Mask
    """[rows]: no candidate beyond the given ones could be left; if not, ask with more."""


def apply(cuts: Cuts, values: NDArray[np.float32], *, is_whole: bool) -> Remainder:
    """Cut each row of `values` [rows, candidates], best first; at least one stays.

    In TGI's order: temperature, top-k (ties with the k-th stay), top-p of what is left, typical-p
    of what is left, and then min-p. `is_whole`: the candidates are the row's whole vocabulary.
    """
    logs = (values.astype(np.float64) - values[:, :1]) / cuts.temperature[:, None]
    weights = np.exp(logs)
    in_top_k = np.isfinite(logs) & _in_top_k(cuts, values)
    in_top_p = in_top_k & _in_top_p(cuts, np.where(in_top_k, weights, 0.0))
    is_kept = in_top_p.copy()
    has_typical = cuts.typical_p < np.inf
    for row in np.flatnonzero(has_typical):
        is_kept[row] = _typical(logs[row], in_top_p[row], cuts.typical_p[row])
    best = np.where(is_kept, weights, 0.0).max(axis=1, keepdims=True)
    is_kept &= weights >= cuts.min_p[:, None] * best
    # What top-p or typical-p measures must be there to its end; else the last cut decides.
    is_open = np.where(has_typical, in_top_p[:, -1], is_kept[:, -1])
    is_open = np.where(cuts.top_k < _MAX_RANK, in_top_k[:, -1], is_open)
    logs = np.where(is_kept, logs, -np.inf)
    return Remainder(logs, np.where(is_kept, weights, 0.0), is_whole | ~is_open)


def _in_top_k(cuts: Cuts, values: NDArray[np.float32]) -> Mask:
    rank = np.minimum(cuts.top_k, values.shape[1]) - 1
    return values >= np.take_along_axis(values, rank[:, None], axis=1)


def _in_top_p(cuts: Cuts, weights: Floats) -> Mask:
    if np.isinf(cuts.top_p).all():
        return np.full_like(weights, True, dtype=np.bool_)
    mass = weights.cumsum(axis=1)  # a running sum: trailing zeros do not change its end
    total = np.where(cuts.top_k < _MAX_RANK, mass[:, -1], cuts.full_mass)
    ahead = np.concatenate([np.zeros((len(mass), 1)), mass[:, :-1]], axis=1)
    return ahead < (cuts.top_p * total)[:, None]


def _typical(logs: Floats, is_kept: Mask, mass: float) -> Mask:
    """Keep one row's candidates whose surprise is nearest to the expected one (arXiv 2202.00666).

    As in transformers: nearest first until their mass reaches `mass`, ties with the last stay.
    """
    base = np.flatnonzero(is_kept)
    probs = np.exp(logs[base])
    total = probs.sum()
    surprise = np.log(total) - logs[base]
    probs /= total
    distance = np.abs(surprise - (surprise * probs).sum())
    order = distance.argsort(kind="stable")
    last = min(int((probs[order].cumsum() < mass).sum()), len(order) - 1)
    result = np.zeros_like(is_kept)
    result[base[distance <= distance[order[last]]]] = True
    return result
