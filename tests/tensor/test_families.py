"""Greedy ids equal transformers' own `generate` in float32, however a family's rows are batched.

So they do where kernels stand in: in a decoder of ours that takes a family over, or for norms,
gates and products among the library's modules.
"""

import pytest
import torch
from tiny_models import (
    FAMILIES,
    load_tiny,
    make_bench,
    random_prompts,
    reference_ids,
    save_tiny_model,
)

from engine.compute.kernels.reference import Reference

DECODED = ("llama", "llama-rope-llama3", "llama-rope-yarn", "mistral", "qwen2", "qwen3")
CASES = [(family, has_kernels) for family in sorted(FAMILIES) for has_kernels in (False, True)]
LENGTHS = [5, 1, 19, 40, 12, 27]
NUM_NEW = 24


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0] + " by kernels" * case[1])
def family(request, tmp_path_factory):
    """A model, prompts, and transformers' answers; of a seed whose answers tell tokens apart."""
    name, has_kernels = request.param
    kernels = Reference(torch.float32) if has_kernels else None
    prompts = random_prompts(1, LENGTHS)
    for seed in range(20):
        path = save_tiny_model(name, tmp_path_factory.mktemp("models"), seed)
        expected = reference_ids(path, prompts, NUM_NEW)
        if is_telling(expected):
            model = load_tiny(path, kernels=kernels)
            assert (model._decoder is not None) == (has_kernels and name in DECODED)
            return model, prompts, expected
    raise AssertionError(f"no seed makes {name} say eight different tokens")


def is_telling(answers):
    return all(len(set(answer)) >= 8 for answer in answers)


def test_alone_equals_generate(family):
    model, prompts, expected = family
    assert [make_bench(model).generate([p])[0] for p in prompts] == expected


def test_a_mixed_batch_equals_generate(family):
    model, prompts, expected = family
    assert make_bench(model).generate(prompts) == expected


def test_chunked_prefill_among_decodes_equals_generate(family):
    model, prompts, expected = family
    bench = make_bench(model, max_batch_tokens=16)
    sequences = [bench.submit(prompt) for prompt in prompts]
    num_mixed = num_chunks = 0
    while bench.scheduler.num_sequences:
        batch, _ = bench.step()
        num_chunks += sum(not row.is_sampled for row in batch.work)
        sizes = {row.num_tokens > 1 for row in batch.work}
        num_mixed += sizes == {True, False}
    assert num_chunks >= 3
    assert num_mixed >= 3
    assert [s.token_ids[s.num_prompt :] for s in sequences] == expected


def test_with_drafts_right_and_wrong_it_equals_generate(family):
    model, prompts, expected = family
    bench = make_bench(model, max_drafts=4, max_batch_tokens=48)
    assert bench.generate_from(expected, prompts) == expected
    assert bench.num_accepted >= 3 * len(prompts)
    assert bench.num_refuted >= 3 * len(prompts)


def test_after_a_preemption_it_equals_generate(family):
    model, prompts, expected = family
    bench = make_bench(model, num_blocks=40, max_total_tokens=128, max_input_tokens=127)
    assert bench.generate(prompts) == expected
    assert bench.scheduler.num_preempted >= 1


def test_with_a_prefix_from_the_cache_it_equals_generate(family):
    model, prompts, expected = family
    bench = make_bench(model)
    bench.generate(prompts)
    sequences = [bench.submit(prompt) for prompt in prompts]
    while bench.scheduler.num_sequences:
        bench.step()
    assert [s.token_ids[s.num_prompt :] for s in sequences] == expected
    assert [s.num_cached for s in sequences] == [(n - 1) // 4 * 4 for n in LENGTHS]


def test_a_corrupted_block_table_gives_other_ids(family):
    model, prompts, expected = family
    bench = make_bench(model)
    for prompt in prompts:
        bench.submit(prompt)
    bench.step()
    tables = bench.runner._blocks[: len(prompts)]
    tables[:] = tables[::-1].copy()
    sequences = list(bench.scheduler.running.values())
    while bench.scheduler.num_sequences:
        bench.step()
    got = [s.token_ids[s.num_prompt :] for s in sequences]
    assert sum(a != b for a, b in zip(got, expected, strict=True)) >= 3
