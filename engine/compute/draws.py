"""Draws: one uniform number per row and step, and the inverse CDF; knows no logits and no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BELOW_ONE = 1.0 - 2.0**-53


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> Floats:
    """Give each row its number in [0, 1), a function of its (seed, position) and nothing else.

    SplitMix64 (https://doi.org/10.1145/2714064.2660195) used as a counter: the seed is mixed once
    to give the stream, the position says which number of it.
    """
    streams = _mix(np.asarray(seeds, dtype=np.uint64) + _GOLDEN)
    steps = np.asarray(positions, dtype=np.uint64) + np.uint64(1)
    bits = _mix(streams + steps * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def invert(weights: Floats, numbers: Floats) -> tuple[Ints, Floats]:
    """Pick an entry of each row of `weights` [rows, entries] by its number in [0, 1).

    Also says how far inside the entry the number fell, in [0, 1), for a second level. Entries of
    weight 0 are never picked; each row needs one above 0.
    """
    mass = weights.cumsum(axis=1)
    target = numbers * mass[:, -1]
    # Strict: the first entry whose running mass exceeds the target has a weight above 0.
    picks = (mass <= target[:, None]).sum(axis=1)
    rows = np.arange(len(weights))
    end = mass[rows, picks]
    start = np.where(picks > 0, mass[rows, picks - 1], 0.0)
    return picks, np.minimum((target - start) / (end - start), _BELOW_ONE)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
