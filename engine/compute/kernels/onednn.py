"""onednn: products by the library that torch brings, and whether they are faster here than ours.

Ours know AVX-512; oneDNN knows matrix units (AMX) too, which pays where many rows are multiplied.
"""

import time
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import linear

from engine.compute.kernels.checks import check, check_weight
from engine.compute.kernels.epilogues import finish
from engine.compute.kernels.loop import Loop
from engine.compute.kernels.native import LOGITS, Native
from engine.compute.kernels.reference import note_tops
from engine.compute.kernels.table import (
    DecoderLayers,
    Ends,
    Epilogue,
    Heads,
    Layer,
    LayerAdapter,
    LowRank,
    Packed,
    Weight,
    joined,
)
from engine.compute.logits import Logits

_USUAL_ROWS = 16
"""For which oneDNN chooses its layout; it multiplies any number by it."""
_NUM_ROWS = (1, 16, 256)
"""A lone stream, a batch, a prompt."""
_SIZE = 4096
"""Of the weight that is multiplied, which no cache holds."""
_NUM_TIMES = 3
_MIN_GAIN = 1.15
"""Below this ours are kept: the loop's many calls from Python take time as well."""


class OneDnn(Native):
    """The C++ kernels, but for products, which oneDNN computes; those of 8 bits stay ours."""

    def pack(
        self,
        weight: Weight,
        bias: Tensor | None = None,
        *,
        is_gated: bool = False,
        is_int8: bool = False,
    ) -> Packed:
        """Lay out a weight `[out, in]` for `linear`."""
        if is_int8:
            return super().pack(weight, bias, is_gated=is_gated, is_int8=True)
        n, k = check_weight(weight, bias, is_int8=False)
        return Packed(_reorder(joined(weight, is_gated=is_gated)), bias, n, k)

    def low_rank(self, a: Tensor, b: Tensor, beside: Packed) -> LowRank:
        """Lay out both halves; beside weights of 8 bits our own loop multiplies them."""
        if beside.scales is None:
            return super().low_rank(a, b, beside)
        return LowRank(super().pack(a), super().pack(b))

    def _multiply(
        self, x: Tensor, weight: Packed, out: Tensor, tops: Tensor | None, epilogue: int
    ) -> None:
        if weight.scales is not None:
            super()._multiply(x, weight, out, tops, epilogue)
            return
        check(x, (len(x), weight.k))
        y = _product(x, weight.data, weight.bias)
        if epilogue == LOGITS:
            out.copy_(y)
            note_tops(Logits(out, tops))
        else:
            finish(y, out, Epilogue(epilogue))

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
        if any(layer.qkv.scales is not None for layer in layers):
            return super().decoder(heads, epsilon, layers, k, v, adapters, ends)
        return Loop(self, heads, epsilon, layers, k, v, adapters, ends)


def can_pack() -> bool:
    """Tell whether oneDNN multiplies packed bfloat16 weights on this CPU, by trying it once.

    The operators are private to torch, though TorchInductor is built on them, so they are compared
    with the public product before they are trusted.
    """
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x = torch.randn(4, 64, dtype=torch.bfloat16)
        weight = torch.randn(32, 64, dtype=torch.bfloat16)
        product = packed_product(weight, None)(x)
        return torch.allclose(product, linear(x, weight), rtol=0.05, atol=0.5)
    except (AttributeError, RuntimeError):
        return False


def packed_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Pack once, for any number of rows; give what multiplies `x [..., in]`."""
    packed = _reorder(weight)
    return lambda x: _product(x, packed, bias)


def is_faster(theirs: Native, ours: Native, num_rows: Sequence[int] = _NUM_ROWS) -> bool:
    """Measure both on one weight, in a third of a second; tell whether theirs gain enough."""
    weight = torch.ones(_SIZE, _SIZE, dtype=torch.bfloat16)
    gains = []
    packed = [(kernels, kernels.pack(weight)) for kernels in (theirs, ours)]
    for count in num_rows:
        x = torch.ones(count, _SIZE, dtype=torch.bfloat16)
        their_s, our_s = (_seconds(kernels, x, each) for kernels, each in packed)
        gains.append(our_s / their_s)
    return prod(gains) ** (1 / len(num_rows)) > _MIN_GAIN


def _seconds(kernels: Native, x: Tensor, weight: Packed) -> float:
    """Take the least of a few times, since a step of something else may come between."""
    out = torch.empty_like(x)
    times = []
    for _ in range(_NUM_TIMES):
        start = time.perf_counter()
        kernels.linear(x, weight, out)
        times.append(time.perf_counter() - start)
    return min(times)


def _reorder(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
    return product
