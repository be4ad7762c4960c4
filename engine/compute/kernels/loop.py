"""loop: what decoder.cpp does in one call, kernel by kernel, where not all of them are of C++."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.compute.kernels.table import Epilogue, Heads, Kernels, Layer, Paged, Turns


@dataclass(frozen=True, slots=True)
class Loop:
    """Layers that were joined to a cache."""

    kernels: Kernels
    heads: Heads
    epsilon: float
    layers: Sequence[Layer]
    k: Sequence[Tensor]
    v: Sequence[Tensor]

    def add(self, x: Tensor, paged: Paged, turns: Turns) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        kernels, heads, num_tokens = self.kernels, self.heads, len(x)
        y = torch.empty_like(x)
        for layer, k, v in zip(self.layers, self.k, self.v, strict=True):
            kernels.rms_norm(x, layer.norm, self.epsilon, y)
            qkv = x.new_empty(num_tokens, layer.qkv.n)
            kernels.linear(y, layer.qkv, qkv)
            norms = (layer.q_norm, layer.k_norm)
            kernels.rope_write(qkv, heads, norms, self.epsilon, turns, paged, k, v)
            queries = qkv.unflatten(1, (-1, heads.dim))[:, : heads.num_heads]
            attended = torch.empty_like(queries)
            kernels.attend(queries, k, v, paged, layer.window, layer.scale, attended)
            kernels.linear(attended.flatten(1), layer.out, x, Epilogue.ADD)
            kernels.rms_norm(x, layer.mlp_norm, self.epsilon, y)
            h = x.new_empty(num_tokens, layer.down.k)
            kernels.linear(y, layer.gate_up, h, Epilogue.SILU_MUL)
            kernels.linear(h, layer.down, x, Epilogue.ADD)
