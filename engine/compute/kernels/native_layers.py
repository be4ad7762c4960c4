"""native_layers: a model's layers as decoder.cpp reads them; checks what the C++ does not."""

from collections.abc import Sequence
from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from engine.compute.kernels.checks import check, check_cache, check_paged, check_turns
from engine.compute.kernels.library import (
    AdapterRoomStruct,
    AdapterTokensStruct,
    LayerAdapterStruct,
    LayerStruct,
    Library,
    ShapeStruct,
    StepStruct,
    adapter_struct,
    layer_struct,
)
from engine.compute.kernels.rooms import Room, Rooms
from engine.compute.kernels.table import (
    AdapterTokens,
    Heads,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    Paged,
    Turns,
)


class NativeLayers:
    """Layers as decoder.cpp reads them."""

    def __init__(
        self,
        library: Library,
        rooms: Rooms,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]],
    ) -> None:
        self._decode = library.decode
        self._rooms = rooms
        self._heads = heads
        self._tensors = (layers, k, v, adapters)  # what the pointers point to
        self._hidden = layers[0].qkv.k
        self._is_int8 = any(layer.qkv.scales is not None for layer in layers)
        self._widths = [self._hidden, heads.width, heads.num_heads * heads.dim, layers[0].down.k]
        self._work = Room()
        self._adapter_work = Room()
        for layer, keys, values in zip(layers, k, v, strict=True):
            self._check_layer(layer)
            check_cache(heads, keys, values)
        _, num_blocks, block_size, _ = k[0].shape
        self._block_size = block_size
        self._shape = ShapeStruct(
            len(layers),
            self._hidden,
            heads.num_heads,
            heads.num_kv_heads,
            heads.dim,
            num_blocks,
            block_size,
            epsilon,
        )
        entries = map(layer_struct, layers, k, v)
        self._layers = (LayerStruct * len(layers))(*entries)
        self._adapters = [self._adapter_structs(layers, adapter) for adapter in adapters]
        parts = [part for adapter in adapters for layer in adapter for part in layer.parts]
        self._max_rank = max((part.a.n for part in parts if part is not None), default=0)

    def add(
        self, x: Tensor, paged: Paged, turns: Turns, adapted: Sequence[AdapterTokens] = ()
    ) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        num_tokens, heads = len(x), self._heads
        check(x, (num_tokens, self._hidden))
        check_paged(paged, num_tokens)
        check_turns(turns, heads, paged)
        group = heads.num_heads // heads.num_kv_heads
        step = StepStruct(
            num_tokens,
            paged.positions.data_ptr(),
            paged.slots.data_ptr(),
            paged.rows.data_ptr(),
            paged.tables.data_ptr(),
            paged.tables.shape[1],
            x.data_ptr(),
            turns.cosine.data_ptr(),
            turns.sine.data_ptr(),
            *self._results(num_tokens),
            self._rooms.attention(group, paged.tables.shape[1] * self._block_size),
            self._rooms.int8(num_tokens, max(self._widths)) if self._is_int8 else None,
        )
        if adapted:
            self._add_adapters(step, num_tokens, adapted)
        self._decode(byref(self._shape), self._layers, byref(step))

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
        start = self._adapter_work.of(sum(sizes))
        gathered, narrow, added, step.sums = (start + sum(sizes[:at]) for at in range(len(sizes)))
        step.adapter_room = AdapterRoomStruct(gathered, narrow, added)

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
        start = self._work.of(num_tokens * sum(token_bytes))
        return [start + num_tokens * sum(token_bytes[:place]) for place in range(len(token_bytes))]

    def _check_layer(self, layer: Layer) -> None:
        hidden, width, attended, inner = self._widths
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
