"""The decoder of our own: which models it takes over, and that a row is the same in any batch."""

import logging

import pytest
import torch
from tiny_models import (
    FAMILIES,
    load_tiny,
    make_bench,
    native_kernels,
    random_prompts,
    save_model,
    save_tiny_model,
)
from torch import nn

from engine.compute import model as model_file
from engine.compute.kernels.native import Native, find_native
from engine.compute.kernels.onednn import OneDnn
from engine.compute.kernels.reference import Reference
from engine.errors import LoadError

TAKEN = {"llama", "llama-rope-llama3", "llama-rope-yarn", "mistral", "qwen2", "qwen3"}
"""Of the families of tiny models."""
WIDE = {
    **FAMILIES["qwen2"][1],
    "hidden_size": 128,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "dtype": "bfloat16",
    "initializer_range": 0.2,
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_takes_over_what_is_like_llama_and_nothing_else(family, tmp_path):
    model = load_tiny(save_tiny_model(family, tmp_path), kernels=Reference(torch.float32))
    assert (model._decoder is not None) == (family in TAKEN)


def test_a_part_that_differs_is_named_and_the_modules_run(tmp_path, caplog):
    path = save_tiny_model("granite", tmp_path)
    with caplog.at_level(logging.INFO, "engine.compute.decoder"):
        model = load_tiny(path, kernels=Reference(torch.float32))
    assert model._decoder is None
    assert "the library's modules run: its head is not as in a Llama" in caplog.text


@pytest.mark.parametrize("name", ["rms_norm", "rope_write"])
def test_a_kernel_that_computes_something_else_is_found_at_load(name, tmp_path, monkeypatch):
    kernels = Reference(torch.float32)
    monkeypatch.setattr(kernels, name, lambda *args: None)
    assert load_tiny(save_tiny_model("llama", tmp_path), kernels=kernels)._decoder is None


def test_it_takes_the_weights_from_the_modules(tmp_path):
    model = load_tiny(save_tiny_model("qwen2", tmp_path), kernels=Reference(torch.float32))
    assert not any(isinstance(module, nn.Linear) for module in model._module.modules())


def test_kernels_of_another_type_are_not_used(tmp_path):
    path = save_tiny_model("qwen2", tmp_path)
    assert load_tiny(path, kernels=Reference(torch.bfloat16))._decoder is None


@pytest.mark.parametrize("bias", [False, True])
def test_biases_wherever_a_llama_may_have_them_are_added(bias, tmp_path):
    settings = {**FAMILIES["llama"][1], "attention_bias": bias, "mlp_bias": bias}
    path = save_model("llama", settings, tmp_path / "biased")
    assert load_tiny(path, kernels=Reference(torch.float32))._decoder is not None


WAYS = {"ours": (Native, None), "8 bits": (Native, "int8"), "oneDNN": (OneDnn, None)}


@pytest.fixture(scope="module", params=WAYS)
def wide(tmp_path_factory, request):
    """A bfloat16 model whose heads and blocks the C++ kernels know, also with weights of 8 bits."""
    kind, quantize = WAYS[request.param]
    kernels = native_kernels(kind)
    path = save_model("qwen2", WIDE, tmp_path_factory.mktemp("models") / "wide")
    model = load_tiny(path, dtype="bfloat16", kernels=kernels, quantize=quantize)
    assert model._decoder is not None
    weights = [layer.down for layer in model._decoder._layers] + [model._decoder._ends.head]
    assert all((weight.scales is not None) == (quantize == "int8") for weight in weights)
    return model


def test_in_bfloat16_a_batch_gives_each_row_what_it_gets_alone(wide):
    """In chunks, after a preemption and from the cache, too."""
    prompts = random_prompts(3, [5, 1, 19, 40, 12, 27, 64, 9, 33, 2])
    # oneDNN's products may be others from 17 rows on
    limits = {"block_size": 32, "num_blocks": 128, "max_batch_tokens": 16}
    alone = [make_bench(wide, **limits).generate([prompt])[0] for prompt in prompts]
    assert all(len(set(answer)) >= 8 for answer in alone)
    bench = make_bench(wide, **limits)
    assert bench.generate(prompts) == alone
    again = [bench.submit(prompt) for prompt in prompts]
    while bench.scheduler.num_sequences:
        bench.step()
    assert [sequence.token_ids[sequence.num_prompt :] for sequence in again] == alone
    assert [s.num_cached for s in again] == [(s.num_prompt - 1) // 32 * 32 for s in again]
    assert any(sequence.num_cached for sequence in again)
    tight = {"num_blocks": 9, "max_total_tokens": 128, "max_input_tokens": 96}
    small = make_bench(wide, **{**limits, **tight})
    assert small.generate(prompts) == alone
    assert small.scheduler.num_preempted
    if not isinstance(wide._kernels, OneDnn):  # whole prompts in one step
        assert make_bench(wide, **{**limits, "max_batch_tokens": 256}).generate(prompts) == alone


def test_the_librarys_products_give_what_ours_give(tmp_path):
    path = save_model("qwen2", WIDE, tmp_path / "wide")
    models = [
        load_tiny(path, dtype="bfloat16", kernels=native_kernels(kind)) for kind in (Native, OneDnn)
    ]
    assert all(model._decoder is not None for model in models)
    ours, theirs = (make_bench(model, block_size=32, num_blocks=64) for model in models)
    answers = [bench.generate(random_prompts(3, [40]))[0] for bench in (ours, theirs)]
    logits = [bench.runner._model._decoder._room.values[0] for bench in (ours, theirs)]
    assert answers[0] == answers[1]
    assert (logits[0] - logits[1]).norm() < 0.02 * logits[0].norm()
    assert not torch.equal(*logits)


def test_without_a_kernel_for_its_heads_the_modules_run(tmp_path, caplog, wide):
    path = save_tiny_model("qwen2", tmp_path)  # heads of 8
    with caplog.at_level(logging.INFO, "engine.compute.decoder"):
        model = load_tiny(path, dtype="bfloat16", kernels=Native(find_native()))
    assert model._decoder is None
    assert "the library's modules run: kernels attend plainly, over heads and blocks" in caplog.text


def test_the_modules_of_another_family_attend_by_the_kernel(tmp_path, wide):
    settings = {**FAMILIES["olmo2"][1], "hidden_size": 128, "initializer_range": 0.2}
    path = save_model("olmo2", settings, tmp_path / "olmo2")
    model = load_tiny(path, dtype="bfloat16", kernels=Native(find_native()))
    assert model._decoder is None
    bench = make_bench(model, block_size=32, num_blocks=64)
    assert model.attention.has_kernel
    prompts = random_prompts(4, [5, 19, 40])
    alone = [bench.generate([prompt])[0] for prompt in prompts]
    assert all(len(set(answer)) >= 8 for answer in alone)
    assert make_bench(model, block_size=32, num_blocks=64).generate(prompts) == alone


def test_8_bits_are_refused_where_the_modules_would_run(tmp_path):
    path = save_tiny_model("granite", tmp_path)
    with pytest.raises(LoadError, match=r"GraniteForCausalLM cannot be served: 8 bits need"):
        load_tiny(path, kernels=Reference(torch.float32), quantize="int8")


def test_positions_beyond_the_first_table_are_tabulated_when_they_come(wide, monkeypatch):
    prompts = random_prompts(5, [200])
    limits = {"block_size": 32, "num_blocks": 64}
    expected = make_bench(wide, **limits).generate(prompts)
    monkeypatch.setattr(wide._decoder, "_rope_table", wide._decoder._rope_table_of(2))
    assert make_bench(wide, **limits).generate(prompts) == expected
    assert len(wide._decoder._rope_table.cosine) == 2 * 224, "not twice as many as its blocks hold"


@pytest.mark.parametrize("part", ["embed_tokens", "norm", "layers.1.mlp.up_proj"])
def test_a_part_that_was_changed_after_the_trace_is_found(part, tmp_path, monkeypatch, caplog):
    take_over = model_file.take_over

    def changed(module, *args, **options):
        module.model.get_submodule(part).weight.mul_(1.5)
        return take_over(module, *args, **options)

    monkeypatch.setattr(model_file, "take_over", changed)
    path = save_tiny_model("llama", tmp_path)
    with caplog.at_level(logging.INFO, "engine.compute.decoder"):
        model = load_tiny(path, kernels=Reference(torch.float32))
    part = {"embed_tokens": "its embedding", "norm": "its head"}.get(part, "layer 1")
    assert f"the library's modules run: {part} is not as in a Llama" in caplog.text
    assert model._decoder is None
    prompts = random_prompts(7, [5, 19])
    expected = make_bench(load_tiny(path)).generate(prompts)
    assert make_bench(model).generate(prompts) == expected


def test_ids_without_an_embedding_are_refused(wide):
    bench = make_bench(wide, block_size=32, num_blocks=8)
    bench.submit([5, wide.vocab_size])
    with pytest.raises((ValueError, IndexError), match=r"no embedding|out of range"):
        bench.step()
