"""lora: reads LoRA adapters as PEFT saves them; what is more than plain LoRA is refused in words.

Knows the format, not how a step adds an adapter.
https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/config.py
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from engine.config import AdapterSource
from engine.errors import LoadError

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_MORE_THAN_LORA = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
"""Each of them, where it is set, changes what an adapter computes."""
_CHANGES_BASE = re.compile(r"pissa.*|olora|corda.*|loftq|lora_ga")
"""Beginnings after which an adapter fits only weights that were changed with it."""


class LowRank(NamedTuple):
    """What is added to a linear: `(x a^T) b^T`."""

    a: Tensor
    """`[rank, in]`, the rank filled up to an even one, as kernels want it."""
    b: Tensor
    """`[out, rank]`, times the adapter's scale."""

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply `x [..., in]` to `[..., out]`."""
        return x @ self.a.T @ self.b.T


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits the model."""

    name: str
    parts: Mapping[str, LowRank]
    """By the names of the modules that they are added to."""


def read_adapter(
    source: AdapterSource,
    model: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    cache_dir: Path | None,
) -> Adapter:
    """Read an adapter and see that it fits the model; raises LoadError, a sentence.

    The modules of the model are still the library's own.
    """
    try:
        config = json.loads(_file(source, _CONFIG, cache_dir).read_text())
        weights = load_file(_file(source, _WEIGHTS, cache_dir))
        pairs = _pairs(weights)
        _check_config(config)
        _check_targets(config, pairs.keys(), model)
        parts = {
            name: _part(config, name, pair, model).to(dtype, device) for name, pair in pairs.items()
        }
    except Exception as error:  # the libraries raise a dozen kinds, all for the operator
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(" .:")
        if not isinstance(error, _Unfit):
            reason = f"{type(error).__name__}: {reason}"
        raise LoadError(f"lora_adapters: cannot load {source.name}: {reason}") from error
    return Adapter(source.name, parts)


class _Unfit(Exception):
    """The adapter is none that this model can be served with; the message says why."""


class _Pair(NamedTuple):
    a: Tensor
    b: Tensor
    scale: float = 1.0

    def to(self, dtype: torch.dtype, device: torch.device) -> LowRank:
        odd = len(self.a) % 2
        a, b = pad(self.a, (0, 0, 0, odd)), pad(self.b.float() * self.scale, (0, odd))
        return LowRank(a.to(device, dtype).contiguous(), b.to(device, dtype).contiguous())


def _file(source: AdapterSource, name: str, cache_dir: Path | None) -> Path:
    """Find a file of an adapter in its directory, or on the hub."""
    folder = Path(source.path).expanduser()
    if folder.is_dir():
        if not (folder / name).is_file():
            raise _Unfit(f"{source.path} holds no {name}")
        return folder / name
    if folder.is_absolute() or source.path.startswith((".", "~")):
        raise _Unfit(f"there is no directory {source.path}")
    return Path(hf_hub_download(source.path, name, revision=source.revision, cache_dir=cache_dir))


def _pairs(weights: Mapping[str, Tensor]) -> dict[str, _Pair]:
    """Put both halves of each module's product together."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        half = next((half for half in (_A, _B) if key.endswith(half)), None)
        if half is None:
            raise _Unfit(f"its {key} is no part of a plain LoRA adapter of linear layers")
        name = key.removesuffix(half).removeprefix(_PREFIX)
        halves.setdefault(name, {})[half] = tensor
    for name, found in halves.items():
        if len(found) < 2:
            raise _Unfit(f"of its weights for {name} one half is missing")
    if not halves:
        raise _Unfit("it holds no weights")
    return {name: _Pair(found[_A], found[_B]) for name, found in halves.items()}


def _check_config(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _Unfit(f"its peft_type must be LORA. Given: {kind}")
    for field in _MORE_THAN_LORA:
        if config.get(field):
            raise _Unfit(f"it is more than plain LoRA: {field} is set")
    if config.get("bias", "none") != "none":
        raise _Unfit(f"it is more than plain LoRA: bias must be none. Given: {config['bias']}")
    beginning = config.get("init_lora_weights")
    if isinstance(beginning, str) and _CHANGES_BASE.fullmatch(beginning.lower()):
        raise _Unfit(
            f"it began as {beginning}, with other weights of the model; convert it to plain LoRA"
        )


def _check_targets(config: Mapping[str, Any], names: Iterable[str], model: nn.Module) -> None:
    """See that the weights are those of the target modules, no more and no fewer."""
    has_all = not (config.get("layers_to_transform") or config.get("exclude_modules"))
    wanted = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _is_target(config["target_modules"], name)
    }
    missing = wanted.difference(names)
    if missing and has_all:
        raise _Unfit(
            f"{len(missing)} weights are missing, among them those of {min(missing)}, which its "
            "target_modules name"
        )
    for name in names:
        if not _is_target(config["target_modules"], name):
            raise _Unfit(f"it holds weights of {name}, which its target_modules do not name")


def _is_target(targets: str | list[str], name: str) -> bool:
    """Tell as PEFT does: a string is a regular expression, a list has ends of names."""
    if targets == "all-linear":
        return not name.endswith("lm_head")
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _part(config: Mapping[str, Any], name: str, pair: _Pair, model: nn.Module) -> _Pair:
    """Check the sizes of one product, and say its scale."""
    size = _size(name, model)
    rank = int(_of_pattern(config.get("rank_pattern"), name, config["r"]))
    alpha = float(_of_pattern(config.get("alpha_pattern"), name, config["lora_alpha"]))
    given = [*pair.b.shape, *pair.a.shape]
    if given != [size[0], rank, rank, size[1]]:
        raise _Unfit(
            f"its weights for {name} must be {[size[0], rank]} times {[rank, size[1]]}. "
            f"Given: {list(pair.b.shape)} times {list(pair.a.shape)}"
        )
    if not (pair.a.isfinite().all() and pair.b.isfinite().all()):
        raise _Unfit(f"its weights for {name} are not finite")
    return pair._replace(scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _size(name: str, model: nn.Module) -> tuple[int, int]:
    """Give what a linear of the model puts out and takes in."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise _Unfit(f"it changes {name}, which this model does not have") from None
    if module is getattr(model, "get_output_embeddings", lambda: None)():
        raise _Unfit(f"it changes the model's head ({name}), which is not supported")
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    if not isinstance(module, nn.Linear):
        raise _Unfit(f"it changes {name}, which is no linear layer but a {type(module).__name__}")
    return module.out_features, module.in_features


def _of_pattern(patterns: Mapping[str, Any] | None, name: str, otherwise: Any) -> Any:
    """Look a module up as PEFT does: by the first pattern that ends its name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return otherwise
