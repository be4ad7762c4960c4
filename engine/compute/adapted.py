"""adapted: adapters beside the library's modules; which of them is added for which tokens.

Where a Decoder runs instead, it adds them itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from engine.compute.kernels.table import AdapterTokens
from engine.compute.linears import replace
from engine.compute.lora import Adapter, LowRank
from engine.compute.products import Make, Product


class Adaptation:
    """The adapters of one model's modules; `tokens` is set before each step."""

    def __init__(self, module: nn.Module, adapters: Sequence[Adapter], make: Make) -> None:
        """Put them beside the linears that they change; `make` says how to multiply."""
        self.tokens: Sequence[AdapterTokens] = ()
        for name in {name for adapter in adapters for name in adapter.parts}:
            parts = [_product(adapter.parts.get(name), make) for adapter in adapters]
            replace(module, name, _Adapted(self, module.get_submodule(name), parts))


class _Adapted(nn.Module):
    """Stands where a linear stood, and adds to its output for some tokens."""

    def __init__(
        self, adaptation: Adaptation, linear: nn.Module, parts: Sequence[Product | None]
    ) -> None:
        super().__init__()
        self._adaptation = adaptation
        self._linear = linear
        self._parts = parts

    def forward(self, x: Tensor) -> Tensor:
        """Multiply `x [1, tokens, in]` to `[1, tokens, out]`."""
        y: Tensor = self._linear(x)
        for number, tokens in self._adaptation.tokens:
            part = self._parts[number]
            if part is not None:
                y[..., tokens, :] += part(x[..., tokens, :])
        return y


def _product(part: LowRank | None, make: Make) -> Product | None:
    if part is None:
        return None
    narrow, wide = make(part.a, None), make(part.b, None)
    return lambda x: wide(narrow(x))


@contextmanager
def added(module: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Let the library's own modules add an adapter for all tokens, for comparison."""
    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, part=part: output + part(inputs[0])
        )
        for name, part in adapter.parts.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
