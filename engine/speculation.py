"""Speculation: which rows of a step also compute guesses of their next tokens, and how many.

Takes what a step has left: tokens behind those of prompts, blocks that are free. Verifies nothing:
the runner says which guesses were right.
"""

from collections.abc import Mapping

from engine.batch import RowWork
from engine.blocks import BlockPool
from engine.drafts import Drafts
from engine.sequence import Sequence


class Speculation:
    """Adds drafts to the work of a step."""

    def __init__(self, pool: BlockPool, max_drafts: int, max_batch_tokens: int) -> None:
        self._pool = pool
        self._max_drafts = max_drafts
        self._max_batch_tokens = max_batch_tokens

    def extend(self, work: list[RowWork], running: Mapping[int, Sequence]) -> None:
        """Let rows that compute their last token compute guesses after it, the oldest first."""
        guessing = [
            at
            for at, row in enumerate(work)
            if row.num_tokens == 1 and row.is_sampled and _is_found(running[row.sequence_id])
        ]
        if not guessing:
            return
        spare = self._max_batch_tokens - sum(row.num_tokens for row in work)
        for at in guessing:
            work[at] = self._with_guess(running[work[at].sequence_id], work[at], spare)
            spare -= work[at].num_tokens - 1

    def _with_guess(self, sequence: Sequence, row: RowWork, spare: int) -> RowWork:
        """Guess as many tokens as may still be said, and as there is room for."""
        size, num_blocks = self._pool.block_size, len(sequence.blocks)
        left = sequence.params.max_new_tokens - sequence.num_output - 1
        room = (num_blocks + self._pool.num_free) * size - sequence.num_tokens
        num_drafts = min(self._max_drafts, left, room, spare)
        if num_drafts <= 0:
            return row
        assert sequence.drafts is not None, "This is a bug. Nobody looked for a guess."
        missing = -(-(sequence.num_tokens + num_drafts) // size) - num_blocks
        new_blocks = self._pool.take(max(0, missing))
        sequence.blocks += new_blocks
        return row._replace(
            num_tokens=1 + num_drafts,
            num_logits=1 + num_drafts,
            new_blocks=(*row.new_blocks, *new_blocks),
            drafts=sequence.drafts.guess(sequence.token_ids, num_drafts),
        )


def _is_found(sequence: Sequence) -> bool:
    """Tell whether a guess of what follows is due; a grammar's masks come one token at a time."""
    if sequence.params.grammar is not None:
        return False
    if sequence.drafts is None:
        sequence.drafts = Drafts()
    return sequence.drafts.find(sequence.token_ids)
