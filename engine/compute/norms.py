"""Load-time rewrite of RMS norms: five operations of the library become one kernel.

Found by what they compute, so that no family is known by name.
"""

from inspect import signature

import torch
from torch import Tensor, nn

from engine.compute.kernels.table import Kernels
from engine.compute.linears import replace
from engine.compute.products import in_rows

_OFFSETS = (0.0, 1.0)
"""The weight as it is, and as in Gemma what is added to one."""
_SIZES = (1e-3, 1e-2, 1.0, 100.0)
"""Of the rows that are compared: beside the small ones the epsilon weighs."""


class Norm(nn.Module):
    """Stands where a norm of the library stood."""

    def __init__(self, kernels: Kernels, weight: Tensor, epsilon: float, offset: float) -> None:
        super().__init__()
        self._kernels = kernels
        self._weight = weight
        self._epsilon = epsilon
        self._offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x [..., width]`."""
        rows = in_rows(x, len(self._weight))
        out = torch.empty_like(rows)
        self._kernels.rms_norm(rows, self._weight, self._epsilon, out, self._offset)
        return out.view(x.shape)


def rewrite_norms(model: nn.Module, kernels: Kernels) -> int:
    """Replace what is an RMS norm of the kernels' type; return how many were."""
    found = [
        (name, norm)
        for name, module in model.named_modules()
        if (norm := _as_norm(module, kernels)) is not None
    ]
    for name, norm in found:
        replace(model, name, norm)
    return len(found)


def epsilon_of(norm: nn.Module) -> float:
    """Read what keeps a norm from dividing by zero; 0 where a module has no such thing."""
    return float(getattr(norm, "variance_epsilon", getattr(norm, "eps", None)) or 0.0)


def _as_norm(module: nn.Module, kernels: Kernels) -> Norm | None:
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    weight = tensors.get("weight")
    if weight is None or len(tensors) > 1 or weight.dim() != 1 or weight.dtype != kernels.dtype:
        return None
    if len(signature(module.forward).parameters) > 1:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(_SIZES), len(weight), generator=generator)
    x = (x * torch.tensor(_SIZES)[:, None]).to(kernels.dtype)
    try:
        expected = module(x)
    except (TypeError, ValueError, RuntimeError):  # it takes something else
        return None
    norms = (Norm(kernels, weight.detach(), epsilon_of(module), offset) for offset in _OFFSETS)
    return next((norm for norm in norms if _is_near(norm(x), expected)), None)


def _is_near(got: Tensor, expected: object) -> bool:
    """Compare number by number, of which each may be rounded twice more."""
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        return False
    rounding = 2.5 * torch.finfo(got.dtype).eps if got.dtype is torch.bfloat16 else 1e-5
    return got.dtype is expected.dtype and torch.allclose(got, expected, rtol=rounding, atol=1e-30)
