"""native_layers: a model's layers as decoder.cpp reads them; checks what the C++ does not."""

from collections.abc import Sequence
from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from engine.compute.kernels.checks import (
    check,
    check_cache,
    check_logits,
    check_paged,
    check_rope_table,
    check_verdict,
)
from engine.compute.kernels.library import (
    AdapterTokensStruct,
    AdapterWorkspaceStruct,
    LayerAdapterStruct,
    LayerStruct,
    Library,
    ShapeStruct,
    StepStruct,
    adapter_struct,
    blocks_of,
    layer_struct,
    linear_struct,
)
from engine.compute.kernels.table import (
    AdapterTokens,
    Ends,
    Heads,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    Paged,
    RopeTable,
)
from engine.compute.kernels.workspace import Workspace, Workspaces
from engine.compute.logits import Logits


class NativeLayers:
    """Layers, and what stands before and behind them, as decoder.cpp reads them."""

    def __init__(
        self,
        library: Library,
        workspaces: Workspaces,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]],
        ends: Ends | None,
    ) -> None:
        self._decode = library.decode
        self._workspaces = workspaces
        self._heads = heads
        self._tensors = (layers, k, v, adapters, ends)  # what the pointers point to
        self._ends = ends
        self._hidden = layers[0].qkv.k
        self._is_int8 = any(layer.qkv.scales is not None for layer in layers)
        hidden, inner = self._hidden, layers[0].down.k
        self._widths = [hidden, hidden, heads.width, heads.num_heads * heads.dim, inner]
        self._workspace = Workspace()
        self._adapter_workspace = Workspace()
        for layer, keys, values in zip(layers, k, v, strict=True):
            self._check_layer(layer)
            check_cache(heads, keys, values)
            if keys.stride() != k[0].stride():
                raise ValueError("a kernel wants the caches of all layers to lie alike")
        self._block_size = k[0].shape[2]
        self._shape = ShapeStruct(
            len(layers),
            self._hidden,
            heads.num_heads,
            heads.num_kv_heads,
            heads.dim,
            *blocks_of(k[0]),
            epsilon,
        )
        if ends is not None:
            self._add_ends(ends)
        entries = map(layer_struct, layers, k, v)
        self._layers = (LayerStruct * len(layers))(*entries)
        self._adapters = [self._adapter_structs(layers, adapter) for adapter in adapters]
        parts = [part for adapter in adapters for layer in adapter for part in layer.parts]
        self._max_rank = max((part.a.n for part in parts if part is not None), default=0)

    def add(
        self, x: Tensor, paged: Paged, rope_table: RopeTable, adapted: Sequence[AdapterTokens] = ()
    ) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        check(x, (len(x), self._hidden))
        step = self._step(len(x), paged, rope_table, adapted)
        step.x = x.data_ptr()
        self._run(step)

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
        assert self._ends is not None, "This is a bug. These are layers only."
        num_logits = len(logits_at)
        check(token_ids, (len(token_ids),), torch.int64)
        check(logits_at, (num_logits,), torch.int64)
        tops = check_logits(out, num_logits, self._ends.head.n)
        step = self._step(len(token_ids), paged, rope_table, adapted)
        step.ids, step.num_logits = token_ids.data_ptr(), num_logits
        step.logits_at = logits_at.data_ptr()
        step.logits, step.tops = out.values.data_ptr(), tops.data_ptr()
        self._run(step)

    def _run(self, step: StepStruct) -> None:
        check_verdict(self._decode(byref(self._shape), self._layers, byref(step)))

    def _step(
        self, num_tokens: int, paged: Paged, rope_table: RopeTable, adapted: Sequence[AdapterTokens]
    ) -> StepStruct:
        """Say what a step's tokens see, and where there is room for what comes of them."""
        heads = self._heads
        check_paged(paged, num_tokens)
        check_rope_table(rope_table, heads)
        num_rows, width = paged.tables.shape
        x, y, qkv, attended, h = self._results(num_tokens)
        group = heads.num_heads // heads.num_kv_heads
        step = StepStruct(
            num_tokens,
            paged.positions.data_ptr(),
            paged.slots.data_ptr(),
            paged.rows.data_ptr(),
            paged.tables.data_ptr(),
            num_rows,
            width,
            x=x,
            cosine=rope_table.cosine.data_ptr(),
            sine=rope_table.sine.data_ptr(),
            num_positions=len(rope_table.cosine),
            y=y,
            qkv=qkv,
            attended=attended,
            h=h,
            scratch=self._workspaces.attention(group, width * self._block_size),
            quantised=self._workspaces.int8(num_tokens, max(self._widths))
            if self._is_int8
            else None,
        )
        if adapted:
            self._add_adapters(step, num_tokens, adapted)
        return step

    def _add_ends(self, ends: Ends) -> None:
        """Point to what stands before the layers and behind them."""
        num_ids, hidden = ends.embedding.shape
        check(ends.embedding, (num_ids, self._hidden))
        check(ends.norm, (hidden,))
        if ends.head.k != hidden:
            raise ValueError(f"a head has another width than the layers. Given: {ends.head.k}")
        self._shape.embedding, self._shape.norm = ends.embedding.data_ptr(), ends.norm.data_ptr()
        self._shape.num_ids, self._shape.head = num_ids, linear_struct(ends.head)

    def _add_adapters(
        self, step: StepStruct, num_tokens: int, adapted: Sequence[AdapterTokens]
    ) -> None:
        """Tell a step which tokens have an adapter."""
        for _, tokens in adapted:
            check(tokens, (len(tokens),), torch.int64)
            if not 0 <= int(tokens.min()) <= int(tokens.max()) < num_tokens:
                raise ValueError(f"a kernel wants some of {num_tokens} tokens. Given: {tokens}")
        step.num_adapters = len(adapted)
        step.adapters = (AdapterTokensStruct * len(adapted))(
            *(
                AdapterTokensStruct(self._adapters[number], len(tokens), tokens.data_ptr())
                for number, tokens in adapted
            )
        )
        most = max(len(tokens) for _, tokens in adapted)
        widest, inner = max(self._widths), self._widths[-1]
        sizes = (
            most * widest * torch.bfloat16.itemsize,
            most * self._max_rank * torch.bfloat16.itemsize,
            most * max(*self._widths, 2 * inner) * torch.float32.itemsize,
            num_tokens * 2 * inner * torch.float32.itemsize,
        )
        start = self._adapter_workspace.of(sum(sizes))
        gathered, narrow, added, step.sums = (start + sum(sizes[:at]) for at in range(len(sizes)))
        step.adapter_workspace = AdapterWorkspaceStruct(gathered, narrow, added)

    def _adapter_structs(self, layers: Sequence[Layer], adapter: Sequence[LayerAdapter]) -> Any:
        for layer, own in zip(layers, adapter, strict=True):
            weights = (layer.qkv, layer.out, layer.gate_up, layer.down)
            for weight, part in zip(weights, own.parts, strict=True):
                if part is not None:
                    _check_low_rank(part, weight)
        return (LayerAdapterStruct * len(adapter))(*map(adapter_struct, adapter))

    def _results(self, num_tokens: int) -> list[int]:
        """Divide the room for results; they are pointers."""
        token_bytes = [width * torch.bfloat16.itemsize for width in self._widths]
        start = self._workspace.of(num_tokens * sum(token_bytes))
        return [start + num_tokens * sum(token_bytes[:place]) for place in range(len(token_bytes))]

    def _check_layer(self, layer: Layer) -> None:
        _, hidden, width, attended, inner = self._widths
        for weight, n, k in (
            (layer.qkv, width, hidden),
            (layer.out, hidden, attended),
            (layer.gate_up, 2 * inner, hidden),
            (layer.down, hidden, inner),
        ):
            if (weight.n, weight.k) != (n, k):
                raise ValueError(f"a layer wants a weight {[n, k]}. Given: {[weight.n, weight.k]}")
        check(layer.norm, (hidden,))
        check(layer.mlp_norm, (hidden,))
        for norm in (layer.q_norm, layer.k_norm):
            if norm is not None:
                check(norm, (self._heads.dim,))


def _check_low_rank(part: LowRank, weight: Packed) -> None:
    given = [part.a.k, part.a.n, part.b.k, part.b.n]
    if given != [weight.k, part.b.k, part.b.k, weight.n] or part.b.k % 2:
        raise ValueError(
            f"an adapter of a weight {[weight.n, weight.k]} has other sizes, or an odd rank. "
            f"Given: {given}"
        )
