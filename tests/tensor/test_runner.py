"""One runner step: rows do not touch each other, whatever one of them does."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny_models import load_tiny, make_bench, random_prompts, run, save_tiny_model

from engine.compute.plan import Context
from engine.errors import GenerationFailed
from engine.outputs import FinishReason
from engine.sampling_params import LogprobsMode

LENGTHS = [5, 1, 19, 40, 12, 27]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(path):
    return load_tiny(path)


def test_a_seeded_request_gives_the_same_ids_whatever_else_is_in_the_batch(model):
    prompt, *others = random_prompts(2, LENGTHS)
    seeded = {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "seed": 7}
    alone = make_bench(model).generate([prompt], **seeded)[0]
    assert len(set(alone)) >= 8
    bench = make_bench(model, max_batch_tokens=20)
    bench.submit(others[0])
    bench.step()
    among = bench.submit(prompt, **seeded)
    for number, other in enumerate(others):
        bench.submit(other, do_sample=True, seed=number, top_k=5)
    run(bench)
    assert among.token_ids[among.num_prompt :] == alone
    other_seed = make_bench(model).generate([prompt], **{**seeded, "seed": 8})[0]
    assert other_seed != alone


def test_a_seeded_request_goes_on_with_the_same_ids_after_a_preemption(model):
    prompts = random_prompts(3, LENGTHS)
    seeded = {"do_sample": True, "temperature": 1.2, "seed": 11}
    expected = [make_bench(model).generate([p], **seeded)[0] for p in prompts]
    bench = make_bench(model, num_blocks=40, max_total_tokens=128, max_input_tokens=127)
    assert bench.generate(prompts, **seeded) == expected
    assert bench.scheduler.num_preempted >= 1


def test_a_nan_row_ends_with_an_error_and_its_neighbours_do_not_notice(path):
    model = load_tiny(path)
    prompts = random_prompts(4, LENGTHS)
    expected = make_bench(model).generate(prompts)
    bench = make_bench(model, num_blocks=64)
    sequences = [bench.submit(prompt) for prompt in prompts]
    bench.step()
    struck = sequences[0]
    assert 0 in struck.blocks  # what a careless padding would read
    for cache in (*bench.runner._cache.k, *bench.runner._cache.v):
        cache[:, struck.blocks] = math.nan
    finishes = run(bench)
    assert finishes[struck.sequence_id].reason is FinishReason.ERROR
    assert "NaN" in str(finishes[struck.sequence_id].error)
    for sequence, ids in zip(sequences, expected, strict=True):
        if sequence is not struck:
            assert sequence.token_ids[sequence.num_prompt :] == ids
    # the poisoned blocks are given out again, and found by nobody
    again = bench.generate(prompts)
    assert again == expected


def test_stale_nan_in_given_out_blocks_reaches_nobody(model):
    prompts = random_prompts(5, LENGTHS)
    expected = make_bench(model).generate(prompts)
    bench = make_bench(model, is_prefix_caching=False)
    for cache in (*bench.runner._cache.k, *bench.runner._cache.v):
        cache.fill_(math.nan)
    assert bench.generate(prompts) == expected


def test_prompt_logprobs_are_the_models_own_however_the_prompt_is_chunked(model):
    prompt = random_prompts(6, [30])[0]
    ids = torch.tensor(prompt)
    bench = make_bench(model, max_batch_tokens=16)
    sequence = bench.submit(prompt, prompt_logprobs=True, max_new_tokens=2)
    run(bench)
    plan_alone(model, len(prompt))
    logits = model.forward(ids, torch.arange(30), torch.arange(30)).values.float().log_softmax(-1)
    expected = logits[torch.arange(29), ids[1:]].tolist()
    assert sequence.prompt_logprobs == pytest.approx(expected, abs=1e-4)
    assert sequence.token_ids[30] == int(logits[-1].argmax()), "chosen from another's logits"


def test_raw_logprobs_of_a_greedy_row_are_the_log_softmax_of_its_logits(model):
    prompt = random_prompts(7, [9])[0]
    bench = make_bench(model)
    bench.submit(prompt, logprobs=LogprobsMode.RAW, num_top_logprobs=3, max_new_tokens=1)
    _, output = bench.step()
    sampled = output.rows[0].sampled[0]
    plan_alone(model, len(prompt))
    logits = model.forward(torch.tensor(prompt), torch.arange(9), torch.tensor([8])).values[0]
    expected = logits.float().log_softmax(-1)
    assert sampled.token_id == int(expected.argmax())
    assert sampled.logprob == pytest.approx(float(expected.max()), abs=1e-4)
    assert [i for i, _ in sampled.top] == expected.topk(3).indices.tolist()


def test_a_step_without_logits_to_sample_from_still_computes(model):
    prompt = random_prompts(8, [50])[0]
    expected = make_bench(model).generate([prompt])
    bench = make_bench(model, max_batch_tokens=16)
    sequence = bench.submit(prompt)
    batch, output = bench.step()
    assert [row.is_sampled for row in batch.work] == [False]
    assert output.rows[0].sampled == ()
    run(bench)
    assert [sequence.token_ids[50:]] == expected


def test_sixty_four_rows_equal_each_alone(model):
    prompts = random_prompts(9, [1 + (7 * i) % 40 for i in range(64)])
    alone = [make_bench(model).generate([p], max_new_tokens=10)[0] for p in prompts]
    bench = make_bench(model, num_blocks=1024, max_batch_size=64)
    assert bench.generate(prompts, max_new_tokens=10) == alone


def test_bfloat16_agrees_with_itself_for_few_rows(path):
    model = load_tiny(path, dtype="bfloat16")
    prompts = random_prompts(10, [3, 9, 14, 20])
    alone = [make_bench(model).generate([p], max_new_tokens=12)[0] for p in prompts]
    assert all(len(set(ids)) >= 4 for ids in alone)
    together = make_bench(model).generate(prompts, max_new_tokens=12)
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 3


def plan_alone(model, length):
    """Plan one row's whole prompt, in the first blocks of the bench's cache."""
    empty = np.zeros(0, dtype=np.int64)
    context = Context(np.arange(-(-length // 4)), 0, length)
    model.attention.plan(empty[:, None], empty, [context])


def test_a_join_that_fails_spares_those_of_later_steps(model, monkeypatch):
    bench = make_bench(model)
    expected = make_bench(model).generate([[5, 6, 7]])
    runner, rows = bench.runner, len(bench.runner._free_places)
    bench.submit([1, 2, 3])
    bench.submit([4, 5, 6])
    batch = bench.scheduler.schedule(0.0)
    monkeypatch.setattr(runner, "_adapters", {})
    broken = dataclasses.replace(batch.join[0].params, adapter="none")
    joins = (dataclasses.replace(batch.join[0], params=broken), *batch.join[1:])
    with pytest.raises(KeyError):
        runner.execute(dataclasses.replace(batch, join=joins))
    bench.scheduler.fail(GenerationFailed("broken"), 0.0)
    assert bench.generate([[5, 6, 7]]) == expected
    assert len(runner._free_places) == rows - 1
