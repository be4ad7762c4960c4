import math

import numpy as np
import pytest
import torch
from tiny_models import native_kernels
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
from engine.compute.draws import uniforms
from engine.compute.kernels.reference import Reference
from engine.compute.logits import PANEL, Logits
from engine.compute.sampler import NOT_FINITE, Sampler, SamplerRow
from engine.sampling_params import LogprobsMode, SamplingParams

CPU = torch.device("cpu")
EOS = (2, 5)
GAMMA, DELTA = 0.5, 2.0
RAW, WARPED = LogprobsMode.RAW, LogprobsMode.WARPED
BIG = 151_936
HISTORY = [7, 3, 3, 9, 1, 7, 7, 0, 4, 3]
NUM_PROMPT = 4


def params(**fields):
    return SamplingParams(**{"max_new_tokens": 1000, **fields})


def row(token_ids=HISTORY, num_prompt_tokens=NUM_PROMPT, **fields):
    tokens = np.array(token_ids, dtype=np.int64)
    return SamplerRow(params(**fields), tokens, len(tokens), num_prompt_tokens)


def make_sampler(vocab_size, **fields):
    values = {"eos_token_ids": EOS, "watermark_gamma": GAMMA, "watermark_delta": DELTA, **fields}
    return Sampler(vocab_size, device=CPU, **values)


def random_logits(num_rows, width, seed=0, dtype=torch.float32, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, width, generator=generator) * scale).to(dtype)


def given(logits, has_tops=False):
    """Make logits as a head gives them."""
    if not has_tops:
        return Logits(logits)
    missing = -logits.shape[1] % PANEL
    panels = torch.nn.functional.pad(logits, (0, missing), value=-math.inf)
    return Logits(logits, panels.unflatten(1, (-1, PANEL)).amax(-1))


def sample(logits, *rows, has_tops=False, **fields):
    sampler = make_sampler(fields.pop("vocab_size", logits.shape[1]), **fields)
    return sampler.sample(given(logits, has_tops), rows)


# The reference: one row, in double precision, by whole softmax and whole sort.


def penalised(logits, one):
    scores, p, ids = logits.double().clone(), one.params, one.token_ids.tolist()
    output = ids[one.num_prompt_tokens :]
    for i in set(ids):
        factor = p.repetition_penalty if scores[i] < 0 else 1.0 / p.repetition_penalty
        scores[i] = scores[i] * factor - p.frequency_share_penalty * ids.count(i) / len(ids)
    for i in set(output):
        scores[i] -= p.frequency_penalty * output.count(i) + p.presence_penalty
    for i, bias in p.logit_bias:
        scores[i] += bias
    if p.watermark:
        generator = torch.Generator().manual_seed(15485863 * ids[-1])
        order = torch.randperm(len(scores), generator=generator)
        scores[order[: int(len(scores) * GAMMA)]] += DELTA
    if len(output) < p.min_new_tokens:
        scores[list(EOS)] = -math.inf
    return scores


def warped(scores, p):
    scores = scores / p.temperature
    if p.top_k:
        kth = scores.sort(descending=True).values[min(p.top_k, len(scores)) - 1]
        scores = scores.masked_fill(scores < kth, -math.inf)
    if p.top_p:
        order = scores.sort(descending=True, stable=True).indices
        ahead = 0.0
        for i, prob in zip(order.tolist(), scores.softmax(0)[order].tolist(), strict=True):
            if ahead >= p.top_p:
                scores[i] = -math.inf
            ahead += prob
    if p.typical_p:
        logs = scores.log_softmax(0)
        entropy = -(logs.exp() * logs).nansum()
        distance = (-logs - entropy).abs()
        order = distance.sort(stable=True).indices
        num_before = int((logs.exp()[order].cumsum(0) < p.typical_p).sum())
        limit = distance[order[min(num_before, len(order) - 1)]]
        scores = scores.masked_fill(distance > limit, -math.inf)
    if p.min_p:
        probs = scores.softmax(0)
        scores = scores.masked_fill(probs < p.min_p * probs.max(), -math.inf)
    return scores


