"""Adapters beside a model: each row is answered as by the model that its adapter is merged into."""

import pytest
import torch
from tiny_adapters import LLAMA_TARGETS, save_adapter, save_merged
from tiny_models import (
    FAMILIES,
    Spoilt,
    load_tiny,
    make_bench,
    native_kernels,
    random_prompts,
    reference_ids,
    save_model,
    save_tiny_model,
)

from engine.compute.kernels.native import Native
from engine.compute.kernels.onednn import OneDnn
from engine.compute.kernels.reference import Reference

PROMPTS = random_prompts(1, [5, 1, 19, 40, 12, 27, 9, 33, 2])
NAMES = (None, "first", "second")
NUM_TOKENS = 24
TARGETS = {
    "gpt2": ["c_attn", "c_proj"],
    "gpt-neox": ["query_key_value", "dense_h_to_4h"],
    "phi3": ["qkv_proj", "gate_up_proj", "down_proj"],
    "opt": ["q_proj", "v_proj", "fc1"],
    "deepseek-v3": ["q_a_proj", "kv_b_proj", "o_proj"],
    "mixtral": ["q_proj", "o_proj"],
    "gpt-oss": ["q_proj", "o_proj"],
    "qwen3-moe": ["k_proj", "v_proj"],
}
"""Of families that are not like Llama; of two adapters one changes all of them, one the first."""


def named(count):
    """Give each prompt one of the names, in turn."""
    return [NAMES[number % len(NAMES)] for number in range(count)]


def mixed(bench, prompts=PROMPTS, **params):
    """Generate from all prompts at once, with one adapter, the other, and none in turn."""
    params = {"max_new_tokens": NUM_TOKENS, **params}
    sequences = [
        bench.submit(prompt, adapter=name, **params)
        for prompt, name in zip(prompts, named(len(prompts)), strict=True)
    ]
    return finished(bench, sequences)


def finished(bench, sequences):
    """Step until all have ended; return the generated ids."""
    while bench.scheduler.num_sequences:
        bench.step()
    return [s.token_ids[s.num_prompt :] for s in sequences]


def make_model(family, folder, **options):
    """Give a tiny model with two adapters, what the merged models answer to PROMPTS, its path.

    Of a seed whose answers tell tokens apart.
    """
    targets = TARGETS.get(family, LLAMA_TARGETS)
    for seed in range(20):
        place = folder / str(seed)
        path = save_tiny_model(family, place, seed)
        sources = (
            save_adapter(path, place / "first", targets, rank=4, seed=1, strength=0.2),
            save_adapter(path, place / "second", targets[:1], rank=3, seed=2, use_rslora=True),
        )
        expected = merged_answers(path, sources, place)
        if all(len(set(answer)) >= 8 for answer in expected):
            return load_tiny(path, lora_adapters=sources, **options), expected, path
    raise AssertionError(f"no seed makes {family} say eight different tokens")


def merged_answers(path, sources, folder):
    paths = {None: path}
    for source in sources:
        paths[source.name] = save_merged(path, source, folder / f"merged-{source.name}")
    return [
        reference_ids(paths[name], [prompt], NUM_TOKENS)[0]
        for prompt, name in zip(PROMPTS, named(len(PROMPTS)), strict=True)
    ]


@pytest.fixture(scope="module", params=["modules", "decoder"])
def llama(tmp_path_factory, request):
    kernels = Reference(torch.float32) if request.param == "decoder" else None
    folder = tmp_path_factory.mktemp("models")
    model, expected, path = make_model("qwen2", folder, kernels=kernels)
    assert (model._decoder is not None) == (request.param == "decoder")
    return model, expected, path


def test_rows_of_one_batch_are_answered_as_by_the_merged_models(llama):
    model, expected, path = llama
    assert mixed(make_bench(model)) == expected
    base = reference_ids(path, PROMPTS, NUM_TOKENS)
    assert [a == b for a, b in zip(expected, base, strict=True)] == [True, False, False] * 3


@pytest.mark.parametrize("kernels", [None, Reference(torch.float32)], ids=["plain", "kernels"])
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen2"}))
def test_every_family_is_adapted(family, kernels, tmp_path):
    model, expected, _ = make_model(family, tmp_path, kernels=kernels)
    assert mixed(make_bench(model)) == expected


