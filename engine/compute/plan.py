"""plan: where a step's tokens stand and what each sees, worked out once for all layers.

A step's tokens are one ragged row: first the decodes (rows with one token, longest context first),
then the prompt chunks. Knows the cache's blocks by their numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.compute.kernels.table import Paged
from engine.compute.kv_cache import Gather, LayerShape

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Context:
    """Where the keys of a row with a chunk lie, and which of its tokens this step computes."""

    blocks: Ids
    """Block table `[blocks]`, up to the row's last token of this step."""
    start: int
    """Position of its first token of this step."""
    num_tokens: int

    @property
    def end(self) -> int:
        """Count the row's tokens after this step."""
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """What a step computes."""

    tables: Ids
    """`[rows, blocks]` of the decodes; what stands behind a row's last block does not matter."""
    positions: Ids
    """`[rows]`, of the decodes' tokens; the longest row first."""
    chunks: Sequence[Context]
    block_size: int


@dataclass(slots=True)
class Group:
    """Decodes of similar length, padded to the longest and attended in one call."""

    first: int
    num_rows: int
    blocks: Tensor
    """`[rows, blocks]`; a row's padding repeats its own first block."""
    positions: Tensor
    """`[rows]`, of the one query each."""
    gathers: dict[LayerShape, Gather] = field(default_factory=dict)
    masks: dict[int | None, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Chunk:
    """One row's prompt chunk."""

    first: int
    context: Context
    blocks: Tensor
    """`[1, blocks]`"""
    gathers: dict[LayerShape, Gather] = field(default_factory=dict)
    masks: dict[int | None, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """One step's layout, the same for every layer."""

    slots: Tensor
    """Where each token's key and value go, `[tokens]`."""
    paged: Paged | None
    """What each token sees, for a kernel; else it is told by the next two."""
    groups: list[Group]
    chunks: list[Chunk]


def plan_for_kernels(step: Step, device: torch.device) -> Plan:
    """Write down what each token sees, a row of the table for each decode and each chunk."""
    tables, chunks = step.tables, step.chunks
    width = max([tables.shape[1], *(len(context.blocks) for context in chunks)])
    table = np.zeros((len(tables) + len(chunks), width), dtype=np.int64)
    table[: len(tables), : tables.shape[1]] = tables
    rows, positions = [np.arange(len(tables))], [step.positions]
    for row, context in enumerate(chunks, start=len(tables)):
        table[row, : len(context.blocks)] = context.blocks
        rows.append(np.full(context.num_tokens, row))
        positions.append(np.arange(context.start, context.end))
    slots, position, row_of, table_of = (
        _tensor(array, device)
        for array in (_slots(step), np.concatenate(positions), np.concatenate(rows), table)
    )
    return Plan(slots, Paged(position, slots, row_of, table_of), [], [])


def plan_for_torch(step: Step, device: torch.device) -> Plan:
    """Divide a step into parts that torch attends in one call each."""
    chunks = []
    first = len(step.positions)
    for context in step.chunks:
        chunks.append(Chunk(first, context, _tensor(context.blocks, device)[None]))
        first += context.num_tokens
    return Plan(_tensor(_slots(step), device), None, _groups(step, device), chunks)


def _groups(step: Step, device: torch.device) -> list[Group]:
    """Split decodes, longest first, so that at most half of a group is padding.

    A row is padded with its own first block: no row ever reads another's.
    """
    num_blocks = step.positions // step.block_size + 1
    groups = []
    first = 0
    while first < len(num_blocks):
        longest = int(num_blocks[first])
        last = first + int(np.count_nonzero(2 * num_blocks[first:] >= longest))
        table = step.tables[first:last, :longest]
        is_own = np.arange(longest) < num_blocks[first:last, None]
        padded = np.where(is_own, table, table[:, :1])
        positions = _tensor(step.positions[first:last], device)
        groups.append(Group(first, last - first, _tensor(padded, device), positions))
        first = last
    return groups


def _slots(step: Step) -> Ids:
    rows = np.arange(len(step.positions))
    own = _slot(step.tables[rows, step.positions // step.block_size], step.positions, step)
    slots = [own]
    for context in step.chunks:
        positions = np.arange(context.start, context.end)
        slots.append(_slot(context.blocks[positions // step.block_size], positions, step))
    return np.concatenate(slots)


def _slot(blocks: Ids, positions: Ids, step: Step) -> Ids:
    return blocks * step.block_size + positions % step.block_size


def _tensor(array: Ids, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
