import math

import numpy as np
import pytest

from engine.compute.draws import invert, uniforms


def splitmix(seed, position):
    """SplitMix64 in plain integers."""
    ones, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & ones
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ones
        return z ^ (z >> 31)

    stream = mix((seed + golden) & ones)
    return (mix((stream + (position + 1) * golden) & ones) >> 11) * 2.0**-53


def test_a_seed_gives_the_same_numbers_for_ever():
    seeds, positions = [0, 0, 1, 2**64 - 1], [1, 2, 1, 1_000_000]
    numbers = uniforms(seeds, positions).tolist()
    assert numbers == [splitmix(*pair) for pair in zip(seeds, positions, strict=True)]
    assert numbers[0] == 0.7012121095215252


def chi_square(counts, probs):
    """How many standard deviations the statistic lies above its mean."""
    expected = np.asarray(probs) * counts.sum()
    degrees = len(expected) - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("by", ["seed", "position", "both"])
def test_the_numbers_are_uniform(by):
    n = 100_000
    counter, fixed = range(n), [12345] * n
    numbers = {
        "seed": lambda: uniforms(counter, fixed),
        "position": lambda: uniforms(fixed, counter),
        "both": lambda: uniforms([i // 300 for i in counter], [i % 300 for i in counter]),
    }[by]()
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    cells = (numbers * 100).astype(int)
    assert abs(chi_square(np.bincount(cells, minlength=100), [0.01] * 100)) < 4
    pairs = (numbers[:-1] * 10).astype(int) * 10 + (numbers[1:] * 10).astype(int)
    assert abs(chi_square(np.bincount(pairs, minlength=100), [0.01] * 100)) < 4


def test_inverting_never_picks_a_weight_of_zero():
    weights = np.array([[0.0, 1.0, 0.0, 3.0, 0.0]] * 4)
    picks, inside = invert(weights, np.array([0.0, 0.25, 0.625, 1 - 2.0**-53]))
    assert picks.tolist() == [1, 3, 3, 3]
    assert inside.tolist()[:3] == [0.0, 0.0, 0.5]
    assert inside.max() < 1.0
