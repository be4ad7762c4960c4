"""Drafts: guesses one sequence's next tokens from what followed the same tokens before.

Prompt lookup, as in https://github.com/apoorvumang/prompt-lookup-decoding: no second model. Knows
no blocks, no steps and no other sequence.
"""

from collections.abc import Sequence
from itertools import cycle, islice

_MAX_NEW = 256
"""So many tokens are noted in one step at most; they take about 0.1 ms."""
_MAX_REST = 63
"""Steps without a guess after guesses that were all wrong: a wrong one costs part of a step."""


class Drafts:
    """Notes where each two and three tokens were last seen; a constant time for each token."""

    __slots__ = ("_ends", "_num_noted", "_rest", "_resting")

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        """How many tokens there were when these were the last."""
        self._num_noted = 2
        self._rest = 0
        """How many steps to make no guess after the next wrong one."""
        self._resting = 0
        """How many of them are left."""

    def find(self, token_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """Guess what follows; empty where the last two tokens are new together.

        A guess that would reach beyond the last token goes on by repeating itself. A long prompt
        is noted over several steps, in which nothing is guessed.
        """
        if self._resting:
            self._resting -= 1
            return ()
        found = self._note(token_ids)
        if found is None:
            return ()
        return tuple(islice(cycle(token_ids[found : found + max_tokens]), max_tokens))

    def learn(self, num_accepted: int) -> None:
        """Hear how many tokens of the last guess were right; guess less often after none."""
        self._rest = 0 if num_accepted else min(2 * self._rest + 1, _MAX_REST)
        self._resting = self._rest

    def _note(self, token_ids: Sequence[int]) -> int | None:
        """Note the tokens that are new; say where the last ones were seen before."""
        ends, found = self._ends, None
        first, num_tokens = self._num_noted + 1, len(token_ids)
        last = min(num_tokens, self._num_noted + _MAX_NEW)
        for end in range(first, last + 1):
            two = token_ids[end - 2], token_ids[end - 1]
            three = (token_ids[end - 3], *two)
            if end == num_tokens:
                found = ends.get(three) or ends.get(two)
            ends[three] = ends[two] = end
        self._num_noted = max(last, self._num_noted)
        return found
