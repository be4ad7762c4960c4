"""Constraint: one row's matcher, and which tokens it lets come next; Masks: logits without others.

Knows no sampling. A constraint is filled while the forward pass runs, on a thread of its own, and
moved on by the chosen token. What goes wrong ends the row: it never goes on without.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from torch import Tensor

from engine.compute.kernels.reference import forbidden
from engine.compute.kernels.table import Kernels
from engine.compute.logits import PANEL, Logits
from engine.errors import InvalidGrammar
from engine.grammar import Grammar
from engine.matchers import Matchers, shortened


class Constraint:
    """Says which tokens may come next in one row."""

    def __init__(
        self, matchers: Matchers | None, grammar: Grammar, output_ids: Sequence[int]
    ) -> None:
        """Begin, or go on after the output so far; without matchers nothing may come."""
        self.error: str | None = None
        """Why this row cannot go on."""
        self.mask: NDArray[np.int32] = np.zeros(0, np.int32)
        """A bit for each token: bit 0 of the first number is token 0."""
        self._is_filled = False
        self._is_renewed = False
        self._matchers = matchers
        self._grammar = grammar
        self._taken = list(output_ids)
        self._kept: LLMatcher | None = None
        """What ours is a copy of, and shares its lexer with."""
        self._matcher: LLMatcher | None = None
        self._guard(self._begin)

    @property
    def is_over(self) -> bool:
        """Tell whether only an end may follow."""
        return self._matcher is not None and bool(self._matcher.is_stopped())

    def fill(self) -> None:
        """Work out the mask, unless it is there."""
        if not self._is_filled:
            self._guard(self._fill)
            self._is_filled = True

    def take(self, token_id: int) -> None:
        """Move on by the chosen token."""
        self._taken.append(token_id)
        self._guard(lambda: self._consume([token_id]))
        self._is_filled = False

    def _begin(self) -> None:
        if self._matchers is None:
            raise InvalidGrammar("there is nothing that knows grammars")
        self._kept = self._matchers.matcher(self._grammar)
        self._matcher = self._kept.deep_copy()
        self.mask = np.zeros(-(-self._matchers.vocab_size // PANEL), np.int32)
        self._consume(self._taken)

    def _fill(self) -> None:
        assert self._matcher is not None
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)

    def _consume(self, token_ids: list[int]) -> None:
        assert self._matcher is not None
        self._matcher.consume_tokens(token_ids)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do it, if need be once from the start; what fails then ends the row."""
        if self.error is not None:
            return
        self.error = self._problem(work)
        self._forget()
        if self.error is not None and self._kept is not None and not self._is_renewed:
            self._is_renewed = True
            self.error = self._problem(self._begin_and_fill)
            self._forget()

    def _forget(self) -> None:
        """See that nobody begins with a lexer that may be full; answers add to it together."""
        if self.error is not None and self._matchers is not None and self._kept is not None:
            self._matchers.forget(self._grammar, self._kept)

    def _begin_and_fill(self) -> None:
        self._begin()
        self._fill()

    def _problem(self, work: Callable[[], None]) -> str | None:
        """Do it; say what went wrong: then nothing may come."""
        try:
            work()
        except BaseException as error:  # a panic of Rust's is no Exception, and one row's alone
            return f"the grammar cannot be followed: {str(error) or type(error).__name__}"
        if self._matcher is not None and self._matcher.is_error():
            reason = shortened(self._matcher.get_error())
            return f"the grammar cannot be followed any further: {reason}"
        return None


class Masks:
    """Copies rows of logits without what their constraints forbid; keeps the room for it."""

    def __init__(self, vocab_size: int, device: torch.device, kernels: Kernels | None) -> None:
        """With kernels, the copies have tops."""
        self._kernels = kernels
        self._values = torch.empty(0, vocab_size, device=device)
        self._tops = torch.empty(0, -(-vocab_size // PANEL), device=device)

    def apply(self, rows: Sequence[Tensor], constraints: Sequence[Constraint]) -> Logits:
        """Give each of `rows`, `[at least vocab]` of any float type, its constraint's mask.

        The answer is good until the next.
        """
        if len(rows) > len(self._values):
            self._values = self._values.new_empty(len(rows), self._values.shape[1])
            self._tops = self._tops.new_empty(len(rows), self._tops.shape[1])
        values, tops = self._values[: len(rows)], self._tops[: len(rows)]
        vocab_size = values.shape[1]
        for i, (row, constraint) in enumerate(zip(rows, constraints, strict=True)):
            mask = torch.from_numpy(constraint.mask)
            if self._kernels is None:
                values[i].copy_(row[:vocab_size])
                values[i].masked_fill_(forbidden(mask.to(row.device), vocab_size), -torch.inf)
            else:
                row = row[:vocab_size].float().contiguous()
                self._kernels.mask(row, mask, Logits(values[i : i + 1], tops[i : i + 1]))
        return Logits(values, None if self._kernels is None else tops)
