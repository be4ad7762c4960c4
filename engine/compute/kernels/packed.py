"""What the kernels in C++ and in plain torch take and share: packed weights, heads, epilogues."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

LANES = 16
"""Columns of the gate and of what it multiplies alternate in groups of so many."""


class Epilogue(IntEnum):
    """What becomes of a product; the numbers are those of linear.cpp."""

    STORE = 0
    ADD = 1
    """Added to what is there."""
    SILU_MUL = 2
    """The weight is `interleaved`: silu(gate) * other is stored, half as wide."""
    FLOAT = 3
    """Stored as float32."""

    def dtype(self, own: torch.dtype) -> torch.dtype:
        """Say what type the result has."""
        return torch.float32 if self is Epilogue.FLOAT else own


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight as `linear` reads it; `k` numbers in, `n` out."""

    data: Tensor
    bias: Tensor | None
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How a joined projection is divided: queries, then keys, then values."""

    num_heads: int
    num_kv_heads: int
    dim: int
    q_norm: Tensor | None = None
    """`[dim]`: each query's head is normalised before it is turned, as in Qwen 3."""
    k_norm: Tensor | None = None
    epsilon: float = 0.0

    @property
    def width(self) -> int:
        """Count the numbers of one token."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.dim


class Kernels(Protocol):
    """The operations of a decoder, in C++ (native.py) or in plain torch (reference.py)."""

    dtype: torch.dtype

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Packed:
        """Lay out a weight `[out, in]` of an even width for `linear`."""
        ...

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        ...

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
        ...

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        ...

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
        ...


def interleaved(gate: Tensor, other: Tensor) -> Tensor:
    """Join two weights `[n, k]`, or biases `[n]`, for SILU_MUL; n is a multiple of LANES."""
    groups = [part.unflatten(0, (-1, LANES)) for part in (gate, other)]
    return torch.stack(groups, dim=1).flatten(0, 2)
