"""reference: the kernels in plain torch, for any type; what the C++ is tested against."""

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from engine.compute.kernels.packed import LANES, Epilogue, HeadShape, Packed


class Reference:
    """The same operations as Native, by torch's own."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Packed:
        """Take a weight `[out, in]` as it is."""
        return Packed(weight, bias, *weight.shape)

    def linear(
        self, x: Tensor, weight: Packed, out: Tensor, epilogue: Epilogue = Epilogue.STORE
    ) -> None:
        """Multiply `x [rows, in]` into `out [rows, out]`, which the epilogue says how to change."""
        y = linear(x, weight.data, weight.bias)
        if epilogue is Epilogue.ADD:
            out += y
        elif epilogue is Epilogue.SILU_MUL:
            gate, other = y.unflatten(1, (-1, 2, LANES)).unbind(2)
            out.copy_((silu(gate) * other).flatten(1))
        else:
            out.copy_(y)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
        """Normalise each row of `x [rows, width]` into `out`, which may be `x`."""
        out.copy_(_normalised(x, weight, epsilon))

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
        """Turn `qkv [tokens, heads.width]` in place and put keys and values where `slots` say."""
        num_turned = heads.num_heads + heads.num_kv_heads
        parts = qkv.unflatten(1, (-1, heads.dim))
        turned = parts[:, :num_turned]
        for part, weight in (
            (turned[:, : heads.num_heads], heads.q_norm),
            (turned[:, heads.num_heads :], heads.k_norm),
        ):
            if weight is not None:
                part.copy_(_normalised(part, weight, heads.epsilon))
        half = heads.dim // 2
        a, b = turned[..., :half].float(), turned[..., half:].float()
        c, s = cosine[:, None, :half], sine[:, None, :half]
        turned.copy_(torch.cat([a * c - b * s, b * c + a * s], dim=-1))
        for cache, new in (
            (k, parts[:, heads.num_heads : num_turned]),
            (v, parts[:, num_turned:]),
        ):
            cache.view(cache.shape[0], -1, heads.dim).index_copy_(1, slots, new.transpose(0, 1))

    def can_attend(self, num_heads: int, k: Tensor, v: Tensor) -> bool:
        """Tell whether `attend` knows this number of heads over this cache."""
        return k.shape == v.shape and num_heads % k.shape[0] == 0

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
        """Attend one query a row, `[rows, heads, dim]`, to the row's cached tokens, row by row."""
        for row, length in enumerate(lengths.tolist()):
            begin = max(0, length - window) if window else 0
            keys, values = (c[:, tables[row]].flatten(1, 2)[:, begin:length] for c in (k, v))
            query = queries[row].unflatten(0, (k.shape[0], -1))
            attended = scaled_dot_product_attention(query, keys, values, scale=scale)
            out[row] = attended.flatten(0, 1)


def _normalised(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    scaled = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon)
    return weight * scaled.to(x.dtype)
