"""Reading adapters: PEFT's rules of scale and names; a sentence for what is not plain LoRA."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_adapters import LLAMA_TARGETS, save_adapter, save_merged
from tiny_models import load_tiny, make_bench, random_prompts, reference_ids, save_tiny_model

from engine.compute.kernels.reference import Reference
from engine.compute.model import Model
from engine.config import AdapterSource, EngineConfig
from engine.errors import LoadError

Q0, DOWN1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture
def adapter(base, tmp_path):
    return save_adapter(base, tmp_path / "mine", LLAMA_TARGETS, strength=0.2)


def change(adapter, **settings):
    path = Path(adapter.path) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights(adapter, changed):
    """Let `changed` replace tensors, or leave them out where it says None."""
    path = Path(adapter.path) / "adapter_model.safetensors"
    weights = load_file(path) | {f"base_model.model.{key}": t for key, t in changed.items()}
    save_file({key: tensor for key, tensor in weights.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        ({}, {"lora_alpha": 3}),
        ({}, {"use_rslora": True}),
        ({"v_proj": 7, "1.mlp.down_proj": 1}, {"alpha_pattern": {"v_proj": 32}}),
        ({}, {"target_modules": r".*\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"}),
        ({}, {"target_modules": "all-linear"}),
        ({}, {"init_lora_weights": "gaussian", "fan_in_fan_out": True, "lora_dropout": 0.1}),
    ],
)
def test_scale_ranks_and_targets_are_those_of_peft(ranks, settings, base, tmp_path):
    source = save_adapter(
        base, tmp_path / "mine", LLAMA_TARGETS, ranks=ranks, strength=0.2, **settings
    )
    merged = save_merged(base, source, tmp_path / "merged")
    prompts = random_prompts(1, [5, 19])
    for kernels in (None, Reference(torch.float32)):
        model = load_tiny(base, lora_adapters=(source,), kernels=kernels)
        answers = make_bench(model).generate(prompts, adapter="mine")
        assert answers == reference_ids(merged, prompts, 24)
        assert answers != make_bench(model).generate(prompts)


def test_layers_that_are_left_out_stay_as_they_are(base, adapter, tmp_path):
    left_out = {f"{Q0}.lora_{half}.weight": None for half in "AB"}
    change_weights(adapter, left_out)
    change(adapter, layers_to_transform=[0, 1])
    prompts = random_prompts(1, [5])
    merged = save_merged(base, adapter, tmp_path / "merged")
    bench = make_bench(load_tiny(base, lora_adapters=(adapter,)))
    assert bench.generate(prompts, adapter="mine") == reference_ids(merged, prompts, 24)


MORE = "it is more than plain LoRA: "


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"peft_type": "IA3"}, "its peft_type must be LORA. Given: IA3"),
        ({"use_dora": True}, MORE + "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, MORE + "modules_to_save is set"),
        ({"lora_bias": True}, MORE + "lora_bias is set"),
        ({"layer_replication": [[0, 2]]}, MORE + "layer_replication is set"),
        ({"target_parameters": ["experts"]}, MORE + "target_parameters is set"),
        ({"trainable_token_indices": [1]}, MORE + "trainable_token_indices is set"),
        ({"alora_invocation_tokens": [1]}, MORE + "alora_invocation_tokens is set"),
        ({"kasa_config": {"beta": 1}}, MORE + "kasa_config is set"),
        ({"bias": "lora_only"}, MORE + "bias must be none. Given: lora_only"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "it began as pissa_niter_4, with other weights of the model; convert it to plain LoRA",
        ),
        ({"r": 8}, "its weights for model.layers.0.mlp.down_proj must be [32, 8] times [8, 48]. "
         "Given: [32, 4] times [4, 48]"),
        (
            {"target_modules": ["q_proj"]},
            "it holds weights of model.layers.0.mlp.down_proj, which its target_modules do not "
            "name",
        ),
        ({"target_modules": "("}, None),
        ({"lora_alpha": None}, None),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_plain_lora_is_refused(settings, reason, base, adapter):
    change(adapter, **settings)
    assert_refused(base, adapter, reason)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({f"{Q0}.lora_B.weight": None}, f"of its weights for {Q0} one half is missing"),
        (
            {f"{Q0}.lora_A.weight": None, f"{Q0}.lora_B.weight": None},
            f"1 weights are missing, among them those of {Q0}, which its target_modules name",
        ),
        (
            {f"{Q0}.lora_A.weight": torch.zeros(4, 64)},
            f"its weights for {Q0} must be [32, 4] times [4, 32]. Given: [32, 4] times [4, 64]",
        ),
        (
            {f"{DOWN1}.lora_A.weight": torch.full((4, 48), torch.nan)},
            f"its weights for {DOWN1} are not finite",
        ),
        (
            {"model.embed_tokens.lora_embedding_A": torch.zeros(4, 320)},
            "its base_model.model.model.embed_tokens.lora_embedding_A is no part of a plain LoRA "
            "adapter of linear layers",
        ),
        (
            {f"{Q0}.lora_magnitude_vector": torch.zeros(32)},
            f"its base_model.model.{Q0}.lora_magnitude_vector is no part of a plain LoRA adapter "
            "of linear layers",
        ),
    ],
)
def test_weights_that_are_not_whole_plain_lora_are_refused(weights, reason, base, adapter):
    change_weights(adapter, weights)
    assert_refused(base, adapter, reason)


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("model.layers.2.self_attn.q_proj", (32, 32), "it changes NAME, which this model does not "
         "have"),
        ("model.layers.0.self_attn", (32, 32), "it changes NAME, which is no linear layer but a "
         "LlamaAttention"),
        ("lm_head", (320, 32), "it changes the model's head (NAME), which is not supported"),
    ],
)  # fmt: skip
def test_what_the_model_has_no_linear_for_is_refused(name, sizes, reason, base, adapter):
    change(adapter, target_modules=[*LLAMA_TARGETS, name])
    out, width = sizes
    halves = {"A": torch.zeros(4, width), "B": torch.zeros(out, 4)}
    change_weights(adapter, {f"{name}.lora_{half}.weight": t for half, t in halves.items()})
    if name == "lm_head":
        reason = reason.replace("NAME", name)
    assert_refused(base, adapter, reason.replace("NAME", name))


def test_an_adapter_of_a_wider_model_is_refused(base, tmp_path):
    wider = save_tiny_model("qwen3", tmp_path)  # its heads are wider
    source = save_adapter(wider, tmp_path / "mine", ["q_proj"])
    reason = f"its weights for {Q0} must be [32, 4] times [4, 32]. Given: [64, 4] times [4, 32]"
    assert_refused(base, source, reason)


def test_what_is_not_there_is_refused(base, adapter, tmp_path):
    (Path(adapter.path) / "adapter_model.safetensors").unlink()
    assert_refused(base, adapter, f"{adapter.path} holds no adapter_model.safetensors")
    nowhere = AdapterSource("mine", str(tmp_path / "nowhere"))
    assert_refused(base, nowhere, f"there is no directory {tmp_path / 'nowhere'}")


def test_an_adapter_of_the_hub_is_found_in_its_cache_at_its_revision(base, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--org--mine"
    save_adapter(base, folder / "snapshots" / "abc", LLAMA_TARGETS, strength=0.2)
    (folder / "refs").mkdir()
    (folder / "refs" / "v1").write_text("abc")
    config = EngineConfig(
        model=str(base),
        dtype="float32",
        cache_dir=tmp_path,
        lora_adapters=(AdapterSource("mine", "org/mine", "v1"),),
    )
    assert Model(config).adapters == ("mine",)
    config = replace(config, lora_adapters=(AdapterSource("mine", "org/mine", "v2"),))
    with pytest.raises(LoadError, match=r"^lora_adapters: cannot load mine: .*Error: "):
        Model(config)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_broken_file_is_refused(file, base, adapter):
    (Path(adapter.path) / file).write_bytes(b"{")
    assert_refused(base, adapter, None)


@pytest.mark.parametrize("kernels", [None, Reference(torch.float32)], ids=["modules", "decoder"])
def test_a_way_through_the_model_that_forgets_the_adapter_is_found_at_load(
    kernels, base, adapter, monkeypatch
):
    monkeypatch.setattr("engine.compute.adapted._Adapted.forward", lambda own, x: own._linear(x))
    monkeypatch.setattr("engine.compute.kernels.loop.Loop._add_low_rank", lambda *args: None)
    with pytest.raises(LoadError, match=r"cannot serve mine: with it the model does not give what"):
        load_tiny(base, lora_adapters=(adapter,), kernels=kernels)


def assert_refused(base, adapter, reason):
    """Expect one sentence; any where the reason is a library's own."""
    with pytest.raises(LoadError) as refused:
        load_tiny(base, lora_adapters=(adapter,))
    start = "lora_adapters: cannot load mine: "
    message = str(refused.value)
    assert message.startswith(start)
    assert "\n" not in message
    if reason is not None:
        assert message == start + reason
