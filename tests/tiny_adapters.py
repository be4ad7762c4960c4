"""Random LoRA adapters in PEFT's format, and models that they are merged into: the truth."""

import json
import math
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from engine.config import AdapterSource

LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(
    model: Path,
    path: Path,
    targets: list[str],
    *,
    rank: int = 4,
    ranks: dict[str, int] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    **config: object,
) -> AdapterSource:
    """Write a random adapter whose products are about as large as the weights."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, (out, width) in linear_sizes(model).items():
        if name.rpartition(".")[2] not in targets:
            continue
        own = next((r for end, r in (ranks or {}).items() if name.endswith(end)), rank)
        prefix = f"base_model.model.{name}"
        a = torch.randn(own, width, generator=generator) * 0.6
        b = torch.randn(out, own, generator=generator) * strength
        weights |= {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/model",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": targets,
        "rank_pattern": ranks or {},
        "alpha_pattern": {},
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        **config,
    }
    path.mkdir(parents=True)
    save_file(weights, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(settings))
    return AdapterSource(path.name, str(path))


def linear_sizes(model: Path) -> dict[str, tuple[int, int]]:
    """Give what each linear puts out and takes in, the head's excepted."""
    module = AutoModelForCausalLM.from_pretrained(model)
    sizes = {}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear) and part is not module.get_output_embeddings():
            sizes[name] = (part.out_features, part.in_features)
        elif isinstance(part, Conv1D):
            sizes[name] = (part.weight.shape[1], part.weight.shape[0])
    return sizes


def save_merged(model: Path, adapter: AdapterSource, path: Path) -> Path:
    """Write the model with the adapter's products added to its weights, by PEFT's rule."""
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = json.loads((Path(adapter.path) / "adapter_config.json").read_text())
    weights = load_file(Path(adapter.path) / "adapter_model.safetensors")
    for key, a in weights.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = weights[key.replace("lora_A", "lora_B")]
        patterns = config["alpha_pattern"].items()
        alpha = next((v for p, v in patterns if re.search(rf"{p}$", name)), config["lora_alpha"])
        scale = alpha / (math.sqrt(len(a)) if config["use_rslora"] else len(a))
        part = module.get_submodule(name)
        change = (scale * b @ a).T if isinstance(part, Conv1D) else scale * b @ a
        with torch.no_grad():
            part.weight += change
    module.save_pretrained(path)
    AutoTokenizer.from_pretrained(model).save_pretrained(path)
    return path
