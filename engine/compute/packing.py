"""packing: linear layers as the kernels read them, alone or joined."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from engine.compute.kernels.table import LANES, Kernels, Packed, interleaved


def pack_joined(kernels: Kernels, *linears: nn.Linear, is_int8: bool = False) -> Packed:
    """Pack linears of one input as one."""
    weights = [linear.weight.detach() for linear in linears]
    return kernels.pack(weights, _bias(linears), is_int8=is_int8)


def pack_gate(
    kernels: Kernels, gate: nn.Linear, other: nn.Linear, *, is_int8: bool = False
) -> Packed:
    """Pack for a gated epilogue, with columns of zeros up to whole groups."""
    missing = -gate.out_features % LANES
    weights = [linear.weight.detach() for linear in (gate, other)]
    bias = _bias([gate, other])
    if missing:  # to pad with nothing is to copy
        weights = [pad(weight, (0, 0, 0, missing)) for weight in weights]
    if bias is not None:
        bias = interleaved(*(pad(half, (0, missing)) for half in bias.chunk(2)))
    return kernels.pack(weights, bias, is_gated=True, is_int8=is_int8)


def pack_down(kernels: Kernels, down: nn.Linear, *, is_int8: bool = False) -> Packed:
    """Pack with the columns that the padding of the gate adds."""
    weight, missing = down.weight.detach(), -down.in_features % LANES
    if missing:
        weight = pad(weight, (0, missing))
    bias = None if down.bias is None else down.bias.detach()
    return kernels.pack(weight, bias, is_int8=is_int8)


def _bias(linears: Sequence[nn.Linear]) -> Tensor | None:
    """Join biases; zeros stand for one that is missing beside others."""
    if all(linear.bias is None for linear in linears):
        return None
    return torch.cat(
        [
            linear.weight.new_zeros(linear.out_features)
            if linear.bias is None
            else linear.bias.detach()
            for linear in linears
        ]
    )
