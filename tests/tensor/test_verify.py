"""Drafts in the runner: tokens are those that come step by step, however they are chosen."""

import pytest
import torch
from tiny_models import (
    FAMILIES,
    Spoilt,
    load_tiny,
    make_bench,
    native_kernels,
    random_prompts,
    save_model,
    save_tiny_model,
)

from engine.compute.kernels.reference import Reference
from engine.sampling_params import LogprobsMode

LENGTHS = [5, 1, 19, 40, 12, 27]
CHOICES = {
    "greedy": {},
    "seeded": {"do_sample": True, "temperature": 1.3, "seed": 5},
    "seeded with cuts": {"do_sample": True, "top_p": 0.8, "top_k": 30, "seed": 6},
    "penalised": {
        "repetition_penalty": 1.4,
        "frequency_share_penalty": 0.7,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
    },
    "penalised and seeded": {
        "do_sample": True,
        "temperature": 1.5,
        "typical_p": 0.9,
        "frequency_penalty": 1.0,
        "watermark": True,
        "seed": 7,
    },
    "without ends at first": {"min_new_tokens": 9, "logit_bias": ((7, 3.0),)},
}


@pytest.fixture(scope="module", params=["modules", "decoder"])
def model(request, tmp_path_factory):
    """Give a model of float32 with a sliding window: by the library's modules, and by our own."""
    path = save_tiny_model("mistral", tmp_path_factory.mktemp("models"))
    kernels = Reference(torch.float32) if request.param == "decoder" else None
    model = load_tiny(path, kernels=kernels)
    assert (model._decoder is not None) == (request.param == "decoder")
    model.eos_token_ids = (3, 4)  # for min_new_tokens; the benches ignore them otherwise
    return model


@pytest.mark.parametrize("params", CHOICES.values(), ids=CHOICES)
def test_each_row_gets_the_tokens_it_gets_without_drafts(model, params):
    prompts = random_prompts(1, LENGTHS)
    expected = make_bench(model).generate(prompts, **params)
    assert all(len(set(answer)) >= 8 for answer in expected)
    bench = make_bench(model, max_drafts=3)
    assert bench.generate_from(expected, prompts, **params) == expected
    assert min(bench.num_accepted, bench.num_refuted) >= 3 * len(prompts)


@pytest.mark.parametrize("params", [CHOICES["greedy"], CHOICES["penalised and seeded"]])
@pytest.mark.parametrize("shown", list(LogprobsMode))
def test_each_token_has_the_logprobs_it_has_without_drafts(model, params, shown):
    params = {**params, "logprobs": shown, "num_top_logprobs": 3, "max_new_tokens": 16}
    prompts = random_prompts(2, [5, 12])
    plain, bench = make_bench(model), make_bench(model, max_drafts=3)
    answers = plain.generate(prompts, **params)
    assert bench.generate_from(answers, prompts, **params) == answers
    assert min(bench.num_accepted, bench.num_refuted) >= 6
    for expected, seen in zip(plain.sampled.values(), bench.sampled.values(), strict=True):
        for token, other in zip(expected, seen, strict=True):
            assert other.logprob == pytest.approx(token.logprob, abs=1e-4)
            assert [i for i, _ in other.top] == [i for i, _ in token.top]


def test_after_a_preemption_a_row_goes_on_with_the_same_tokens(model):
    prompts = random_prompts(3, LENGTHS)
    expected = make_bench(model).generate(prompts, **CHOICES["seeded"])
    limits = {"num_blocks": 40, "max_total_tokens": 128, "max_input_tokens": 127}
    bench = make_bench(model, max_drafts=3, **limits)
    assert bench.generate_from(expected, prompts, **CHOICES["seeded"]) == expected
    assert bench.scheduler.num_preempted >= 1
    assert min(bench.num_accepted, bench.num_refuted) >= 3 * len(prompts)


