"""Tensors that the kernels' tests share: random ones, where a step's tokens are, RoPE's table."""

import torch

from engine.compute.kernels.table import Paged, RopeTable


def random(*shape):
    return torch.randn(*shape, dtype=torch.bfloat16)


def rope_table_of(dim, num_positions):
    angles = torch.rand(num_positions, dim // 2) * 6
    return RopeTable(*(torch.cat([f(angles), f(angles)], dim=1) for f in (torch.cos, torch.sin)))


def paged_of(lengths, block_size, num_spare=3):
    """Give each row of these lengths its last token, and in scattered blocks; count the blocks."""
    num_each = -(-max(lengths) // block_size)
    num_blocks = len(lengths) * num_each + num_spare
    tables = torch.randperm(num_blocks)[: len(lengths) * num_each].view(len(lengths), num_each)
    rows, positions = torch.arange(len(lengths)), torch.tensor(lengths) - 1
    slots = tables[rows, positions // block_size] * block_size + positions % block_size
    return Paged(positions, slots, rows, tables), num_blocks
