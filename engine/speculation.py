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
        spare = self._max_batch_tokens - sum(row.num_tokens for row in work)
        for at, row in enumerate(work):
            if spare <= 0:
                return
            if row.is_sampled and row.num_tokens == 1:
                sequence = running[row.sequence_id]
                drafts = self._guess(sequence, spare)
                if drafts:
                    work[at] = self._with_drafts(sequence, row, drafts)
                    spare -= len(drafts)

    def _guess(self, sequence: Sequence, spare: int) -> tuple[int, ...]:
        """Guess as many tokens as may still be said, and as there is room for."""
        left = sequence.params.max_new_tokens - sequence.num_output - 1
        num_slots = (len(sequence.blocks) + self._pool.num_free) * self._pool.block_size
        max_tokens = min(self._max_drafts, left, spare, num_slots - sequence.num_tokens)
        if max_tokens <= 0:
            return ()
        if sequence.drafts is None:
            sequence.drafts = Drafts()
        return sequence.drafts.find(sequence.token_ids, max_tokens)

    def _with_drafts(self, sequence: Sequence, row: RowWork, drafts: tuple[int, ...]) -> RowWork:
        num_tokens = 1 + len(drafts)
        end = sequence.num_tokens + len(drafts)
        missing = -(-end // self._pool.block_size) - len(sequence.blocks)
        new_blocks = self._pool.take(max(0, missing))
        sequence.blocks += new_blocks
        return row._replace(
            num_tokens=num_tokens,
            num_logits=num_tokens,
            new_blocks=(*row.new_blocks, *new_blocks),
            drafts=drafts,
        )
