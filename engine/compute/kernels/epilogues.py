"""epilogues: what becomes of a product, in plain torch, for products that are not of C++."""

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from engine.compute.kernels.table import LANES, Epilogue


def finish(y: Tensor, out: Tensor, epilogue: Epilogue) -> None:
    """Do with a product what the epilogue says."""
    if epilogue is Epilogue.ADD:
        out += y
    elif epilogue.is_gated:
        gate, other = y.unflatten(1, (-1, 2, LANES)).unbind(2)
        is_silu = epilogue is Epilogue.SILU_MUL
        active = silu(gate) if is_silu else gelu(gate, approximate="tanh")
        torch.mul(active, other, out=out.unflatten(1, (-1, LANES)))
    else:
        out.copy_(y)
