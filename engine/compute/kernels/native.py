"""native: the C++ kernels as functions on tensors, and whether they run here.

The C++ checks nothing, so every call's tensors are checked in this file.
"""

from collections.abc import Sequence
from ctypes import byref
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    pointer,
)
from engine.compute.kernels.table import (
    AdapterTokens,
    Choice,
    Epilogue,
    Heads,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    Paged,
    Turns,
)
from engine.compute.logits import Logits
from engine.errors import EngineError

_VERSION = 5
_PANEL = 32
_LOGITS = 3
"""The epilogue that is no Epilogue, since it writes two tensors."""
_PLACES = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
_BFLOAT16 = torch.bfloat16


class KernelsMissing(EngineError):
    """The C++ kernels do not run here; the message says why."""


class Native:
    """The C++ kernels, for bfloat16 on a CPU; each is described where it is written."""

    dtype = _BFLOAT16

    def __init__(self, path: Path) -> None:
        """Open the library; raises KernelsMissing."""
        try:
            self._library = Library(path)
        except (OSError, AttributeError) as error:
            raise KernelsMissing(f"the library of kernels does not load ({error})") from error
        if self._library.version() != _VERSION:
            raise KernelsMissing("the library of kernels is another version's: install again")
        missing = self._library.missing()
        if missing is not None:
            raise KernelsMissing(f"this processor has no {missing.decode()}")
        self._scratch = _Room()
        self._int8_room = _Room()

    def pack(self, weight: Tensor, bias: Tensor | None = None, *, is_int8: bool = False) -> Packed:
        """Lay out a weight `[out, in]` for `linear`, of an even width.

        With `is_int8` it is quantised, and its width a multiple of four.
        """
        n, k = weight.shape
        if k % (4 if is_int8 else 2):
            multiple = "a multiple of four" if is_int8 else "even"
            raise ValueError(f"a kernel wants weights whose width is {multiple}. Given: {[n, k]}")
        weight = weight.to(_BFLOAT16).contiguous()
        bias = None if bias is None else bias.to(_BFLOAT16).contiguous()
        dtype, scales = (torch.uint8, torch.empty(n)) if is_int8 else (_BFLOAT16, None)
        packed = torch.zeros(-(-n // _PANEL) * _PANEL * k, dtype=dtype)
        if scales is None:
            self._library.pack(weight.data_ptr(), n, k, packed.data_ptr())
        else:
            pointers = packed.data_ptr(), scales.data_ptr()
            self._library.pack_int8(weight.data_ptr(), n, k, *pointers)
        return Packed(packed, bias, n, k, scales)

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        width = weight.n // 2 if epilogue is Epilogue.SILU_MUL else weight.n
        _check(out, (len(x), width))
        self._multiply(x, weight, out, None, epilogue.value)

    def logits(self, x: Tensor, weight: Packed, out: Logits) -> None:
        """Multiply `x [rows, in]` into `out`, for as many rows."""
        _check_logits(out, len(x), weight.n)
        self._multiply(x, weight, out.values, out.tops, _LOGITS)

    def _multiply(
        self, x: Tensor, weight: Packed, out: Tensor, tops: Tensor | None, epilogue: int
    ) -> None:
        num_rows, k = x.shape
        _check(x, (num_rows, weight.k))
        given = x.data_ptr(), num_rows, k, weight.data.data_ptr()
        rest = pointer(weight.bias), weight.n, out.data_ptr(), pointer(tops), epilogue
        if weight.scales is None:
            self._library.linear(*given, *rest)
        else:
            room = self.int8_room(num_rows, k)
            self._library.linear_int8(*given, weight.scales.data_ptr(), *rest, room)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        num_rows, width = x.shape
        _check(x, (num_rows, width))
        _check(out, (num_rows, width))
        _check(weight, (width,))
        self._library.rms_norm(
            x.data_ptr(), num_rows, width, weight.data_ptr(), epsilon, out.data_ptr()
        )

    def rope_write(
        self,
        qkv: Tensor,
        heads: Heads,
        norms: tuple[Tensor | None, Tensor | None],
        epsilon: float,
        turns: Turns,
        paged: Paged,
        k: Tensor,
        v: Tensor,
    ) -> None:
        """Turn `qkv [tokens, heads.width]` in place; put keys and values into a layer's cache."""
        _check(qkv, (len(qkv), heads.width))
        _check_paged(paged, len(qkv))
        _check_cache(heads, k, v)
        _check_turns(turns, heads, paged)
        self._library.rope_write(
            qkv.data_ptr(),
            len(qkv),
            heads.num_heads,
            heads.num_kv_heads,
            heads.dim,
            pointer(norms[0]),
            pointer(norms[1]),
            epsilon,
            paged.positions.data_ptr(),
            turns.cosine.data_ptr(),
            turns.sine.data_ptr(),
            paged.slots.data_ptr(),
            k.data_ptr(),
            v.data_ptr(),
            k.shape[1],
            k.shape[2],
        )

    def write(self, key: Tensor, value: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put `key` and `value`, `[kv_heads, tokens, dim]`, into a layer's cache."""
        num_kv_heads, num_tokens, dim = key.shape
        _check_cache(Heads(num_kv_heads, num_kv_heads, dim), k, v)
        _check(slots, (num_tokens,), torch.int64)
        key, value = key.contiguous(), value.contiguous()
        _check(key, (num_kv_heads, num_tokens, dim))
        _check(value, key.shape)
        self._library.write(
            key.data_ptr(),
            value.data_ptr(),
            num_tokens,
            num_kv_heads,
            dim,
            slots.data_ptr(),
            k.data_ptr(),
            v.data_ptr(),
            k.shape[1],
            k.shape[2],
        )

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        if k.dtype is not _BFLOAT16 or k.device.type != "cpu" or k.shape != v.shape:
            return False
        return bool(self._library.attend_can(k.shape[3], num_heads // k.shape[0], k.shape[2]))

    def attend(
        self,
        queries: Tensor,
        k: Tensor,
        v: Tensor,
        paged: Paged,
        window: int | None,
        scale: float,
        out: Tensor,
    ) -> None:
        """Attend each token's queries, `[tokens, heads, dim]`, to what the token sees."""
        num_tokens, num_heads, dim = queries.shape
        num_kv_heads, num_blocks, block_size, _ = k.shape
        if queries.stride()[1:] != (dim, 1):
            queries = queries.contiguous()
        _check(out, queries.shape, queries.dtype)
        _check_paged(paged, num_tokens)
        _check_cache(Heads(num_heads, num_kv_heads, dim), k, v)
        self._library.attend(
            queries.data_ptr(),
            queries.stride(0),
            num_tokens,
            num_heads,
            num_kv_heads,
            dim,
            k.data_ptr(),
            v.data_ptr(),
            num_blocks,
            block_size,
            paged.tables.data_ptr(),
            paged.tables.shape[1],
            paged.rows.data_ptr(),
            paged.positions.data_ptr(),
            window or 0,
            scale,
            self.scratch(num_heads // num_kv_heads, paged.tables.shape[1] * block_size),
            out.data_ptr(),
        )

    def mask(self, row: Tensor, mask: Tensor, out: Logits) -> None:
        """Copy a row of logits, which may be `out`'s own, without what the mask forbids."""
        width = len(row)
        tops = _check_logits(out, 1, width)
        _check(row, (width,), torch.float32)
        if len(mask) < tops.shape[1]:
            raise ValueError(f"a kernel wants a mask of {width} bits. Given: {32 * len(mask)}")
        _check(mask, (len(mask),), torch.int32)
        pointers = mask.data_ptr(), out.values.data_ptr(), tops.data_ptr()
        self._library.mask(row.data_ptr(), width, *pointers)

    def greedy(self, logits: Logits, rows: Sequence[int], *, is_shown: bool) -> list[Choice]:
        """Choose the best of some rows of logits, with its logprob if shown."""
        num_logits, width = logits.values.shape
        tops = _check_logits(logits, num_logits, width)
        if not 0 <= min(rows) <= max(rows) < num_logits:
            raise ValueError(f"a kernel wants rows of {num_logits}. Given: {rows}")
        places = torch.tensor(rows)
        ids = torch.empty_like(places)
        logprobs = torch.empty(len(rows)) if is_shown else None
        given = logits.values.data_ptr(), tops.data_ptr(), width, places.data_ptr(), len(rows)
        self._library.greedy(*given, ids.data_ptr(), pointer(logprobs))
        shown = [None] * len(rows) if logprobs is None else logprobs.tolist()
        return list(zip(ids.tolist(), shown, strict=True))

    def scratch(self, group: int, max_length: int) -> int:
        """Give a pointer to room for attention over so many tokens."""
        return self._scratch.of(self._library.attend_scratch(group, max_length))

    def int8_room(self, num_rows: int, width: int) -> int:
        """Give a pointer to room for rows of 8 bits."""
        return self._int8_room.of(self._library.int8_room(num_rows, width))

    def decoder(
        self,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]] = (),
    ) -> "NativeLayers":
        """Join layers to a cache."""
        return NativeLayers(self, self._library.decode, heads, epsilon, layers, k, v, adapters)


class _Room:
    """Memory that is kept from call to call, and grows."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def of(self, num_bytes: int) -> int:
        """Give a pointer to so many bytes; good until more are wanted."""
        if len(self._bytes) < num_bytes:
            self._bytes = torch.empty(num_bytes + num_bytes // 4, dtype=torch.uint8)
        return self._bytes.data_ptr()


class NativeLayers:
    """Layers as decoder.cpp reads them."""

    def __init__(
        self,
        native: Native,
        decode: Any,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]],
    ) -> None:
        self._native = native
        self._decode = decode
        self._heads = heads
        self._tensors = (layers, k, v, adapters)  # what the pointers point to
        self._hidden = layers[0].qkv.k
        self._is_int8 = any(layer.qkv.scales is not None for layer in layers)
        self._widths = [self._hidden, heads.width, heads.num_heads * heads.dim, layers[0].down.k]
        self._work = _Room()
        self._adapter_work = _Room()
        for layer, keys, values in zip(layers, k, v, strict=True):
            self._check_layer(layer)
            _check_cache(heads, keys, values)
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
        ranks = [part.a.n for adapter in adapters for layer in adapter for part in _parts(layer)]
        self._max_rank = max(ranks, default=0)

    def add(
        self, x: Tensor, paged: Paged, turns: Turns, adapted: Sequence[AdapterTokens] = ()
    ) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        num_tokens, heads = len(x), self._heads
        _check(x, (num_tokens, self._hidden))
        _check_paged(paged, num_tokens)
        _check_turns(turns, heads, paged)
        group = heads.num_heads // heads.num_kv_heads
        step = StepStruct(
            num_tokens,
            x.data_ptr(),
            paged.positions.data_ptr(),
            paged.slots.data_ptr(),
            paged.rows.data_ptr(),
            paged.tables.data_ptr(),
            paged.tables.shape[1],
            turns.cosine.data_ptr(),
            turns.sine.data_ptr(),
            *self._rooms(num_tokens),
            self._native.scratch(group, paged.tables.shape[1] * self._block_size),
            self._native.int8_room(num_tokens, max(self._widths)) if self._is_int8 else None,
        )
        if adapted:
            self._add_adapters(step, num_tokens, adapted)
        self._decode(byref(self._shape), self._layers, byref(step))

    def _add_adapters(
        self, step: StepStruct, num_tokens: int, adapted: Sequence[AdapterTokens]
    ) -> None:
        """Tell a step which tokens have an adapter."""
        for _, tokens in adapted:
            _check(tokens, (len(tokens),), torch.int64)
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
            most * widest * _BFLOAT16.itemsize,
            most * self._max_rank * _BFLOAT16.itemsize,
            most * max(*self._widths, 2 * inner) * torch.float32.itemsize,
            num_tokens * 2 * inner * torch.float32.itemsize,
        )
        start = self._adapter_work.of(sum(sizes))
        gathered, narrow, added, step.sums = (start + sum(sizes[:at]) for at in range(len(sizes)))
        step.adapter_room = AdapterRoomStruct(gathered, narrow, added)

    def _adapter_structs(self, layers: Sequence[Layer], adapter: Sequence[LayerAdapter]) -> Any:
        for layer, own in zip(layers, adapter, strict=True):
            weights = (layer.qkv, layer.out, layer.gate_up, layer.down)
            for weight, part in zip(
                weights, (own.qkv, own.out, own.gate_up, own.down), strict=True
            ):
                if part is not None:
                    _check_low_rank(part, weight)
        return (LayerAdapterStruct * len(adapter))(*map(adapter_struct, adapter))

    def _rooms(self, num_tokens: int) -> list[int]:
        """Divide the room for results; they are pointers."""
        token_bytes = [width * _BFLOAT16.itemsize for width in self._widths]
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
        _check(layer.norm, (hidden,))
        _check(layer.mlp_norm, (hidden,))
        for norm in (layer.q_norm, layer.k_norm):
            if norm is not None:
                _check(norm, (self._heads.dim,))


def load_native() -> Native:
    """Open the kernels that were built when this was installed; raises KernelsMissing."""
    path = next((place for place in _PLACES if place.exists()), None)
    if path is None:
        raise KernelsMissing("they were not built: there was no C++ compiler at install")
    return Native(path)


def _check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype = _BFLOAT16) -> None:
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel wants {dtype} {list(shape)} without gaps. "
            f"Given: {tensor.dtype} {list(tensor.shape)}, strides {tensor.stride()}"
        )


def _parts(layer: LayerAdapter) -> list[LowRank]:
    parts = (layer.qkv, layer.out, layer.gate_up, layer.down)
    return [part for part in parts if part is not None]


def _check_low_rank(part: LowRank, weight: Packed) -> None:
    given = [part.a.k, part.a.n, part.b.k, part.b.n]
    if given != [weight.k, part.b.k, part.b.k, weight.n] or part.b.k % 2:
        raise ValueError(
            f"an adapter of a weight {[weight.n, weight.k]} has other sizes, or an odd rank. "
            f"Given: {given}"
        )


def _check_logits(logits: Logits, num_rows: int, width: int) -> Tensor:
    """Check both tensors; return the second."""
    _check(logits.values, (num_rows, width), torch.float32)
    tops = torch.empty(0) if logits.tops is None else logits.tops
    _check(tops, (num_rows, -(-width // _PANEL)), torch.float32)
    return tops


def _check_paged(paged: Paged, num_tokens: int) -> None:
    for each in (paged.positions, paged.slots, paged.rows):
        _check(each, (num_tokens,), torch.int64)
    _check(paged.tables, (len(paged.tables), paged.tables.shape[1]), torch.int64)


def _check_cache(heads: Heads, k: Tensor, v: Tensor) -> None:
    for cache in (k, v):
        _check(cache, (heads.num_kv_heads, *k.shape[1:3], heads.dim))


def _check_turns(turns: Turns, heads: Heads, paged: Paged) -> None:
    for table in (turns.cosine, turns.sine):
        _check(table, (len(table), heads.dim), torch.float32)
    if len(turns.sine) != len(turns.cosine) or int(paged.positions.max()) >= len(turns.cosine):
        raise ValueError(f"a kernel wants turns for every position. Given: {len(turns.cosine)}")
