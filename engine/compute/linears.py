"""Load-time rewrite of linear layers: weights packed for the CPU, projections of one input joined.

Which linears share an input is observed in one forward pass, so no family is known by name. Knows
nothing of attention or rows.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor, nn

from engine.compute.allocator import give_back_freed
from engine.compute.products import Make, Product


def rewrite_linears(model: nn.Module, forward: Callable[[], object], make: Make) -> int:
    """Join the linears that a forward pass calls, as products made anew; return how many.

    `forward` runs the model once on a few tokens. Works module by module, so that at most one
    weight exists twice; a tied head becomes a copy of its own, since the table is looked up plain.
    """
    groups = _observe(model, forward)
    num_joined = 0
    while groups:
        names = groups.pop()
        joined = Joined([_linear(model, name) for name in names], make)
        for position, name in enumerate(names):
            replace(model, name, Slice(joined, position))
        give_back_freed()
        num_joined += len(names) if len(names) > 1 else 0
    return num_joined


class Joined:
    """One product for all linears that share an input; keeps the result until the last took it."""

    def __init__(self, members: list[nn.Linear], make: Make) -> None:
        self._sizes = [member.out_features for member in members]
        weight = torch.cat([m.weight.detach() for m in members]) if members[1:] else None
        self._multiply: Product = make(
            members[0].weight.detach() if weight is None else weight, _bias(members)
        )
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def take(self, position: int, x: Tensor) -> Tensor:
        """Return one member's output for `x [..., in]`; computes at the first call for it."""
        if len(self._sizes) == 1:
            return self._multiply(x)
        if self._input is not x:
            self._input = x
            self._outputs = self._multiply(x).split(self._sizes, dim=-1)
        output = self._outputs[position]
        if position == len(self._sizes) - 1:
            self._input, self._outputs = None, ()
        return output


class Slice(nn.Module):
    """Stands where a linear stood, and hands out its slice of the joined product."""

    def __init__(self, joined: Joined, position: int) -> None:
        super().__init__()
        self._joined = joined
        self._position = position

    def forward(self, x: Tensor) -> Tensor:
        """Multiply `x [..., in]` to `[..., out]`."""
        return self._joined.take(self._position, x)


def _observe(model: nn.Module, forward: Callable[[], object]) -> list[list[str]]:
    """Group the names of linears, each called once, that are called in a row on one tensor."""
    calls: list[tuple[str, Tensor]] = []
    with _hooks(model, calls):
        forward()
    num_calls = Counter(name for name, _ in calls)
    groups = []
    for _, same in groupby(calls, key=lambda call: id(call[1])):
        names = [name for name, _ in same]
        if any(num_calls[name] > 1 for name in names):
            continue
        has_bias = {_linear(model, name).bias is not None for name in names}
        groups += [names] if len(has_bias) == 1 else [[name] for name in names]
    return groups


@contextmanager
def _hooks(model: nn.Module, calls: list[tuple[str, Tensor]]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: calls.append((name, inputs[0]))
        )
        for name, module in model.named_modules()
        if type(module) is nn.Linear
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _bias(members: list[nn.Linear]) -> Tensor | None:
    biases = [member.bias.detach() for member in members if member.bias is not None]
    return torch.cat(biases) if biases else None


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one stood."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
