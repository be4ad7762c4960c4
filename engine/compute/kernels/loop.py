"""loop: what decoder.cpp does in one call, kernel by kernel, where not all of them are of C++."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from engine.compute.kernels.epilogues import finish
from engine.compute.kernels.table import (
    AdapterTokens,
    Ends,
    Epilogue,
    Heads,
    Kernels,
    Layer,
    LayerAdapter,
    LowRank,
    Paged,
    RopeTable,
)
from engine.compute.logits import Logits


@dataclass(frozen=True, slots=True)
class Loop:
    """Layers that were joined to a cache, and to what stands before and behind them."""

    kernels: Kernels
    heads: Heads
    epsilon: float
    layers: Sequence[Layer]
    k: Sequence[Tensor]
    v: Sequence[Tensor]
    adapters: Sequence[Sequence[LayerAdapter]]
    ends: Ends | None

    def forward(
        self,
        token_ids: Tensor,
        logits_at: Tensor,
        paged: Paged,
        rope_table: RopeTable,
        out: Logits,
        adapted: Sequence[AdapterTokens] = (),
    ) -> None:
        """Run a step of `token_ids [tokens]`; `out` is for the tokens at `logits_at`."""
        assert self.ends is not None, "This is a bug. These are layers only."
        x = embedding(token_ids, self.ends.embedding)
        self.add(x, paged, rope_table, adapted)
        x = x[logits_at]
        self.kernels.rms_norm(x, self.ends.norm, self.epsilon, x)
        self.kernels.logits(x, self.ends.head, out)

    def add(
        self, x: Tensor, paged: Paged, rope_table: RopeTable, adapted: Sequence[AdapterTokens] = ()
    ) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        kernels, heads, num_tokens = self.kernels, self.heads, len(x)
        y = torch.empty_like(x)
        for place, (layer, k, v) in enumerate(zip(self.layers, self.k, self.v, strict=True)):
            own = [(self.adapters[number][place], tokens) for number, tokens in adapted]
            kernels.rms_norm(x, layer.norm, self.epsilon, y)
            qkv = x.new_empty(num_tokens, layer.qkv.n)
            kernels.linear(y, layer.qkv, qkv)
            for adapter, tokens in own:
                self._add_low_rank(adapter.qkv, y, tokens, qkv)
            norms = (layer.q_norm, layer.k_norm)
            kernels.rope_write(qkv, heads, norms, self.epsilon, rope_table, paged, k, v)
            queries = qkv.unflatten(1, (-1, heads.dim))[:, : heads.num_heads]
            attended = torch.empty_like(queries)
            kernels.attend(queries, k, v, paged, layer.window, layer.scale, attended)
            kernels.linear(attended.flatten(1), layer.out, x, Epilogue.ADD)
            for adapter, tokens in own:
                self._add_low_rank(adapter.out, attended.flatten(1), tokens, x)
            kernels.rms_norm(x, layer.mlp_norm, self.epsilon, y)
            h = x.new_empty(num_tokens, layer.down.k)
            if own:
                gate_up = x.new_empty(num_tokens, layer.gate_up.n)
                kernels.linear(y, layer.gate_up, gate_up)
                for adapter, tokens in own:
                    self._add_low_rank(adapter.gate_up, y, tokens, gate_up)
                finish(gate_up, h, Epilogue.SILU_MUL)
            else:
                kernels.linear(y, layer.gate_up, h, Epilogue.SILU_MUL)
            kernels.linear(h, layer.down, x, Epilogue.ADD)
            for adapter, tokens in own:
                self._add_low_rank(adapter.down, h, tokens, x)

    def _add_low_rank(self, part: LowRank | None, x: Tensor, tokens: Tensor, y: Tensor) -> None:
        if part is None:
            return
        narrow = x.new_empty(len(tokens), part.a.n)
        self.kernels.linear(x[tokens], part.a, narrow)
        added = x.new_empty(len(tokens), part.b.n)
        self.kernels.linear(narrow, part.b, added)
        y[tokens] += added
