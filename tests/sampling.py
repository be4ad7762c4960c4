"""Rows and logits for the sampler, and what it must do with a row, in double precision."""

import math

import numpy as np
import torch

from engine.compute.draws import uniforms
from engine.compute.logits import PANEL, Logits
from engine.compute.sampler import Sampler, SamplerRow
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


def chi_square(counts, probs):
    """How many standard deviations the statistic lies above its mean."""
    expected = np.asarray(probs) * counts.sum()
    degrees = len(expected) - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)
