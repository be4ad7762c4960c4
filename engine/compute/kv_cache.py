"""KVCache: the K and V tensors, their layout, and how many blocks fit in memory.

A block is one piece of memory, in which all heads of one width have their part, whatever their
layer: it is cleared by one fill, its pages come at once, and a layer's keys and values are near.
Each layer sees it as `[kv_heads, blocks, block, dim]`; gathering a sequence's keys is one
`index_select` of whole rows, whose result needs no transpose. Only this file knows the layout;
where kernels write and attend, the inside of a head's part is theirs.
"""

import mmap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from engine.control_groups import ControlGroup, control_groups


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps for each token; K and V may differ in width."""

    num_kv_heads: int
    k_dim: int
    v_dim: int

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one token."""
        return self.num_kv_heads * (self.k_dim + self.v_dim) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Gather:
    """Where the blocks of some rows are copied together, for any layer of one shape."""

    k_rows: Tensor
    v_rows: Tensor
    """Which parts of blocks to copy, counted from the layer's first."""
    k_out: Tensor
    v_out: Tensor
    """Where to: parts of kept buffers, which the next gather overwrites."""
    keys: Tensor
    values: Tensor
    """The same as `[kv_heads, rows, length, dim]`."""


class KVCache:
    """Keys and values of every block, for every layer."""

    def __init__(
        self,
        shapes: Sequence[LayerShape],
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.k: list[Tensor] = []
        """For each layer `[kv_heads, blocks, block, k_dim]`; zero before the first use."""
        self.v: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        num_heads: Counter[int] = Counter()
        for shape in shapes:
            for dim in (shape.k_dim, shape.v_dim):
                num_heads[dim] += shape.num_kv_heads
        self._blocks = {
            dim: _zeros((num_blocks, number, block_size, dim), dtype, device)
            for dim, number in num_heads.items()
        }
        """By the width of their heads."""
        taken: Counter[int] = Counter()
        for shape in shapes:
            for caches, dim in ((self.k, shape.k_dim), (self.v, shape.v_dim)):
                heads = self._blocks[dim].narrow(1, taken[dim], shape.num_kv_heads)
                caches.append(heads.transpose(0, 1))
                taken[dim] += shape.num_kv_heads

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Store this step's keys and values, `[kv_heads, tokens, dim]`, at `slots [tokens]`."""
        blocks, places = slots // self.block_size, slots % self.block_size
        self.k[layer][:, blocks, places] = key
        self.v[layer][:, blocks, places] = value

    def gather(self, layer: int, blocks: Tensor) -> Gather:
        """Lay out the copy of block tables `[rows, blocks]`, for this layer and those alike."""
        k, v = self.k[layer], self.v[layer]
        k_rows, v_rows = (self._rows(cache, blocks) for cache in (k, v))
        k_out, v_out = self._buffer("k", k, len(k_rows)), self._buffer("v", v, len(v_rows))
        size = (k.shape[0], len(blocks), blocks.shape[1] * self.block_size)
        return Gather(k_rows, v_rows, k_out, v_out, k_out.view(*size, -1), v_out.view(*size, -1))

    def read(self, layer: int, gather: Gather) -> None:
        """Copy what is laid out, from this layer."""
        for cache, rows, out in (
            (self.k[layer], gather.k_rows, gather.k_out),
            (self.v[layer], gather.v_rows, gather.v_out),
        ):
            width = out.shape[1]
            parts = self._blocks[cache.shape[3]].view(-1, width)
            torch.index_select(parts[cache.storage_offset() // width :], 0, rows, out=out)

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks before they are given to a row.

        A stale NaN in the unused end of a block would reach a row through `0 * NaN`.
        """
        for memory in self._blocks.values():
            for block in blocks:
                memory[block].zero_()

    def _rows(self, cache: Tensor, blocks: Tensor) -> Tensor:
        """List where a layer's heads have their parts of blocks, one head after the other."""
        num_heads = self._blocks[cache.shape[3]].shape[1]
        heads = torch.arange(len(cache), device=blocks.device)[:, None]
        return (heads + num_heads * blocks.flatten()).flatten()

    def _buffer(self, name: str, cache: Tensor, num_rows: int) -> Tensor:
        """Give room for so many blocks, `[num_rows, block * dim]`, kept from step to step."""
        num_elements = num_rows * cache.shape[2] * cache.shape[3]
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < num_elements:
            buffer = self._buffers[name] = cache.new_empty(num_elements + num_elements // 4)
        return buffer[:num_elements].view(num_rows, -1)


def _zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make a zero tensor; on a CPU its pages take memory only once something is written there."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=dtype, device=device)
    # private, since a shared page takes twice as long or more to be there
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, prod(size) * dtype.itemsize, flags=flags)
    return torch.frombuffer(memory, dtype=dtype).view(size)


def free_memory_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes this process could still take: of the GPU, or of the machine and its control groups."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    left = [_left_bytes(group) for group in control_groups("memory", root)]
    return min(
        [_available_bytes(root), *(num_bytes for num_bytes in left if num_bytes is not None)]
    )


def _available_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo does not tell MemAvailable")


def _left_bytes(group: ControlGroup) -> int | None:
    """Bytes left under a group's limit, None where it has none; read files can be dropped."""
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit_file, usage_file, droppable = (
        ("memory.max", "memory.current", "inactive_file") if group.is_v2 else v1
    )
    try:
        limit = (group.folder / limit_file).read_text().strip()
        usage = int((group.folder / usage_file).read_text())
        stat = dict(
            line.split() for line in (group.folder / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):
        return None
    if not limit.isdigit():
        return None
    return max(0, int(limit) - usage + int(stat.get(droppable, 0)))