def distribution(logits, one):
    """Id -> logprob of what the row is drawn from."""
    scores = penalised(logits, one)
    if one.params.do_sample:
        scores = warped(scores, one.params)
    logprobs = scores.log_softmax(0).tolist()
    return {i: logprob for i, logprob in enumerate(logprobs) if logprob > -math.inf}


def expected_draw(logits, one):
    """The id that the row's number falls on: best first behind a cut, else by id."""
    logprobs = distribution(logits, one)
    p, scores = one.params, penalised(logits, one)
    if p.top_k or p.top_p or p.typical_p or p.min_p:
        order = sorted(logprobs, key=lambda i: (-scores[i].item(), i))
    else:
        order = sorted(logprobs)
    target = uniforms([p.seed], [len(one.token_ids)])[0]
    for i in order:
        target -= math.exp(logprobs[i])
        if target < 0:
            break
    return i


def same_distribution(result, expected, tolerance=2e-5):
    """Whether a result that lists its whole distribution agrees with id -> logprob."""
    listed = dict(result.top)
    return listed.keys() == expected.keys() and all(
        math.isclose(listed[i], expected[i], rel_tol=tolerance, abs_tol=tolerance) for i in listed
    )


PENALTIES = {
    "none": {},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "repetition_penalty_below_one": {"repetition_penalty": 0.6},
    "frequency_share_penalty": {"frequency_share_penalty": 1.9},
    "frequency_penalty": {"frequency_penalty": 1.3},
    "negative_frequency_penalty": {"frequency_penalty": -1.3},
    "presence_penalty": {"presence_penalty": 1.8},
    "logit_bias": {"logit_bias": ((3, 2.5), (8, -1.0), (0, 0.25))},
    "watermark": {"watermark": True},
    "min_new_tokens": {"min_new_tokens": 20},
    "all_penalties": {
        "repetition_penalty": 1.3,
        "frequency_share_penalty": -0.7,
        "frequency_penalty": 0.4,
        "presence_penalty": -0.9,
        "logit_bias": ((1, 1.5),),
        "watermark": True,
        "min_new_tokens": 20,
    },
}
WARPERS = {
    "temperature": {"temperature": 0.6},
    "high_temperature": {"temperature": 3.0},
    "top_k": {"top_k": 5},
    "top_k_1": {"top_k": 1},
    "top_k_many": {"top_k": 600},
    "top_k_over_vocabulary": {"top_k": 10**30},
    "top_p": {"top_p": 0.8},
    "top_p_flat": {"top_p": 0.97, "temperature": 9.0},
    "typical_p": {"typical_p": 0.7},
    "min_p": {"min_p": 0.1},
    "min_p_flat": {"min_p": 0.01, "temperature": 5.0},
    "top_k_top_p": {"top_k": 20, "top_p": 0.6, "temperature": 1.5},
    "top_p_typical_p": {"top_p": 0.9, "typical_p": 0.5, "temperature": 1.7},
    "all_warpers": {
        "temperature": 1.4,
        "top_k": 40,
        "top_p": 0.95,
        "typical_p": 0.9,
        "min_p": 0.02,
    },
}
SAMPLING = {"none": {}, **WARPERS}


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


# Two levels


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


# Seeds


def mixed_rows(num_rows, *shown):
    """Rows of every kind, each with its own seed."""
    fields = [{**warper, "do_sample": True} for warper in SAMPLING.values()] + [{}]
    penalties = list(PENALTIES.values())
    shown = shown or [{}, {"logprobs": RAW}, {"logprobs": WARPED, "num_top_logprobs": 3}]
    return [
        row(
            seed=i,
            **fields[i % len(fields)],
            **penalties[i % len(penalties)],
            **shown[i % len(shown)],
        )
        for i in range(num_rows)
    ]


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


def chi_square(counts, probs):
    """How many standard deviations the statistic lies above its mean."""
    expected = np.asarray(probs) * counts.sum()
    degrees = len(expected) - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


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


# Rows that cannot go on


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


# Logprobs


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


# Single parameters


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


# -- plainly greedy rows are left to kernels


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
