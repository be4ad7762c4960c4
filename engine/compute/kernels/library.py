"""library: the C interface of the kernels' library, its functions and structs; checks nothing."""

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int64, c_void_p
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.compute.kernels.table import Layer, LayerAdapter, LowRank, Packed

_TYPES: dict[str, Any] = {"p": c_void_p, "i": c_int64, "f": c_float}


class Library:
    """The functions of the library, by their names without `millrace_`."""

    def __init__(self, path: Path) -> None:
        """Open it; raises OSError, and AttributeError where a function is missing."""
        self._library = ctypes.CDLL(str(path))
        self.version = self._function("version", c_int64)
        self.missing = self._function("missing", c_char_p)
        self.has_amx = self._function("has_amx", c_int64)
        self.pack = self._function("pack", None, "piip")
        self.linear = self._function("linear", None, "piippippi")
        self.pack_int8 = self._function("pack_int8", None, "piipp")
        self.linear_int8 = self._function("linear_int8", None, "piipppippip")
        self.int8_workspace = self._function("int8_workspace", c_int64, "ii")
        self.rms_norm = self._function("rms_norm", None, "piipffp")
        self.rope_write = self._function("rope_write", c_int64, "piiiippfpppipppiiii")
        self.write = self._function("write", c_int64, "ppiiipppiiii")
        self.attend_can = self._function("attend_can", c_int64, "ii")
        self.attend_workspace = self._function("attend_workspace", c_int64, "ii")
        self.attend = self._function("attend", c_int64, "piiiiippiiiipiippifpp")
        self.mask = self._function("mask", None, "pippp")
        self.greedy = self._function("greedy", None, "ppipipp")
        self.decode = self._function("decode", c_int64)
        self.decode.argtypes = [POINTER(ShapeStruct), POINTER(LayerStruct), POINTER(StepStruct)]

    def _function(self, name: str, result: Any, arguments: str = "") -> Any:
        function = getattr(self._library, f"millrace_{name}")
        function.restype = result
        function.argtypes = [_TYPES[kind] for kind in arguments]
        return function


# The structs of decoder.cpp and adapter.h.


class LinearStruct(ctypes.Structure):
    """A packed weight."""

    _fields_ = (
        ("packed", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("n", c_int64),
        ("k", c_int64),
    )


class LayerStruct(ctypes.Structure):
    """A layer and its part of the cache."""

    _fields_ = (
        ("norm", c_void_p),
        ("qkv", LinearStruct),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("out", LinearStruct),
        ("mlp_norm", c_void_p),
        ("gate_up", LinearStruct),
        ("down", LinearStruct),
        ("k", c_void_p),
        ("v", c_void_p),
        ("window", c_int64),
        ("scale", c_float),
    )


class ShapeStruct(ctypes.Structure):
    """What all layers have in common."""

    _fields_ = (
        ("num_layers", c_int64),
        ("hidden", c_int64),
        ("num_heads", c_int64),
        ("num_kv_heads", c_int64),
        ("dim", c_int64),
        ("num_blocks", c_int64),
        ("block_size", c_int64),
        ("head_stride", c_int64),
        ("block_stride", c_int64),
        ("epsilon", c_float),
        ("embedding", c_void_p),
        ("norm", c_void_p),
        ("num_ids", c_int64),
        ("head", LinearStruct),
    )


class LowRankStruct(ctypes.Structure):
    """What an adapter adds to a linear."""

    _fields_ = (("a", c_void_p), ("b", c_void_p), ("rank", c_int64))


class LayerAdapterStruct(ctypes.Structure):
    """What an adapter adds to a layer."""

    _fields_ = (
        ("qkv", LowRankStruct),
        ("out", LowRankStruct),
        ("gate_up", LowRankStruct),
        ("down", LowRankStruct),
    )


class AdapterTokensStruct(ctypes.Structure):
    """The tokens that an adapter is for."""

    _fields_ = (
        ("layers", POINTER(LayerAdapterStruct)),
        ("num_tokens", c_int64),
        ("tokens", c_void_p),
    )


class AdapterWorkspaceStruct(ctypes.Structure):
    """Workspace for what adapters add."""

    _fields_ = (("gathered", c_void_p), ("narrow", c_void_p), ("added", c_void_p))


class StepStruct(ctypes.Structure):
    """One step's tokens, and room for results."""

    _fields_ = (
        ("num_tokens", c_int64),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("rows", c_void_p),
        ("tables", c_void_p),
        ("num_rows", c_int64),
        ("table_stride", c_int64),
        ("ids", c_void_p),
        ("x", c_void_p),
        ("cosine", c_void_p),
        ("sine", c_void_p),
        ("num_positions", c_int64),
        ("num_logits", c_int64),
        ("logits_at", c_void_p),
        ("logits", c_void_p),
        ("tops", c_void_p),
        ("y", c_void_p),
        ("qkv", c_void_p),
        ("attended", c_void_p),
        ("h", c_void_p),
        ("scratch", c_void_p),
        ("quantised", c_void_p),
        ("num_adapters", c_int64),
        ("adapters", POINTER(AdapterTokensStruct)),
        ("adapter_workspace", AdapterWorkspaceStruct),
        ("sums", c_void_p),
    )


def layer_struct(layer: Layer, k: Tensor, v: Tensor) -> LayerStruct:
    """Point to a layer's tensors and to its cache; who calls keeps them."""
    return LayerStruct(
        layer.norm.data_ptr(),
        linear_struct(layer.qkv),
        pointer(layer.q_norm),
        pointer(layer.k_norm),
        linear_struct(layer.out),
        layer.mlp_norm.data_ptr(),
        linear_struct(layer.gate_up),
        linear_struct(layer.down),
        k.data_ptr(),
        v.data_ptr(),
        layer.window or 0,
        layer.scale,
    )


def blocks_of(cache: Tensor) -> tuple[int, int, int, int]:
    """Say how many blocks there are, of how many tokens, and how far heads and blocks lie apart."""
    _, num_blocks, block_size, _ = cache.shape
    head_stride, block_stride, _, _ = cache.stride()
    return num_blocks, block_size, head_stride, block_stride


def adapter_struct(layer: LayerAdapter) -> LayerAdapterStruct:
    """Point to what an adapter adds to a layer; who calls keeps it."""
    return LayerAdapterStruct(*map(_low_rank_struct, layer.parts))


def linear_struct(weight: Packed) -> LinearStruct:
    """Point to a packed weight."""
    pointers = weight.data.data_ptr(), pointer(weight.scales), pointer(weight.bias)
    return LinearStruct(*pointers, weight.n, weight.k)


def _low_rank_struct(part: LowRank | None) -> LowRankStruct:
    if part is None:
        return LowRankStruct()
    return LowRankStruct(part.a.data.data_ptr(), part.b.data.data_ptr(), part.a.n)


def pointer(tensor: Tensor | None) -> int | None:
    """Point to a tensor's numbers; null stands for none."""
    return None if tensor is None else tensor.data_ptr()
