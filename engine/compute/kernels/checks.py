"""checks: what the C++ kernels want of their tensors."""

import torch
from torch import Tensor

from engine.compute.kernels.table import Heads, Paged, RopeTable, Weight
from engine.compute.logits import PANEL, Logits

_OUTSIDE = (
    "tokens whose rows, blocks, slots or positions are not within the cache",
    "positions beyond the RoPE table",
    "ids that have no embedding",
    "logits of tokens that are not in the step",
)
"""In the order of common.h."""


def check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> None:
    """Check one tensor; raises ValueError, as all of these."""
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel wants {dtype} {list(shape)} without gaps. "
            f"Given: {tensor.dtype} {list(tensor.shape)}, strides {tensor.stride()}"
        )


def check_weight(weight: Weight, bias: Tensor | None, *, is_int8: bool) -> tuple[int, int]:
    """Refuse a weight that no kernel takes, and a bias that is not its own; return `(out, in)`."""
    parts = [weight] if isinstance(weight, Tensor) else weight
    n, k = sum(map(len, parts)), parts[0].shape[1]
    if any(part.shape != (len(part), k) for part in parts):
        shapes = [list(part.shape) for part in parts]
        raise ValueError(f"a kernel wants weights of one width. Given: {shapes}")
    if k % (4 if is_int8 else 2):
        multiple = "a multiple of four" if is_int8 else "even"
        raise ValueError(f"a kernel wants weights whose width is {multiple}. Given: {[n, k]}")
    if bias is not None:
        check(bias, (n,), bias.dtype)
    return n, k


def check_logits(logits: Logits, num_rows: int, width: int) -> Tensor:
    """Check both tensors; return the second."""
    check(logits.values, (num_rows, width), torch.float32)
    tops = torch.empty(0) if logits.tops is None else logits.tops
    check(tops, (num_rows, -(-width // PANEL)), torch.float32)
    return tops


def check_paged(paged: Paged, num_tokens: int) -> None:
    """Check what the tokens of a step see."""
    for each in (paged.positions, paged.slots, paged.rows):
        check(each, (num_tokens,), torch.int64)
    check(paged.tables, (len(paged.tables), paged.tables.shape[1]), torch.int64)


def check_cache(heads: Heads, k: Tensor, v: Tensor) -> None:
    """Check a layer's cache, whose blocks and heads are whole panels, wherever they lie."""
    for cache in (k, v):
        shape = heads.num_kv_heads, *k.shape[1:3], heads.dim
        if cache.shape != shape or cache.stride() != k.stride():
            raise ValueError(
                f"a kernel wants keys and values {list(shape)} that lie alike. "
                f"Given: {list(cache.shape)}, strides {cache.stride()} and {k.stride()}"
            )
        check(cache[0, 0], shape[2:])
    if k.shape[2] % PANEL or heads.dim % PANEL:
        raise ValueError(f"a kernel wants blocks and heads of whole {PANEL}. Given: {[*k.shape]}")


def check_rope_table(rope_table: RopeTable, heads: Heads) -> None:
    """Check what heads are rotated by."""
    for table in (rope_table.cosine, rope_table.sine):
        check(table, (len(rope_table.cosine), heads.dim), torch.float32)


def check_verdict(verdict: int) -> None:
    """Raise for what a kernel would not do, since it leads outside of the memory it was given."""
    if verdict:
        raise ValueError(f"a kernel was given {_OUTSIDE[verdict - 1]}")