def test_rows_that_left_take_no_memory_of_their_adapters(llama):
    model, _, _ = llama
    bench = make_bench(model)
    mixed(bench)
    bench.generate(PROMPTS[:1])
    assert not bench.runner._adapted


def test_chunks_and_preemption_change_nothing(llama):
    model, expected, _ = llama
    assert mixed(make_bench(model, max_batch_tokens=16)) == expected
    small = make_bench(model, num_blocks=24, max_total_tokens=96, max_input_tokens=64)
    assert mixed(small) == expected
    assert small.scheduler.num_preempted


def test_drafts_right_and_wrong_change_nothing(llama):
    model, expected, _ = llama
    bench = make_bench(model, max_drafts=3)
    sequences = [
        bench.submit(prompt, adapter=name, max_new_tokens=NUM_TOKENS)
        for prompt, name in zip(PROMPTS, named(len(PROMPTS)), strict=True)
    ]
    for sequence, answer in zip(sequences, expected, strict=True):
        sequence.drafts = Spoilt(answer, sequence.num_prompt)
    assert finished(bench, sequences) == expected
    assert min(bench.num_accepted, bench.num_refuted) >= 3 * len(PROMPTS)


def test_an_adapter_finds_its_own_prefixes_and_no_foreign_ones(llama):
    model, expected, _ = llama
    bench = make_bench(model)
    prompt = PROMPTS[3]
    answers = {}
    for _ in range(2):
        for name in NAMES:
            sequence = bench.submit(prompt, adapter=name, max_new_tokens=NUM_TOKENS)
            is_again = name in answers
            [answer] = finished(bench, [sequence])
            assert (sequence.num_cached > 0) == is_again
            assert answers.setdefault(name, answer) == answer
    assert len(set(map(tuple, answers.values()))) == len(NAMES)
    assert answers[None] == expected[3]


WIDE = {
    "hidden_size": 128,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "dtype": "bfloat16",
    "initializer_range": 0.2,
}


WAYS = {
    "decoder": ("qwen2", Native, None),
    "decoder of 8 bits": ("qwen2", Native, "int8"),
    "decoder of 8 bits, oneDNN": ("qwen2", OneDnn, "int8"),
    "modules": ("phi3", Native, None),
}


@pytest.fixture(scope="module", params=WAYS)
def wide(tmp_path_factory, request):
    """A bfloat16 model that runs by C++ kernels, without adapters, and the same with two."""
    family, kind, quantize = WAYS[request.param]
    kernels, folder = native_kernels(kind), tmp_path_factory.mktemp("models")
    path = save_model(family, {**FAMILIES[family][1], **WIDE}, folder / "wide", seed=2)
    adapters = {"strength": 0.05, "lora_alpha": 8}
    targets = TARGETS.get(family, LLAMA_TARGETS)
    sources = (
        save_adapter(path, folder / "first", targets, rank=5, seed=1, **adapters),
        save_adapter(path, folder / "second", targets[::5], rank=8, seed=2, **adapters),
    )
    options = {"dtype": "bfloat16", "kernels": kernels, "quantize": quantize}
    models = [load_tiny(path, **options), load_tiny(path, lora_adapters=sources, **options)]
    assert all((model._decoder is None) == (request.param == "modules") for model in models)
    return models


def test_in_bfloat16_a_mixed_batch_gives_each_row_what_it_gets_alone(wide):
    base, model = wide
    limits = {"block_size": 32, "num_blocks": 128}
    alone = []
    for prompt, name in zip(PROMPTS, named(len(PROMPTS)), strict=True):
        sequence = {"adapter": name, "max_new_tokens": NUM_TOKENS}
        alone += make_bench(model, **limits).generate([prompt], **sequence)
    assert all(len(set(answer)) >= 8 for answer in alone)
    assert mixed(make_bench(model, **limits)) == alone
    assert mixed(make_bench(model, max_batch_tokens=16, **limits)) == alone
    tight = {"block_size": 32, "num_blocks": 9, "max_total_tokens": 128, "max_input_tokens": 96}
    small = make_bench(model, **tight)
    assert mixed(small) == alone
    assert small.scheduler.num_preempted
    if model._decoder is None:  # its feed-forwards are not fused where adapters change them
        base = model
    plain = make_bench(base, **limits).generate(PROMPTS, max_new_tokens=NUM_TOKENS)
    assert [a == b for a, b in zip(alone, plain, strict=True)] == [True, False, False] * 3
