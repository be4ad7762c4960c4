"""decoder_adapters: adapters as a Decoder adds them, joined as the linears of its layers are."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from engine.compute.kernels.table import (
    Heads,
    Kernels,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    interleaved,
)
from engine.compute.lora import LowRank as Part


def layer_adapters(
    kernels: Kernels, heads: Heads, layers: Sequence[Layer], parts: Mapping[str, Part]
) -> list[LayerAdapter]:
    """Pack an adapter's parts, by the names of a Llama's modules, for each of its layers."""
    return [
        _layer_adapter(kernels, heads, layer, parts, f"model.layers.{place}")
        for place, layer in enumerate(layers)
    ]


def _layer_adapter(
    kernels: Kernels, heads: Heads, layer: Layer, parts: Mapping[str, Part], path: str
) -> LayerAdapter:
    sizes = [heads.num_heads * heads.dim, *[heads.num_kv_heads * heads.dim] * 2]
    qkv = [parts.get(f"{path}.self_attn.{name}_proj") for name in "qkv"]
    gate_up = [parts.get(f"{path}.mlp.{name}_proj") for name in ("gate", "up")]
    inner = layer.down.k  # with the columns that pad the gate
    joined = _joined(gate_up, [inner, inner])
    if joined is not None:
        joined = Part(joined.a, interleaved(*joined.b.chunk(2)))
    down = parts.get(f"{path}.mlp.down_proj")
    if down is not None:
        down = Part(pad(down.a, (0, inner - down.a.shape[1])), down.b)
    return LayerAdapter(
        qkv=_packed(kernels, _joined(qkv, sizes), layer.qkv),
        out=_packed(kernels, parts.get(f"{path}.self_attn.o_proj"), layer.out),
        gate_up=_packed(kernels, joined, layer.gate_up),
        down=_packed(kernels, down, layer.down),
    )


def _joined(parts: Sequence[Part | None], sizes: Sequence[int]) -> Part | None:
    """Join the parts of linears of one input, each as wide as its size says."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    blocks: list[Tensor] = [
        given[0].b.new_zeros(size, 0)
        if part is None
        else pad(part.b, (0, 0, 0, size - len(part.b)))
        for part, size in zip(parts, sizes, strict=True)
    ]
    return Part(torch.cat([part.a for part in given]), torch.block_diag(*blocks))


def _packed(kernels: Kernels, part: Part | None, beside: Packed) -> LowRank | None:
    return None if part is None else kernels.low_rank(part.a, part.b, beside)
