"""native: the C++ kernels as functions on tensors, and whether they run here.

The C++ checks nothing, so every call's tensors are checked before it.
"""

from collections.abc import Sequence
from ctypes import c_float, c_int64
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from engine.compute.kernels.checks import (
    check,
    check_cache,
    check_logits,
    check_paged,
    check_rope_table,
    check_verdict,
    check_weight,
)
from engine.compute.kernels.library import Library, blocks_of, pointer
from engine.compute.kernels.native_layers import NativeLayers
from engine.compute.kernels.table import (
    Choice,
    DecoderLayers,
    Ends,
    Epilogue,
    Heads,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    Paged,
    RopeTable,
    Weight,
    joined,
)
from engine.compute.kernels.workspace import Workspaces
from engine.compute.logits import PANEL, Logits
from engine.errors import EngineError

_VERSION = 10
LOGITS = 4
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
        self._workspaces = Workspaces(self._library)

    @property
    def has_amx(self) -> bool:
        """Tell whether this processor has matrix units, which these kernels do not use."""
        return bool(self._library.has_amx())

    def pack(
        self,
        weight: Weight,
        bias: Tensor | None = None,
        *,
        is_gated: bool = False,
        is_int8: bool = False,
    ) -> Packed:
        """Lay out a weight, and its bias, for `linear`."""
        n, k = check_weight(weight, bias, is_int8=is_int8)
        parts = [weight] if isinstance(weight, Tensor) else weight
        parts = [part.to(_BFLOAT16).contiguous() for part in parts]
        rows = joined([_rows_of(part) for part in parts], is_gated=is_gated)
        bias = None if bias is None else bias.to(_BFLOAT16)
        dtype, scales = (torch.uint8, torch.empty(n)) if is_int8 else (_BFLOAT16, None)
        packed = torch.empty(-(-n // PANEL) * PANEL * k, dtype=dtype)
        if scales is None:
            self._library.pack(rows.data_ptr(), n, k, packed.data_ptr())
        else:
            pointers = packed.data_ptr(), scales.data_ptr()
            self._library.pack_int8(rows.data_ptr(), n, k, *pointers)
        return Packed(packed, bias, n, k, scales)

    def low_rank(self, a: Tensor, b: Tensor, beside: Packed) -> LowRank:
        """Lay out both halves of what is added beside a weight."""
        return LowRank(self.pack(a), self.pack(b))

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        width = weight.n // 2 if epilogue.is_gated else weight.n
        check(out, (len(x), width))
        self._multiply(x, weight, out, None, epilogue)

    def logits(self, x: Tensor, weight: Packed, out: Logits) -> None:
        """Multiply `x [rows, in]` into `out`, for as many rows."""
        check_logits(out, len(x), weight.n)
        self._multiply(x, weight, out.values, out.tops, LOGITS)

    def _multiply(
        self, x: Tensor, weight: Packed, out: Tensor, tops: Tensor | None, epilogue: int
    ) -> None:
        num_rows, k = x.shape
        check(x, (num_rows, weight.k))
        given = x.data_ptr(), num_rows, k, weight.data.data_ptr()
        rest = pointer(weight.bias), weight.n, out.data_ptr(), pointer(tops), epilogue
        if weight.scales is None:
            self._library.linear(*given, *rest)
        else:
            workspace = self._workspaces.int8(num_rows, k)
            self._library.linear_int8(*given, weight.scales.data_ptr(), *rest, workspace)

    def rms_norm(
        self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor, offset: float = 0.0
    ) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        num_rows, width = x.shape
        check(x, (num_rows, width))
        check(out, (num_rows, width))
        check(weight, (width,))
        self._library.rms_norm(
            x.data_ptr(), num_rows, width, weight.data_ptr(), offset, epsilon, out.data_ptr()
        )

    def rope_write(
        self,
        qkv: Tensor,
        heads: Heads,
        norms: tuple[Tensor | None, Tensor | None],
        epsilon: float,
        rope_table: RopeTable,
        paged: Paged,
        k: Tensor,
        v: Tensor,
    ) -> None:
        """Turn `qkv [tokens, heads.width]` in place; put keys and values into a layer's cache."""
        check(qkv, (len(qkv), heads.width))
        check_paged(paged, len(qkv))
        check_cache(heads, k, v)
        check_rope_table(rope_table, heads)
        for norm in norms:
            if norm is not None:
                check(norm, (heads.dim,))
        verdict = self._library.rope_write(
            qkv.data_ptr(),
            len(qkv),
            heads.num_heads,
            heads.num_kv_heads,
            heads.dim,
            pointer(norms[0]),
            pointer(norms[1]),
            epsilon,
            paged.positions.data_ptr(),
            rope_table.cosine.data_ptr(),
            rope_table.sine.data_ptr(),
            len(rope_table.cosine),
            paged.slots.data_ptr(),
            k.data_ptr(),
            v.data_ptr(),
            *blocks_of(k),
        )
        check_verdict(verdict)

    def write(self, key: Tensor, value: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put `key` and `value`, `[kv_heads, tokens, dim]`, into a layer's cache."""
        num_kv_heads, num_tokens, dim = key.shape
        check_cache(Heads(num_kv_heads, num_kv_heads, dim), k, v)
        check(slots, (num_tokens,), torch.int64)
        key, value = key.contiguous(), value.contiguous()
        check(key, (num_kv_heads, num_tokens, dim))
        check(value, key.shape)
        verdict = self._library.write(
            key.data_ptr(),
            value.data_ptr(),
            num_tokens,
            num_kv_heads,
            dim,
            slots.data_ptr(),
            k.data_ptr(),
            v.data_ptr(),
            *blocks_of(k),
        )
        check_verdict(verdict)

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        if k.dtype is not _BFLOAT16 or k.device.type != "cpu" or k.shape != v.shape:
            return False
        if num_heads % k.shape[0]:
            return False
        return bool(self._library.attend_can(k.shape[3], k.shape[2]))

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
        num_kv_heads, _, block_size, _ = k.shape
        if queries.stride()[1:] != (dim, 1):
            queries = queries.contiguous()
        check(queries[:1], (1, num_heads, dim))  # tokens may lie apart
        check(out, queries.shape)
        check_paged(paged, num_tokens)
        check_cache(Heads(num_heads, num_kv_heads, dim), k, v)
        if not self.can_attend(num_heads, k, v):
            raise ValueError(f"no kernel attends with {num_heads} heads to {list(k.shape)}")
        verdict = self._library.attend(
            queries.data_ptr(),
            queries.stride(0),
            num_tokens,
            num_heads,
            num_kv_heads,
            dim,
            k.data_ptr(),
            v.data_ptr(),
            *blocks_of(k),
            paged.tables.data_ptr(),
            *paged.tables.shape,
            paged.rows.data_ptr(),
            paged.positions.data_ptr(),
            window or 0,
            scale,
            self._workspaces.attention(
                num_heads // num_kv_heads, paged.tables.shape[1] * block_size
            ),
            out.data_ptr(),
        )
        check_verdict(verdict)

    def mask(self, row: Tensor, mask: Tensor, out: Logits) -> None:
        """Copy a row of logits, which may be `out`'s own, without what the mask forbids."""
        width = len(row)
        tops = check_logits(out, 1, width)
        check(row, (width,), torch.float32)
        if len(mask) < tops.shape[1]:
            raise ValueError(f"a kernel wants a mask of {width} bits. Given: {PANEL * len(mask)}")
        check(mask, (len(mask),), torch.int32)
        pointers = mask.data_ptr(), out.values.data_ptr(), tops.data_ptr()
        self._library.mask(row.data_ptr(), width, *pointers)

    def greedy(self, logits: Logits, rows: Sequence[int], *, is_shown: bool) -> list[Choice]:
        """Choose the best of some rows of logits, with its logprob if shown."""
        num_logits, width = logits.values.shape
        tops = check_logits(logits, num_logits, width)
        if not 0 <= min(rows) <= max(rows) < num_logits:
            raise ValueError(f"a kernel wants rows of {num_logits}. Given: {rows}")
        numbers = c_int64 * len(rows)  # for so few, tensors take longer to make and to read
        ids = numbers()
        logprobs = (c_float * len(rows))() if is_shown else None
        given = logits.values.data_ptr(), tops.data_ptr(), width, numbers(*rows), len(rows)
        self._library.greedy(*given, ids, logprobs)
        return list(zip(ids, [None] * len(rows) if logprobs is None else logprobs, strict=True))

    def decoder(
        self,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]] = (),
        ends: Ends | None = None,
    ) -> DecoderLayers:
        """Join layers to a cache, and to what stands before and behind them."""
        given = heads, epsilon, layers, k, v, adapters, ends
        return NativeLayers(self._library, self._workspaces, *given)


def _rows_of(weight: Tensor) -> Tensor:
    """Say where each row lies."""
    num_bytes = weight.shape[1] * weight.itemsize
    return weight.data_ptr() + num_bytes * torch.arange(len(weight))


def find_native() -> Path:
    """Find the library that was built when this was installed; raises KernelsMissing."""
    path = next((place for place in _PLACES if place.exists()), None)
    if path is None:
        raise KernelsMissing("they were not built at install, which takes g++ or clang on x86")
    return path
