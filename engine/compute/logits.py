"""Logits: what a step's head gives, and what its kernel saw of them while they were at hand."""

from dataclasses import dataclass

from torch import Tensor

PANEL = 32


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """Some rows of logits; good until the next step, and only read."""

    values: Tensor
    """`[rows, at least vocab]`, any float type."""
    tops: Tensor | None = None
    """`[rows, panels]`: the largest of each PANEL columns, NaN where one is NaN; then the values
    are float32 and as wide as the vocabulary, without gaps."""

    def __len__(self) -> int:
        return len(self.values)

    def pick(self, rows: Tensor) -> "Logits":
        """Copy some rows."""
        return Logits(self.values[rows], None if self.tops is None else self.tops[rows])
