"""Log probabilities beside the chosen tokens, and those of prompts."""

import math

import numpy as np
import pytest
import torch
from sampling import RAW, SAMPLING, WARPED, make_sampler, mixed_rows, random_logits, row, sample

from engine.batch import Sampled


def test_logprobs_are_given_only_where_asked():
    logits = random_logits(4, 100)
    rows = [row(num_top_logprobs=3), row(do_sample=True), row(logprobs=RAW), row(logprobs=WARPED)]
    results = sample(logits, *rows)
    assert [result.logprob is None for result in results] == [True, True, False, False]
    assert [result.top for result in results] == [()] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_raw_logprobs_are_the_models_own_whatever_the_parameters(dtype):
    num_rows, vocab_size = 44, 400
    logits = random_logits(num_rows, vocab_size, 9, dtype)
    rows = mixed_rows(num_rows, {"logprobs": RAW, "num_top_logprobs": 4})
    own = logits.double().log_softmax(-1)
    for expected, result in zip(own, sample(logits, *rows), strict=True):
        assert result.logprob == pytest.approx(expected[result.token_id].item(), abs=2e-5)
        best = expected.sort(descending=True, stable=True)
        assert [i for i, _ in result.top][:4] == best.indices[:4].tolist()
        assert [value for _, value in result.top][:4] == pytest.approx(
            best.values[:4].tolist(), abs=2e-5
        )


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}])
def test_one_candidate_left_has_logprob_zero(cut):
    logits = random_logits(5, 3000, seed=4)
    rows = [
        row(do_sample=True, seed=i, logprobs=WARPED, num_top_logprobs=5, **cut) for i in range(5)
    ]
    for best, result in zip(logits.argmax(-1).tolist(), sample(logits, *rows), strict=True):
        assert result == Sampled(best, 0.0, ((best, 0.0),))


@pytest.mark.parametrize("mode", [RAW, WARPED])
@pytest.mark.parametrize("warper", ["none", "top_k", "greedy"])
def test_top_lists_the_equals_of_its_last_up_to_eight(mode, warper):
    logits = torch.zeros(3, 50)
    logits[:, 40] = 2.0
    logits[0, [7, 30, 31]] = 1.0
    logits[1, 5:25] = 1.0
    logits[2, [9, 10]] = 1.0
    fields = {} if warper == "greedy" else {"do_sample": True, **SAMPLING[warper]}
    rows = [row(logprobs=mode, num_top_logprobs=count, **fields) for count in (2, 2, 3)]
    tops = [[i for i, _ in result.top] for result in sample(logits, *rows)]
    assert tops == [[40, 7, 30, 31], [40, *range(5, 14)], [40, 9, 10]]


@pytest.mark.parametrize("vocab_size", [100, 5000])
def test_prompt_logprobs_are_the_log_softmax_of_the_next_ids(vocab_size):
    logits = random_logits(700, vocab_size + 13, dtype=torch.bfloat16)
    logits[:, vocab_size:] = 50.0
    logits[3, 4] = math.nan
    next_ids = np.random.default_rng(0).integers(0, vocab_size, 700).tolist()
    next_ids[600] = vocab_size + 100
    result = make_sampler(vocab_size).prompt_logprobs(logits, next_ids)
    assert result[600] == -math.inf
    result[600], next_ids[600] = 0.0, 0
    own = logits[:, :vocab_size].double().log_softmax(-1)
    expected = own[range(700), next_ids]
    expected[600] = 0.0
    assert result == pytest.approx(expected.tolist(), abs=2e-5, nan_ok=True)
    assert [math.isnan(value) for value in result].count(True) == 1
    assert make_sampler(vocab_size).prompt_logprobs(logits[:0], []) == []
