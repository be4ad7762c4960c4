"""reference: the kernels in plain torch, for any type; what the C++ is tested against."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from engine.compute.kernels.epilogues import finish
from engine.compute.kernels.loop import Loop
from engine.compute.kernels.table import (
    Choice,
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
from engine.compute.logits import PANEL, Logits


class Reference:
    """The same operations as Native, by torch's own."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def pack(
        self,
        weight: Weight,
        bias: Tensor | None = None,
        *,
        is_gated: bool = False,
        is_int8: bool = False,
    ) -> Packed:
        """Take a weight `[out, in]` as it is, or rounded to what 8 bits hold."""
        weight = joined(weight, is_gated=is_gated)
        if is_int8:
            scales = weight.float().abs().amax(1, keepdim=True) / 127
            rounded = (weight.float() / scales).nan_to_num().round() * scales
            weight = rounded.to(weight.dtype)
        return Packed(weight, bias, *weight.shape)

    def low_rank(self, a: Tensor, b: Tensor, beside: Packed) -> LowRank:
        """Lay out both halves of what is added beside a weight."""
        return LowRank(self.pack(a), self.pack(b))

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        finish(linear(x, weight.data, weight.bias), out, epilogue)

    def rms_norm(
        self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor, offset: float = 0.0
    ) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        out.copy_(_normalised(x, weight, epsilon, offset))

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
        num_rotated = heads.num_heads + heads.num_kv_heads
        parts = qkv.unflatten(1, (-1, heads.dim))
        rotated = parts[:, :num_rotated]
        sizes = [heads.num_heads, heads.num_kv_heads]
        for part, weight in zip(rotated.split(sizes, dim=1), norms, strict=True):
            if weight is not None:
                part.copy_(_normalised(part, weight, epsilon))
        half = heads.dim // 2
        a, b = rotated[..., :half].float(), rotated[..., half:].float()
        c, s = (t[paged.positions][:, None, :half] for t in (rope_table.cosine, rope_table.sine))
        rotated.copy_(torch.cat([a * c - b * s, b * c + a * s], dim=-1))
        keys, values = parts[:, heads.num_heads :].chunk(2, dim=1)
        self.write(keys.transpose(0, 1), values.transpose(0, 1), paged.slots, k, v)

    def write(self, key: Tensor, value: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put `key` and `value`, `[kv_heads, tokens, dim]`, into a layer's cache."""
        for cache, new in ((k, key), (v, value)):
            cache[:, slots // k.shape[2], slots % k.shape[2]] = new

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        return k.shape == v.shape and num_heads % k.shape[0] == 0

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
        places = zip(paged.rows.tolist(), paged.positions.tolist(), strict=True)
        for token, (row, position) in enumerate(places):
            end = position + 1
            begin = max(0, end - window) if window else 0
            table = paged.tables[row][: -(-end // k.shape[2])]
            keys, values = (c[:, table].flatten(1, 2)[:, begin:end] for c in (k, v))
            query = queries[token].unflatten(0, (k.shape[0], -1))
            attended = scaled_dot_product_attention(query, keys, values, scale=scale)
            out[token] = attended.flatten(0, 1)

    def logits(self, x: Tensor, weight: Packed, out: Logits) -> None:
        """Multiply `x [rows, in]` into `out`, for as many rows."""
        out.values.copy_(linear(x, weight.data, weight.bias))
        note_tops(out)

    def mask(self, row: Tensor, mask: Tensor, out: Logits) -> None:
        """Copy a row of logits, which may be `out`'s own, without what the mask forbids."""
        out.values[0] = row.masked_fill(forbidden(mask, len(row)), -torch.inf)
        note_tops(out)

    def greedy(self, logits: Logits, rows: Sequence[int], *, is_shown: bool) -> list[Choice]:
        """Choose the best of some rows of logits, with its logprob if shown."""
        picked = logits.values[list(rows)]
        peaks, ids = picked.max(-1)
        ids = ids.masked_fill(~peaks.isfinite(), -1)
        logprobs = (peaks - picked.logsumexp(-1)).tolist() if is_shown else [None] * len(ids)
        return list(zip(ids.tolist(), logprobs, strict=True))

    def decoder(
        self,
        heads: Heads,
        epsilon: float,
        layers: Sequence[Layer],
        k: Sequence[Tensor],
        v: Sequence[Tensor],
        adapters: Sequence[Sequence[LayerAdapter]] = (),
        ends: Ends | None = None,
    ) -> Loop:
        """Join layers to a cache, and to what stands before and behind them."""
        return Loop(self, heads, epsilon, layers, k, v, adapters, ends)


def forbidden(mask: Tensor, width: int) -> Tensor:
    """Spread a mask of int32 over `[width]` booleans, true where the mask has no bit."""
    bits = mask[:, None] >> torch.arange(PANEL, dtype=torch.int32, device=mask.device)
    return (bits & 1 == 0).flatten()[:width]


def note_tops(out: Logits) -> None:
    """Fill in the largest of each panel."""
    assert out.tops is not None
    missing = -out.values.shape[1] % PANEL
    panels = pad(out.values, (0, missing), value=-torch.inf).unflatten(1, (-1, PANEL))
    torch.amax(panels, -1, out=out.tops)


def _normalised(x: Tensor, weight: Tensor, epsilon: float, offset: float = 0.0) -> Tensor:
    scaled = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon)
    if offset:
        return ((weight.float() + offset) * scaled).to(x.dtype)
    return weight * scaled.to(x.dtype)
