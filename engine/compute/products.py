"""products: how a linear layer's weight is multiplied: by the kernels, by oneDNN, or as it came."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from engine.compute.kernels.onednn import can_pack, packed_product
from engine.compute.kernels.table import Kernels

Product = Callable[[Tensor], Tensor]
"""Multiplies `x [..., in]` to `[..., out]`."""
Make = Callable[[Tensor, Tensor | None], Product]
"""Takes a weight `[out, in]` and a bias, which whoever calls gives up."""


def best_products(kernels: Kernels | None, device: torch.device, dtype: torch.dtype) -> Make:
    """Choose how products are computed on this machine."""
    if kernels is not None:
        return partial(_kernel_product, kernels)
    if device.type == "cpu" and dtype is torch.bfloat16 and can_pack():
        return packed_product
    return plain_product


def plain_product(weight: Tensor, bias: Tensor | None) -> Product:
    """Multiply by a weight as it came."""
    return lambda x: linear(x, weight, bias)


def in_rows(x: Tensor, num_columns: int) -> Tensor:
    """Give `x [..., columns]` as a kernel takes it: `[rows, columns]` without gaps."""
    return x.reshape(-1, num_columns).contiguous()


def _kernel_product(kernels: Kernels, weight: Tensor, bias: Tensor | None) -> Product:
    num_out, num_in = weight.shape
    if num_in % 2:
        return plain_product(weight, bias)
    packed = kernels.pack(weight, bias)

    def multiply(x: Tensor) -> Tensor:
        rows = in_rows(x, num_in)
        out = x.new_empty(len(rows), num_out)
        kernels.linear(rows, packed, out)
        return out.view(*x.shape[:-1], num_out)

    return multiply
