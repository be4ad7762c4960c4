"""native: the C++ kernels as functions on tensors, and whether they run here.

The C++ checks nothing, so every call's tensors are checked in this file.
"""

import ctypes
from ctypes import c_char_p, c_float, c_int64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.compute.kernels.packed import Epilogue, HeadShape, Packed
from engine.errors import EngineError

_VERSION = 1
_PANEL = 32
_PLACES = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
_SIGNATURES = {
    "millrace_pack": "piip",
    "millrace_linear": "piippipi",
    "millrace_rms_norm": "piipfp",
    "millrace_rope_write": "piiiippfpppppi",
    "millrace_attend": "piiiiippiipipiifpp",
}
"""For each function its arguments: pointers, integers, floats."""
_TYPES: dict[str, Any] = {"p": c_void_p, "i": c_int64, "f": c_float}


class KernelsMissing(EngineError):
    """The C++ kernels do not run here; the message says why."""


class Native:
    """The C++ kernels, for bfloat16 on a CPU; each is described where it is written."""

    dtype = torch.bfloat16

    def __init__(self, path: Path) -> None:
        """Open the library; raises KernelsMissing."""
        try:
            library = ctypes.CDLL(str(path))
            version = library.millrace_version()
            missing = _function(library, "millrace_missing", c_char_p)()
            for name, arguments in _SIGNATURES.items():
                _function(library, name, None, arguments)
            self._can_attend = _function(library, "millrace_attend_can", c_int64, "iii")
            self._scratch_size = _function(library, "millrace_attend_scratch", c_int64, "ii")
        except (OSError, AttributeError) as error:
            raise KernelsMissing(f"the library of kernels does not load ({error})") from error
        if version != _VERSION:
            raise KernelsMissing("the library of kernels is another version's: install again")
        if missing is not None:
            raise KernelsMissing(f"this processor has no {missing.decode()}")
        self._library = library
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Packed:
        """Lay out a weight `[out, in]` of an even width for `linear`."""
        n, k = weight.shape
        weight = weight.to(self.dtype).contiguous()
        packed = weight.new_zeros(-(-n // _PANEL) * _PANEL * k)
        self._library.millrace_pack(weight.data_ptr(), n, k, packed.data_ptr())
        bias = None if bias is None else bias.to(self.dtype).contiguous()
        return Packed(packed, bias, n, k)

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        num_rows, k = x.shape
        width = weight.n // 2 if epilogue is Epilogue.SILU_MUL else weight.n
        _check(x, (num_rows, weight.k), self.dtype)
        _check(out, (num_rows, width), epilogue.dtype(self.dtype))
        bias = weight.bias
        self._library.millrace_linear(
            x.data_ptr(),
            num_rows,
            k,
            weight.data.data_ptr(),
            None if bias is None else bias.data_ptr(),
            weight.n,
            out.data_ptr(),
            epilogue.value,
        )

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        num_rows, width = x.shape
        _check(x, (num_rows, width), self.dtype)
        _check(out, (num_rows, width), self.dtype)
        _check(weight, (width,), self.dtype)
        self._library.millrace_rms_norm(
            x.data_ptr(), num_rows, width, weight.data_ptr(), epsilon, out.data_ptr()
        )

    def rope_write(
        self,
        qkv: Tensor,
        heads: HeadShape,
        cosine: Tensor,
        sine: Tensor,
        slots: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> None:
        """Turn `qkv [tokens, heads.width]` in place and put keys and values where `slots` say.

        `cosine` and `sine` are `[tokens, dim]` of float32; `k` and `v` are a layer's cache,
        `[kv_heads, blocks, block, dim]`.
        """
        num_tokens, dim = len(qkv), heads.dim
        _check(qkv, (num_tokens, heads.width), self.dtype)
        _check(cosine, (num_tokens, dim), torch.float32)
        _check(sine, (num_tokens, dim), torch.float32)
        _check(slots, (num_tokens,), torch.int64)
        for cache in (k, v):
            _check(cache, (heads.num_kv_heads, *k.shape[1:3], dim), self.dtype)
        self._library.millrace_rope_write(
            qkv.data_ptr(),
            num_tokens,
            heads.num_heads,
            heads.num_kv_heads,
            dim,
            None if heads.q_norm is None else heads.q_norm.data_ptr(),
            None if heads.k_norm is None else heads.k_norm.data_ptr(),
            heads.epsilon,
            cosine.data_ptr(),
            sine.data_ptr(),
            slots.data_ptr(),
            k.data_ptr(),
            v.data_ptr(),
            k.shape[1] * k.shape[2],
        )

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        if k.dtype is not self.dtype or k.device.type != "cpu" or k.shape != v.shape:
            return False
        return bool(self._can_attend(k.shape[3], num_heads // k.shape[0], k.shape[2]))

    def attend(
        self,
        queries: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Tensor,
        lengths: Tensor,
        window: int | None,
        scale: float,
        out: Tensor,
    ) -> None:
        """Attend one query a row, `[rows, heads, dim]`, to the row's cached tokens.

        `tables [rows, blocks]` and `lengths [rows]` say which those are; `out` is
        `[rows, heads, dim]`. Only where `can_attend`.
        """
        num_rows, num_heads, dim = queries.shape
        num_kv_heads, num_blocks, block_size, _ = k.shape
        if queries.stride()[1:] != (dim, 1):
            queries = queries.contiguous()
        _check(out, queries.shape, queries.dtype)
        _check(tables, (num_rows, tables.shape[1]), torch.int64)
        _check(lengths, (num_rows,), torch.int64)
        max_length = tables.shape[1] * block_size
        size = self._scratch_size(num_heads // num_kv_heads, max_length)
        if len(self._scratch) < size:
            self._scratch = torch.empty(size, dtype=torch.uint8)
        self._library.millrace_attend(
            queries.data_ptr(),
            queries.stride(0),
            num_rows,
            num_heads,
            num_kv_heads,
            dim,
            k.data_ptr(),
            v.data_ptr(),
            num_blocks,
            block_size,
            tables.data_ptr(),
            tables.shape[1],
            lengths.data_ptr(),
            max_length,
            window or 0,
            scale,
            self._scratch.data_ptr(),
            out.data_ptr(),
        )


def load_native() -> Native:
    """Open the kernels that were built when this was installed; raises KernelsMissing."""
    path = next((place for place in _PLACES if place.exists()), None)
    if path is None:
        raise KernelsMissing("they were not built: there was no C++ compiler at install")
    return Native(path)


def _function(library: ctypes.CDLL, name: str, result: Any, arguments: str = "") -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = [_TYPES[kind] for kind in arguments]
    return function


def _check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel wants {dtype} {list(shape)} without gaps. "
            f"Given: {tensor.dtype} {list(tensor.shape)}, strides {tensor.stride()}"
        )
