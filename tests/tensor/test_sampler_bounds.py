"""Rows at the edges: logits that are not finite, and parameters at their extremes."""

import math

import numpy as np
import pytest
import torch
from sampling import (
    EOS,
    RAW,
    WARPED,
    chi_square,
    distribution,
    mixed_rows,
    random_logits,
    row,
    same_distribution,
    sample,
)

from engine.batch import Sampled
from engine.compute.sampler import NOT_FINITE


@pytest.mark.parametrize("bad", ["one NaN", "NaN", "-inf", "inf", "one inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_is_not_finite_ends_alone(dtype, bad):
    num_rows, vocab_size = 45, 700
    logits, rows = random_logits(num_rows, vocab_size, 6, dtype), mixed_rows(num_rows)
    healthy = sample(logits, *rows)
    broken = logits.clone()
    for i in range(0, num_rows, 2):
        if bad.startswith("one"):
            broken[i, (i * 37) % vocab_size] = math.nan if "NaN" in bad else math.inf
        else:
            broken[i] = float(bad)
    results = sample(broken, *rows)
    assert results[::2] == [NOT_FINITE] * 23
    assert results[1::2] == healthy[1::2]


def test_a_row_whose_every_token_is_masked_ends_alone():
    logits = random_logits(2, 3, seed=1)
    results = sample(logits, row([1], 1, min_new_tokens=1), row([1], 1), eos_token_ids=(0, 1, 2))
    assert results == [NOT_FINITE, Sampled(int(logits[1].argmax()))]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_mask_does_not_hide_that_a_row_is_not_finite(bad):
    logits = random_logits(1, 20)
    logits[0, EOS[0]] = bad
    assert sample(logits, row(min_new_tokens=20)) == [NOT_FINITE]


def test_a_penalty_that_overflows_ends_its_row_alone():
    logits = random_logits(2, 10, seed=1).abs() + 1.0
    overflowing = row([1], 1, repetition_penalty=1e-45, logprobs=RAW)
    results = sample(logits, overflowing, row([1], 1))
    assert results == [NOT_FINITE, Sampled(int(logits[1].argmax()))]


def test_excluded_logits_are_never_drawn_or_listed():
    logits = random_logits(60, 200, seed=8)
    logits[:, ::2] = -torch.inf
    rows = [
        row(seed=seed, do_sample=True, logprobs=mode, num_top_logprobs=200, **cut)
        for seed in range(10)
        for mode in (RAW, WARPED)
        for cut in ({}, {"top_p": 0.9}, {"temperature": 50.0, "top_k": 150})
    ]
    for one, result in zip(rows, sample(logits, *rows), strict=True):
        assert result.token_id % 2 == 1
        assert math.isfinite(result.logprob)
        assert all(i % 2 == 1 and math.isfinite(value) for i, value in result.top)
        if not one.params.top_p:
            assert len(result.top) == 100


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-6])
@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}, {"typical_p": 0.9}])
def test_a_tiny_temperature_is_greedy(temperature, cut):
    logits = random_logits(4, 1000)
    rows = [row(do_sample=True, temperature=temperature, seed=i, **cut) for i in range(4)]
    assert [r.token_id for r in sample(logits, *rows)] == logits.argmax(-1).tolist()


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}])
def test_large_logits_lose_nothing_at_a_low_temperature(cut):
    logits = random_logits(3, 400, scale=0.05) + 500.0
    fields = {"do_sample": True, "temperature": 0.01, "logprobs": WARPED, "num_top_logprobs": 400}
    rows = [row(**fields, **cut) for _ in logits]
    for own, one, result in zip(logits, rows, sample(logits, *rows), strict=True):
        assert same_distribution(result, distribution(own, one))


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}])
def test_a_huge_temperature_is_uniform(cut):
    logits = random_logits(1, 100).expand(2000, -1)
    rows = [row(do_sample=True, temperature=1e300, seed=i, **cut) for i in range(2000)]
    counts = np.bincount([r.token_id for r in sample(logits, *rows)], minlength=100)
    num_kept = 90 if cut else 100
    assert chi_square(np.sort(counts)[-num_kept:], [1 / num_kept] * num_kept) < 4


def test_end_tokens_are_masked_before_min_new_tokens_only():
    logits = torch.zeros(4, 10)
    logits[:, list(EOS)] = torch.tensor([9.0, 8.0])
    logits[:, 7] = 1.0
    rows = [
        row([1, 1], 1, min_new_tokens=2),
        row([1, 1, 1], 1, min_new_tokens=2),
        row([1, 1], 1, min_new_tokens=2, do_sample=True, top_k=1),
        row([1, 1], 1, ignore_eos=True),
    ]
    assert [result.token_id for result in sample(logits, *rows)] == [7, 2, 7, 2]


@pytest.mark.parametrize("beyond", [100.0, math.inf, math.nan])
@pytest.mark.parametrize("width", [1001, 1024, 1100])
def test_columns_beyond_the_vocabulary_count_for_nothing(width, beyond):
    rows = mixed_rows(45)
    logits = random_logits(45, 1000)
    padded = torch.full((45, width), beyond)
    padded[:, :1000] = logits
    assert sample(padded, *rows, vocab_size=1000) == sample(logits, *rows)


def test_logit_bias_forbids_and_forces():
    logits = random_logits(30, 500, seed=2)
    best = logits.argmax(-1).tolist()
    forbid = [row(logit_bias=((i, -100.0),), do_sample=True, seed=i) for i in best]
    force = [row(logit_bias=((3, 100.0),), do_sample=True, seed=i) for i in best]
    assert all(r.token_id != i for r, i in zip(sample(logits, *forbid), best, strict=True))
    assert all(r.token_id == 3 for r in sample(logits, *force))


@pytest.mark.parametrize("fields", [{"repetition_penalty": 2.0}, {"presence_penalty": 2.0}])
def test_ids_in_the_prompt_that_the_head_cannot_say_are_no_error(fields):
    logits = random_logits(1, 20)
    with_unknown = row([3, 25, 10**6, 4], 1, **fields)
    assert sample(logits, with_unknown) == sample(logits, row([3, 4, 4], 1, **fields))


def test_no_output_yet_is_no_error():
    logits = random_logits(1, 20)
    fields = {"frequency_penalty": 1.0, "presence_penalty": 1.0}
    assert sample(logits, row([3], 1, **fields)) == [Sampled(int(logits.argmax()))]


def test_watermarked_tokens_are_mostly_green():
    vocab_size, n = 1000, 400
    rows = [row([1, i], 1, do_sample=True, watermark=True, seed=i) for i in range(n)]
    results = sample(torch.zeros(n, vocab_size), *rows, watermark_gamma=0.25, watermark_delta=4.0)
    num_green = 0
    for i, result in enumerate(results):
        generator = torch.Generator().manual_seed(15485863 * i)
        green = torch.randperm(vocab_size, generator=generator)[:250]
        num_green += result.token_id in green
    share = 0.25 * math.exp(4) / (0.25 * math.exp(4) + 0.75)  # 0.948 of a flat distribution
    assert abs(num_green / n - share) < 0.05


def test_logits_are_only_read():
    logits = random_logits(45, 500, dtype=torch.float32)
    before = logits.clone()
    sample(logits, *mixed_rows(45))
    assert torch.equal(logits, before)


def test_no_rows_give_no_tokens():
    assert sample(torch.empty(0, 100)) == []


def test_a_strided_view_of_the_logits_will_do():
    logits = random_logits(90, 640)
    rows = mixed_rows(45)
    assert sample(logits[::2], *rows) == sample(logits[::2].contiguous(), *rows)
