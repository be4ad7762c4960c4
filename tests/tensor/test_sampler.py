"""What is drawn: from the right distribution, by the row alone, whatever else is in the batch."""

import math

import numpy as np
import pytest
import torch
from sampling import (
    BIG,
    HISTORY,
    PENALTIES,
    RAW,
    SAMPLING,
    WARPED,
    WARPERS,
    chi_square,
    distribution,
    expected_draw,
    given,
    make_sampler,
    mixed_rows,
    penalised,
    random_logits,
    row,
    same_distribution,
    sample,
)
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from engine.batch import Sampled
from engine.compute import sampler as sampler_module


@pytest.mark.parametrize("warper", SAMPLING)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_sampled_row_is_drawn_from_the_reference_distribution(penalty, warper):
    vocab_size = 1100
    fields = {**PENALTIES[penalty], **SAMPLING[warper], "do_sample": True}
    fields |= {"logprobs": WARPED, "num_top_logprobs": vocab_size}
    logits = random_logits(6, vocab_size, seed=len(penalty) * 100 + len(warper))
    rows = [row(seed=seed, **fields) for seed in range(6)]
    for own, one, result in zip(logits, rows, sample(logits, *rows), strict=True):
        assert same_distribution(result, distribution(own, one))
        assert result.token_id == expected_draw(own, one)
        assert result.logprob == pytest.approx(dict(result.top)[result.token_id], abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_greedy_row_takes_the_best_of_the_penalised_logits(penalty):
    logits = random_logits(20, 300, seed=3, scale=1.0)
    rows = [row(**PENALTIES[penalty], logprobs=WARPED, num_top_logprobs=300) for _ in logits]
    for own, one, result in zip(logits, rows, sample(logits, *rows), strict=True):
        assert result.token_id == int(penalised(own, one).argmax())
        assert same_distribution(result, distribution(own, one))


TRANSFORMERS = {
    "temperature": lambda p: TemperatureLogitsWarper(p["temperature"]),
    "top_k": lambda p: TopKLogitsWarper(p["top_k"]),
    "top_p": lambda p: TopPLogitsWarper(p["top_p"]),
    "typical_p": lambda p: TypicalLogitsWarper(p["typical_p"]),
    "min_p": lambda p: MinPLogitsWarper(p["min_p"]),
}


@pytest.mark.parametrize("penalty", [1.0, 1.4])
@pytest.mark.parametrize("warper", WARPERS)
def test_the_kept_tokens_are_those_of_transformers(warper, penalty):
    vocab_size, fields = 900, WARPERS[warper]
    chain = LogitsProcessorList(
        [make(fields) for name, make in TRANSFORMERS.items() if name in fields]
    )
    if penalty != 1.0:
        chain.insert(0, RepetitionPenaltyLogitsProcessor(penalty))
    logits = random_logits(8, vocab_size, seed=len(warper))
    expected = chain(torch.tensor([HISTORY] * 8), logits.double()).log_softmax(-1)
    fields = {**fields, "repetition_penalty": penalty, "do_sample": True}
    rows = [row(**fields, logprobs=WARPED, num_top_logprobs=vocab_size) for _ in range(8)]
    for theirs, result in zip(expected.tolist(), sample(logits, *rows), strict=True):
        kept = {i: logprob for i, logprob in enumerate(theirs) if logprob > -math.inf}
        assert same_distribution(result, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab_size", [1, 2, 63, 64, 65, 127, 1000, 4096, 50_257])
def test_greedy_is_argmax_with_the_lowest_id_among_equals(vocab_size, dtype):
    for seed, scale in enumerate((3.0, 0.01, 0.0)):
        logits = random_logits(5, vocab_size, seed, dtype, scale)
        logits = (logits * 4).round() / 4  # equals everywhere, also -0.0 beside 0.0
        results = sample(logits, *[row() for _ in logits])
        assert results == [Sampled(int(i)) for i in logits.float().argmax(-1)]


def test_candidates_and_the_whole_vocabulary_give_the_same_results(monkeypatch):
    fields = {"do_sample": True, "logprobs": WARPED, "num_top_logprobs": 9}
    cuts = [WARPERS[name] for name in WARPERS if "temperature" not in name]
    rows = [row(**cut, **fields, seed=seed) for cut in cuts for seed in range(8)]
    for dtype in (torch.float32, torch.bfloat16):
        logits = random_logits(len(rows), 3000, seed=5, dtype=dtype)
        by_candidates = sample(logits, *rows)
        with monkeypatch.context() as patch:
            patch.setattr(sampler_module, "_SIZES", ())
            assert sample(logits, *rows) == by_candidates


@pytest.mark.parametrize("top_p", [0.5, 0.999])
@pytest.mark.parametrize("num_equal", [40, 64, 65, 500, 2000])
def test_equals_of_the_last_of_top_k_stay_however_many(num_equal, top_p):
    logits = torch.full((1, 2000), -3.0)
    logits[0, -num_equal:] = 1.0
    one = row(do_sample=True, top_k=30, top_p=top_p, logprobs=WARPED, num_top_logprobs=1)
    (result,) = sample(logits, one)
    assert result.token_id >= 2000 - num_equal
    kept = math.ceil(top_p * num_equal)
    assert result.logprob == pytest.approx(-math.log(kept), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [130, 4096, 50_257])
def test_a_row_gets_the_same_alone_and_in_any_batch_in_any_order(vocab_size, dtype):
    num_rows = 45
    logits, rows = random_logits(num_rows, vocab_size, 11, dtype), mixed_rows(num_rows)
    sampler = make_sampler(vocab_size)
    together = sampler.sample(given(logits), rows)
    alone = [sampler.sample(given(logits[i : i + 1]), rows[i : i + 1])[0] for i in range(num_rows)]
    assert together == alone  # to the last bit of every logprob
    order = np.random.default_rng(0).permutation(num_rows)[: num_rows // 2]
    shuffled = sampler.sample(given(logits[order]), [rows[i] for i in order])
    assert shuffled == [together[i] for i in order]


def test_a_row_gets_the_same_alone_and_in_a_batch_at_151936_tokens():
    rows = [
        row(seed=8, do_sample=True, temperature=0.8, logprobs=WARPED, num_top_logprobs=2),
        row(seed=9, do_sample=True, top_p=0.9, logprobs=WARPED),
        row(logprobs=RAW),
        row(seed=10, do_sample=True, top_p=0.99, temperature=2.0, repetition_penalty=1.2),
        row(seed=11, do_sample=True, typical_p=0.9),
    ]
    logits = random_logits(len(rows), BIG, 4, torch.bfloat16, scale=2.0)
    sampler = make_sampler(BIG)
    together = sampler.sample(given(logits), rows)
    assert together == [sampler.sample(given(logits[i : i + 1]), [rows[i]])[0] for i in range(5)]
    assert together[2] == Sampled(
        int(logits[2].float().argmax()),
        pytest.approx(logits[2].double().log_softmax(-1).max().item(), abs=1e-5),
    )


def test_rows_read_in_several_pieces_keep_their_own_temperatures():
    temperatures = [0.5 + i / 20 for i in range(60)]
    logits = random_logits(60, 50_257, seed=12) + torch.arange(60.0)[:, None] * 3000
    rows = [row(do_sample=True, temperature=t, logprobs=WARPED) for t in temperatures]
    for own, t, result in zip(logits, temperatures, sample(logits, *rows), strict=True):
        expected = (own.double() / t).log_softmax(-1)[result.token_id].item()
        assert result.logprob == pytest.approx(expected, abs=2e-5)


def test_the_number_depends_on_seed_and_length_only():
    logits = random_logits(1, 500, seed=1).expand(3, -1)
    one, same, other = (
        row(do_sample=True, seed=5),
        row(token_ids=HISTORY[::-1], do_sample=True, seed=5),
        row(token_ids=[*HISTORY, 1], do_sample=True, seed=5),
    )
    results = sample(logits, one, same, other)
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("warper", ["none", "temperature", "top_k", "top_p", "typical_p", "min_p"])
def test_samples_follow_their_probabilities(warper):
    vocab_size, n = 150, 6000
    fields = {**SAMPLING[warper], "do_sample": True}
    logits = random_logits(1, vocab_size, seed=2, scale=1.0)
    rows = [row(seed=seed, **fields) for seed in range(n)]
    results = sample(logits.expand(n, -1), *rows)
    probs = {i: math.exp(value) for i, value in distribution(logits[0], rows[0]).items()}
    counts = np.bincount([result.token_id for result in results], minlength=vocab_size)
    assert counts[[i for i in range(vocab_size) if i not in probs]].sum() == 0
    ids = [i for i, prob in probs.items() if prob * n >= 5]
    rest = n - counts[ids].sum()
    cells = np.append(counts[ids], rest)
    expected = np.append([probs[i] for i in ids], 0.0)
    expected[-1] = 1.0 - expected.sum()
    if expected[-1] * n < 1:
        cells, expected = cells[:-1], expected[:-1] / expected[:-1].sum()
    assert chi_square(cells, expected) < 4
