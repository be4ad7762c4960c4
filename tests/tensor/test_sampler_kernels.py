"""Rows that are plainly greedy are left to kernels, which choose the same."""

import math

import numpy as np
import pytest
import torch
from sampling import BIG, RAW, WARPED, random_logits, row, sample
from tiny_models import native_kernels

from engine.compute.kernels.reference import Reference
from engine.compute.sampler import NOT_FINITE


@pytest.fixture(params=["native", "reference"])
def kernels(request):
    if request.param == "reference":
        return Reference(torch.float32)
    return native_kernels()


@pytest.mark.parametrize("vocab_size", [1, 15, 64, 1000, BIG])
@pytest.mark.parametrize("mode", [None, RAW, WARPED])
def test_kernels_choose_what_is_chosen_without_them(kernels, vocab_size, mode):
    logits = random_logits(5, vocab_size)
    logits[1, vocab_size // 2 :] = logits[1, vocab_size // 3] = 50.0
    rows = [row(logprobs=mode) for _ in logits]
    expected = sample(logits, *rows)
    got = sample(logits, *rows, has_tops=True, kernels=kernels)
    assert [one.token_id for one in got] == [one.token_id for one in expected]
    if mode is None:
        assert [one.logprob for one in got] == [None] * 5
    else:
        ours, theirs = ([one.logprob for one in each] for each in (got, expected))
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_kernels_tell_rows_without_a_finite_maximum(kernels):
    logits = random_logits(6, 200)
    logits[0, 199], logits[1, 3], logits[2] = math.nan, math.inf, -math.inf
    logits[3, 5:] = -math.inf
    got = sample(logits, *[row(logprobs=RAW) for _ in logits], has_tops=True, kernels=kernels)
    assert [one == NOT_FINITE for one in got] == [True] * 3 + [False] * 3


def test_a_greedy_row_gets_the_same_bits_from_kernels_beside_any_others(kernels):
    logits = random_logits(4, BIG)
    greedy, others = row(logprobs=RAW), [row(do_sample=True), row(repetition_penalty=1.2)]
    alone = sample(logits[2:3], greedy, has_tops=True, kernels=kernels)[0]
    together = sample(logits, *others, greedy, row(), has_tops=True, kernels=kernels)
    assert together[2] == alone
    assert together[:2] == sample(logits[:2], *others)
    assert together[3].logprob is None


@pytest.mark.parametrize("vocab_size", [31, 64, 1000])
def test_what_the_head_saw_of_its_logits_changes_nothing(vocab_size):
    logits = random_logits(6, vocab_size)
    logits[5, vocab_size - 1] = math.nan
    rows = [
        row(),
        row(do_sample=True, seed=3, logprobs=RAW, num_top_logprobs=3),
        row(do_sample=True, top_k=5),
        row(do_sample=True, top_p=0.7),
        row(repetition_penalty=1.4),
        row(),
    ]
    assert sample(logits, *rows, has_tops=True) == sample(logits, *rows)
