"""Foresight: what follows a step as long as nothing but a token of each row can come of it.

Lends blocks for it, and takes them back; decides nothing of who starts or ends.
"""

from collections.abc import Mapping

from engine.batch import Batch, RowWork
from engine.blocks import BlockPool
from engine.sequence import Sequence, State


class Foresight:
    """The rows of one step more than is known, with the blocks that they will need."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._lent: list[tuple[Sequence, int]] = []
        """Who was given how many blocks, the last time."""

    def rows_after(self, batch: Batch, running: Mapping[int, Sequence]) -> list[RowWork]:
        """Give each row that will not have ended by its length a token after this batch's.

        None of them where a prompt is not whole, or where there are too few free blocks.
        """
        needs = [need for work in batch.work if (need := self._need(work, running))]
        lent = [(sequence, missing) for sequence, missing in needs if missing > 0]
        is_whole = all(work.is_sampled for work in batch.work)
        if not is_whole or sum(missing for _, missing in lent) > self._pool.num_free:
            return []
        self._lent = lent
        return [self._row(sequence, missing) for sequence, missing in needs]

    def take_back(self) -> None:
        """Free the blocks that were lent the last time, of those who still run."""
        for sequence, count in self._lent:
            if sequence.state is State.RUNNING:
                self._pool.release(sequence.blocks[-count:])
                del sequence.blocks[-count:]

    def _need(self, work: RowWork, running: Mapping[int, Sequence]) -> tuple[Sequence, int] | None:
        """Count the blocks that a row will lack after this work; None if it will have ended."""
        sequence = running.get(work.sequence_id)
        if sequence is None or sequence.num_output + 1 >= sequence.params.max_new_tokens:
            return None
        end = sequence.num_computed + work.num_tokens + 1
        return sequence, -(-end // self._pool.block_size) - len(sequence.blocks)

    def _row(self, sequence: Sequence, num_missing: int) -> RowWork:
        if num_missing <= 0:
            return sequence.decode
        new_blocks = self._pool.take(num_missing)
        sequence.blocks += new_blocks
        return sequence.decode._replace(new_blocks=tuple(new_blocks))
