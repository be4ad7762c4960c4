"""Drafts: guesses one sequence's next tokens from what followed the same tokens before.

Prompt lookup, as in https://github.com/apoorvumang/prompt-lookup-decoding: no second model. Knows
no blocks, no steps and no other sequence.
"""

from collections.abc import Sequence
from itertools import cycle, islice

_MAX_NEW = 256
"""So many tokens are noted in one step at most; that takes some 0.03 ms."""
_BITS = 21
"""Of a token's id in the number that stands for three; ids beyond would only spoil guesses."""
_THREE = (1 << 3 * _BITS) - 1
_MAX_REST = 63
"""Steps without a guess after guesses that were all wrong: a wrong one costs part of a step."""


class Drafts:
    """Notes where each three tokens were last seen; a constant time for each token."""

    __slots__ = ("_ends", "_found", "_num_noted", "_rest", "_resting", "_three")

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        """How many tokens there were when these three were the last."""
        self._num_noted = 0
        self._three = _THREE
        """The last three that were noted, as one number: it takes half of a tuple's memory. Before
        the first token stand two that are none."""
        self._found: int | None = None
        """How many tokens there were when the last ones were the last before."""
        self._rest = 0
        """How many steps to make no guess after the next wrong one."""
        self._resting = 0
        """How many of them are left."""

    def find(self, token_ids: Sequence[int]) -> bool:
        """Note new tokens; tell whether the last three were seen before, and a guess is due.

        A long prompt is noted over several steps, in which nothing is found.
        """
        if self._resting:
            self._resting -= 1
            return False
        end, num_tokens = self._num_noted, len(token_ids)
        if num_tokens - end > _MAX_NEW:
            num_tokens = end + _MAX_NEW
        ends, three, found = self._ends, self._three, None
        while end < num_tokens:
            three = (three << _BITS | token_ids[end]) & _THREE
            end += 1
            found = ends.get(three)
            ends[three] = end
        self._num_noted, self._three, self._found = end, three, found
        return found is not None and end == len(token_ids)

    def guess(self, token_ids: Sequence[int], count: int) -> tuple[int, ...]:
        """Guess that the same follows as before; what would reach beyond the end repeats itself."""
        start = self._found
        assert start is not None, "This is a bug. Nothing was found."
        return tuple(islice(cycle(token_ids[start : start + count]), count))

    def learn(self, num_accepted: int) -> None:
        """Hear how many tokens of the last guess were right; guess less often after none."""
        self._rest = 0 if num_accepted else min(2 * self._rest + 1, _MAX_REST)
        self._resting = self._rest
