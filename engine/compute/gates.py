"""Load-time rewrite of gated feed-forward modules: one product gives gate and factor, and gates.

Found by what they compute: `down(act(gate(x)) * up(x))`, whatever the parts are called, and also
where gate and factor are the halves of one linear.
"""

from collections.abc import Collection, Iterator
from inspect import signature
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from engine.compute.allocator import give_back_freed
from engine.compute.kernels.table import Epilogue, Kernels, Packed
from engine.compute.linears import replace
from engine.compute.packing import pack_down, pack_gate
from engine.compute.products import in_rows

_ACTIVATIONS = {
    Epilogue.SILU_MUL: silu,
    Epilogue.GELU_MUL: lambda gate: gelu(gate, approximate="tanh"),
}
_NUM_ROWS = 5
_TOLERANCE = 0.02
"""Of the output's norm, by which roundings may make it differ; a thousandth of it in float32."""


class GatedFeedForward(nn.Module):
    """Stands where a feed-forward module of the library stood."""

    def __init__(self, kernels: Kernels, gate_up: Packed, down: Packed, gating: Epilogue) -> None:
        super().__init__()
        self._kernels = kernels
        self._gate_up = gate_up
        self._down = down
        self._gating = gating

    def forward(self, x: Tensor) -> Tensor:
        """Compute `x [..., hidden]` to the like."""
        rows = in_rows(x, self._gate_up.k)
        inner = x.new_empty(len(rows), self._down.k)
        self._kernels.linear(rows, self._gate_up, inner, self._gating)
        out = x.new_empty(len(rows), self._down.n)
        self._kernels.linear(inner, self._down, out)
        return out.view(*x.shape[:-1], self._down.n)


def rewrite_gates(model: nn.Module, kernels: Kernels, kept: Collection[str] = ()) -> int:
    """Replace gated feed-forward modules, one by one; return how many there were.

    Those with a linear of the names in `kept` stay: what is added to it is gated as well.
    """
    is_kept = {name.rpartition(".")[0] for name in kept}
    names = [
        name for name, module in model.named_modules() if name not in is_kept and _linears(module)
    ]
    num_rewritten = 0
    for name in names:
        module = _as_gated(model.get_submodule(name), kernels)
        if module is not None:
            replace(model, name, module)
            give_back_freed()
            num_rewritten += 1
    return num_rewritten


def _linears(module: nn.Module) -> list[nn.Linear]:
    """Give the parts of a module that has two or three linears and no other numbers."""
    parts = [part for part in module.children() if type(part) is nn.Linear]
    own = {id(number) for part in parts for number in part.parameters()}
    is_all = own == {id(number) for number in module.parameters()}
    return parts if len(parts) in (2, 3) and is_all and not list(module.buffers()) else []


def _as_gated(module: nn.Module, kernels: Kernels) -> GatedFeedForward | None:
    linears = _linears(module)
    if len(signature(module.forward).parameters) > 1 or linears[0].weight.dtype != kernels.dtype:
        return None
    for (gate, up, down), gating in product(_orders(linears), _ACTIVATIONS):
        x = _random_rows(gate)
        try:
            expected = module(x)
        except (TypeError, ValueError, RuntimeError):  # it takes something else
            continue
        if _is_near(down(_ACTIVATIONS[gating](gate(x)) * up(x)), expected):
            packed = pack_gate(kernels, gate, up), pack_down(kernels, down)
            return GatedFeedForward(kernels, *packed, gating)
    return None


def _random_rows(gate: nn.Linear) -> Tensor:
    """Give rows whose gates are near one, where activations are least alike."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_NUM_ROWS, gate.in_features, generator=generator).to(gate.weight.dtype)
    size: Tensor = gate(x).std().clamp_min(torch.finfo(x.dtype).tiny)
    return x / size


def _orders(linears: list[nn.Linear]) -> Iterator[tuple[nn.Linear, nn.Linear, nn.Linear]]:
    """Give what gate, factor and the way down may be."""
    for down in linears:
        others = [other for other in linears if other is not down]
        gates = others if len(others) == 2 else _halves(others[0])
        widths = {gate.in_features for gate in gates}, {gate.out_features for gate in gates}
        if widths == ({down.out_features}, {down.in_features}) and down.in_features % 2 == 0:
            yield gates[0], gates[1], down
            yield gates[1], gates[0], down


def _halves(joined: nn.Linear) -> list[nn.Linear]:
    """Look at the rows of one linear as those of two."""
    halves = []
    for place in range(2):
        half = nn.Linear(joined.in_features, joined.out_features // 2, device="meta")
        half.weight = nn.Parameter(joined.weight.chunk(2)[place], requires_grad=False)
        biases = None if joined.bias is None else joined.bias.chunk(2)
        half.bias = None if biases is None else nn.Parameter(biases[place], requires_grad=False)
        halves.append(half)
    return halves


def _is_near(got: Tensor, expected: object) -> bool:
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        return False
    tolerance = _TOLERANCE / (1000 if got.dtype is torch.float32 else 1)
    return bool((got - expected).float().norm() < tolerance * expected.float().norm())
