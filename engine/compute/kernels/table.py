"""What the kernels take, in C++ and in plain torch: packed weights, a table of layers, a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.compute.logits import Logits

Weight = Tensor | Sequence[Tensor]
"""`[out, in]`, or some that are to be one: joining them first would take longer than packing."""
LANES = 16
"""Columns of the gate and of what it multiplies alternate in groups of so many."""


class Epilogue(IntEnum):
    """What becomes of a product; the numbers are those of kernels.h."""

    STORE = 0
    ADD = 1
    """Added to what is there."""
    SILU_MUL = 2
    """The weight is `interleaved`: silu(gate) * other is stored, half as wide."""
    GELU_MUL = 3
    """The same with gelu, approximated by tanh."""

    @property
    def is_gated(self) -> bool:
        """Tell whether half of the columns are a gate's."""
        return self in (Epilogue.SILU_MUL, Epilogue.GELU_MUL)


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight as `linear` reads it; `k` numbers in, `n` out."""

    data: Tensor
    bias: Tensor | None
    n: int
    k: int
    scales: Tensor | None = None
    """`[n]` of float32 where the data are of 8 bits."""


@dataclass(frozen=True, slots=True)
class Heads:
    """How a joined projection is divided: queries, then keys, then values."""

    num_heads: int
    num_kv_heads: int
    dim: int

    @property
    def width(self) -> int:
        """Count the numbers of one token."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.dim


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's tensors, in the order in which they are used."""

    norm: Tensor
    qkv: Packed
    q_norm: Tensor | None
    """`[dim]`: each query's head is normalised before it is rotated, as in Qwen 3."""
    k_norm: Tensor | None
    window: int | None
    """How many tokens one sees, itself included."""
    scale: float
    out: Packed
    mlp_norm: Tensor
    gate_up: Packed
    down: Packed


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to a linear: `x [tokens, in]` becomes `(x a^T) b^T`."""

    a: Packed
    """`[rank, in]`, the rank even."""
    b: Packed
    """`[out, rank]`, times the adapter's scale."""


@dataclass(frozen=True, slots=True)
class LayerAdapter:
    """What an adapter adds to a layer's linears; None: nothing."""

    qkv: LowRank | None
    out: LowRank | None
    gate_up: LowRank | None
    """Its `b` is `interleaved` as the weight is."""
    down: LowRank | None

    @property
    def parts(self) -> tuple[LowRank | None, ...]:
        """Give all of them, in this order."""
        return self.qkv, self.out, self.gate_up, self.down


class AdapterTokens(NamedTuple):
    """The tokens of a step that an adapter is added for."""

    number: int
    """Of the adapter, among those that were loaded."""
    tokens: Tensor
    """Indices, each in one AdapterTokens of a step at most."""


@dataclass(frozen=True, slots=True)
class RopeTable:
    """How heads are rotated by position: `[positions, dim]` of float32, the halves alike."""

    cosine: Tensor
    sine: Tensor


@dataclass(frozen=True, slots=True)
class Paged:
    """Where each token of a step stands and what it sees: the row's tokens up to its own."""

    positions: Tensor
    """`[tokens]`, in the row."""
    slots: Tensor
    """`[tokens]`: where its key and value go."""
    rows: Tensor
    """`[tokens]`: which row of `tables` it belongs to."""
    tables: Tensor
    """`[rows, blocks]`: what stands behind a row's last block does not matter."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What stands before the layers and behind them."""

    embedding: Tensor
    """`[ids, hidden]`"""
    norm: Tensor
    head: Packed


Choice = tuple[int, float | None]
"""A token's id and its logprob."""


class Kernels(Protocol):
    """The operations of a decoder, in C++ (native.py) or in plain torch (reference.py)."""

    dtype: torch.dtype

    def pack(
        self,
        weight: Weight,
        bias: Tensor | None = None,
        *,
        is_gated: bool = False,
        is_int8: bool = False,
    ) -> Packed:
        """Lay out a weight, and its bias, for `linear`; its width is even.

        Two that `is_gated` are interleaved, the bias was already. With `is_int8` it is quantised,
        and its width a multiple of four.
        """
        ...

    def low_rank(self, a: Tensor, b: Tensor, beside: Packed) -> LowRank:
        """Lay out `a [rank, in]` and `b [out, rank]`, to be added beside a decoder's weight."""
        ...

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        ...

    def logits(self, x: Tensor, weight: Packed, out: Logits) -> None:
        """Multiply `x [rows, in]` into `out`, for as many rows, with its tops."""
        ...

    def rms_norm(
        self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor, offset: float = 0.0
    ) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`.

        The offset is added to the weight, in float32.
        """
        ...

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
        """Turn `qkv [tokens, heads.width]` in place; put keys and values into a layer's cache.

        `norms` are those of queries' and keys' heads, `k` and `v` as in `write`.
        """
        ...

    def write(self, key: Tensor, value: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put `key` and `value`, `[kv_heads, tokens, dim]`, into a layer's cache.

        `k` and `v` are `[kv_heads, blocks, block, dim]`. How a block is laid out inside is known to
        the kernels alone, and only where `can_attend`.
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
        paged: Paged,
        window: int | None,
        scale: float,
        out: Tensor,
    ) -> None:
        """Attend each token's queries, `[tokens, heads, dim]`, to what the token sees.

        `k` and `v` are a layer's cache, as in `write`; `out` is like the queries.
        """
        ...

    def mask(self, row: Tensor, mask: Tensor, out: Logits) -> None:
        """Copy a row of logits, which may be `out`'s own, without what the mask forbids.

        `mask` is of int32, bit 0 of the first number for column 0; `out` has one row, with tops.
        """
        ...

    def greedy(self, logits: Logits, rows: Sequence[int], *, is_shown: bool) -> list[Choice]:
        """Choose the best of some rows, at least one, of logits that have tops.

        The lowest id among equals, -1 where a row has a NaN or its maximum is not finite; with the
        logprob if it is to be shown.
        """
        ...

    def decoder(
        self,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]] = (),
        ends: Ends | None = None,
    ) -> "DecoderLayers":
        """Join layers, and adapters of as many, to a cache, whose tensors are as in `write`.

        With `ends` they are a whole model.
        """
        ...


class DecoderLayers(Protocol):
    """Layers that were joined to a cache, and to what stands before and behind them."""

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
        ...

    def add(
        self, x: Tensor, paged: Paged, rope_table: RopeTable, adapted: Sequence[AdapterTokens] = ()
    ) -> None:
        """Add what every layer makes of `x [tokens, hidden]` to it, and fill the cache."""
        ...


def interleaved(gate: Tensor, other: Tensor) -> Tensor:
    """Join two weights `[n, k]`, or biases `[n]`, for SILU_MUL; n is a multiple of LANES."""
    groups = [part.unflatten(0, (-1, LANES)) for part in (gate, other)]
    return torch.stack(groups, dim=1).flatten(0, 2)


def joined(weight: Weight, *, is_gated: bool) -> Tensor:
    """Join what is to be one weight."""
    if isinstance(weight, Tensor):
        return weight
    return interleaved(*weight) if is_gated else torch.cat(list(weight))
