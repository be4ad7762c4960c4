"""Loading: what is rewritten stays the same, and what cannot be served is refused with a reason."""

import json

import pytest
import torch
from tiny_models import (
    FAMILIES,
    VOCAB_SIZE,
    load_tiny,
    save_byte_tokenizer,
    save_model,
    save_tiny_model,
)
from torch import nn
from transformers import AutoModelForCausalLM

from engine.compute.kernels.onednn import can_pack
from engine.compute.linears import Slice, rewrite_linears
from engine.compute.model import Model
from engine.compute.products import best_products, plain_product
from engine.config import EngineConfig
from engine.errors import LoadError

SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
REFUSED = {
    "mamba": (
        {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        "does not call transformers' attention interface",
    ),
    "bloom": (
        {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        "does not call transformers' attention interface",
    ),
    "bert": (SMALL, "rows of unequal length computed together do not give what each gives alone"),
    "lfm2": (
        {**SMALL, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        "1 of its 2 layers keep keys and values",
    ),
}


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_a_family_that_cannot_work_this_way_is_refused_with_the_reason(model_type, tmp_path):
    settings, reason = REFUSED[model_type]
    path = save_model(model_type, settings, tmp_path / model_type)
    with pytest.raises(LoadError, match="cannot be served") as refusal:
        load_tiny(path)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_and_packed_linears_give_what_the_plain_ones_give(dtype, tmp_path):
    path = save_tiny_model("qwen2", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        expected = model(ids).logits.float()
        make = best_products(None, torch.device("cpu"), dtype)
        num_joined = rewrite_linears(model, lambda: model(ids), make)
        got = model(ids).logits.float()
    assert num_joined == 2 * 5  # q, k, v and gate, up in each of two layers
    assert not any(type(module) is nn.Linear for module in model.modules())
    scale = float(expected.abs().max())
    assert float((got - expected).abs().max()) < (1e-5 if dtype is torch.float32 else 0.05) * scale


def test_a_joined_product_keeps_no_input_after_its_last_slice(tmp_path):
    path = save_tiny_model("llama", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    ids = torch.arange(5)[None]
    with torch.inference_mode():
        rewrite_linears(model, lambda: model(ids), plain_product)
        model(ids)
    slices = [module for module in model.modules() if isinstance(module, Slice)]
    assert len(slices) == 2 * 7 + 1
    assert all(module._joined._input is None for module in slices)


def test_auto_dtype_is_the_models_own_where_the_machine_computes_it(tmp_path):
    path = save_tiny_model("llama", tmp_path)
    assert load_tiny(path, dtype="auto").dtype is torch.float32
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    expected = torch.bfloat16 if can_pack() else torch.float32
    assert load_tiny(path, dtype="auto").dtype is expected


def test_a_rope_that_grows_with_the_batch_is_kept_below_its_first_change(tmp_path):
    _, settings = FAMILIES["llama"]
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "factor": 8.0,
        "original_max_position_embeddings": 64,
    }
    path = save_model("llama", {**settings, "rope_parameters": rope}, tmp_path / "long")
    assert load_tiny(path).max_position == 64


def test_a_missing_directory_says_what_to_do():
    with pytest.raises(LoadError, match=r"no such directory\. Give --model-id"):
        Model(EngineConfig(model="/no/such/place"))


def test_a_directory_without_a_config_says_so(tmp_path):
    save_byte_tokenizer(tmp_path)
    with pytest.raises(LoadError, match=r"holds no config.json"):
        Model(EngineConfig(model=str(tmp_path)))


def test_broken_weights_are_named(tmp_path):
    path = save_tiny_model("llama", tmp_path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LoadError, match=r"cannot load .*llama: SafetensorError"):
        load_tiny(path)


def test_cuda_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(LoadError, match="torch sees no CUDA device"):
        load_tiny(save_tiny_model("llama", tmp_path), device="cuda")