def test_what_was_guessed_wrong_is_in_no_prefix_that_others_find(model):
    prompts = random_prompts(4, LENGTHS)
    bench = make_bench(model, max_drafts=3)
    expected = make_bench(model).generate(prompts)
    assert bench.generate_from(expected, prompts) == expected
    longer = [prompt + answer for prompt, answer in zip(prompts, expected, strict=True)]
    sequences = [bench.submit(prompt) for prompt in longer]
    while bench.scheduler.num_sequences:
        bench.step()
    assert all(s.num_cached > len(p) for s, p in zip(sequences, prompts, strict=True))
    answers = [s.token_ids[s.num_prompt :] for s in sequences]
    assert answers == make_bench(model).generate(longer)


def test_beside_drafts_prompts_come_in_chunks_with_their_logprobs(model):
    first, second = random_prompts(5, [7, 50])
    plain, bench = make_bench(model), make_bench(model, max_drafts=3, max_batch_tokens=16)
    (expected,) = plain.generate([first])
    other = plain.submit(second, prompt_logprobs=True)
    while plain.scheduler.num_sequences:
        plain.step()
    streaming = bench.submit(first)
    streaming.drafts = Spoilt(expected, len(first))
    bench.step()
    chunked = bench.submit(second, prompt_logprobs=True)
    num_mixed = 0
    while bench.scheduler.num_sequences:
        batch, _ = bench.step()
        num_mixed += any(w.drafts for w in batch.work) and bool(batch.prefill)
    assert num_mixed >= 1
    assert streaming.token_ids[len(first) :] == expected
    assert chunked.token_ids == other.token_ids
    assert chunked.prompt_logprobs == pytest.approx(other.prompt_logprobs, abs=1e-4)


def test_ngrams_are_found_and_change_nothing(model):
    prompts = random_prompts(6, [9, 20])
    few = tuple((token_id, 100.0) for token_id in (1, 2, 3))
    params = {"max_new_tokens": 80, "temperature": 4.0, "do_sample": True, "logit_bias": few}
    expected = make_bench(model).generate(prompts, **params)
    bench = make_bench(model, max_drafts=4)
    assert bench.generate(prompts, **params) == expected
    assert bench.num_accepted >= 10
    assert bench.num_refuted >= 1


def test_a_row_that_fails_behind_a_right_draft_keeps_the_tokens_before_it(model):
    prompts = random_prompts(7, [5, 12])
    expected = make_bench(model).generate(prompts)
    bench = make_bench(model, max_drafts=3)
    struck, other = (bench.submit(prompt) for prompt in prompts)
    bench.step()
    struck.drafts = Spoilt(expected[0], struck.num_prompt)
    struck.drafts.guess(struck.token_ids, 1)  # the next one is right
    forward = model.forward

    def fails(*args):
        logits = forward(*args)
        for seen in (logits.values, logits.tops):
            if seen is not None:
                seen[-2] = float("nan")
        return logits

    bench.model.forward = fails
    try:
        _, output = bench.step()
    finally:
        del bench.model.forward
    row = next(row for row in output.rows if row.sequence_id == struck.sequence_id)
    assert row.error is None
    assert [token.token_id for token in row.sampled] == expected[0][1:3]
    while bench.scheduler.num_sequences:
        bench.step()
    assert [s.token_ids[s.num_prompt :] for s in (struck, other)] == expected


@pytest.mark.parametrize("params", [CHOICES["greedy"], CHOICES["penalised and seeded"]])
def test_in_bfloat16_kernels_give_the_same_bits_with_drafts(tmp_path, params):
    kernels = native_kernels()
    settings = {**FAMILIES["qwen2"][1], "hidden_size": 128, "dtype": "bfloat16"}
    path = save_model("qwen2", {**settings, "initializer_range": 0.2}, tmp_path / "wide")
    model = load_tiny(path, dtype="bfloat16", kernels=kernels)
    assert model._decoder is not None
    limits = {"block_size": 32, "num_blocks": 64}
    prompts = random_prompts(8, LENGTHS)
    params = {**params, "logprobs": LogprobsMode.RAW}
    plain, bench = (make_bench(model, kernels, max_drafts=most, **limits) for most in (0, 4))
    expected = plain.generate(prompts, **params)
    assert all(len(set(answer)) >= 8 for answer in expected)
    assert bench.generate_from(expected, prompts, **params) == expected
    assert min(bench.num_accepted, bench.num_refuted) >= 3 * len(prompts)
    assert bench.sampled == plain.sampled
