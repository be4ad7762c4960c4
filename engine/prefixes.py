"""Prefixes: what of a sequence's tokens others have computed, or are just computing.

Who begins like a sequence that is still computing waits for its blocks, so that several with one
beginning compute it once. Decides nothing else about the line; owns no blocks.
"""

from collections.abc import Iterable

from engine.blocks import BlockPool, Prefix, Root
from engine.sequence import Awaited, Sequence, State


class Prefixes:
    """What sequences have in common, in whole blocks of the pool."""

    def __init__(self, pool: BlockPool, is_enabled: bool) -> None:
        self._pool = pool
        self._is_enabled = is_enabled
        self._roots: dict[str, Root] = {}

    def may_share(self, sequence: Sequence) -> bool:
        """Tell whether known blocks may stand for a prompt's; its own logprobs need computing."""
        is_wanted = self._is_enabled and sequence.params.is_prefix_cached
        return is_wanted and not sequence.wants_prompt_logprobs

    def root(self, sequence: Sequence) -> Root | None:
        """Give what its chain of blocks starts from; adapters are as many as were loaded."""
        adapter = sequence.params.adapter
        if adapter is None:
            return None
        return self._roots.setdefault(adapter, Root(adapter))

    def find(self, sequence: Sequence) -> list[Prefix]:
        """Look for known blocks; at least one token is left to compute, for its logits."""
        if not self.may_share(sequence):
            return []
        return self._pool.find(sequence.token_ids, sequence.num_tokens - 1, self.root(sequence))

    def remember(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full and computed by now."""
        if not self._is_enabled:
            return
        size = self._pool.block_size
        while (sequence.num_remembered + 1) * size <= sequence.num_computed:
            start = sequence.num_remembered * size
            sequence.prefix = self._pool.remember(
                sequence.prefix,
                sequence.token_ids[start : start + size],
                sequence.blocks[sequence.num_remembered],
            )
            sequence.num_remembered += 1

    def is_waiting(self, sequence: Sequence) -> bool:
        """Tell whether another is still computing what this one was told to wait for.

        It need not be: whoever ended or was preempted computes nothing.
        """
        awaited = sequence.awaited
        return (
            awaited is not None
            and awaited.sequence.state is State.RUNNING
            and awaited.sequence.num_computed < awaited.num_tokens
        )

    def must_wait(
        self, sequence: Sequence, chain: list[Prefix], computing: Iterable[Sequence]
    ) -> bool:
        """Let it wait for the one that computes most of what its chain of known blocks lacks.

        Only for those that came before it: they are finitely many, so nobody waits for ever.
        """
        sequence.awaited = None
        if not self.may_share(sequence):
            return False
        num_known = len(chain) * self._pool.block_size
        for other in computing:
            num_common = self._num_common(sequence, other)
            is_coming = num_common > max(num_known, other.num_computed)
            if is_coming and other.sequence_id < sequence.sequence_id:
                num_known = num_common
                sequence.awaited = Awaited(other, num_common)
        return sequence.awaited is not None

    def _num_common(self, sequence: Sequence, other: Sequence) -> int:
        """Count the tokens of the whole blocks that both begin with; one is left to compute.

        What another adapter computes is not the same, whatever the tokens.
        """
        if sequence.params.adapter != other.params.adapter:
            return 0
        size, end = self._pool.block_size, 0
        last = min(sequence.num_tokens - 1, other.num_tokens)
        ours, theirs = sequence.token_ids, other.token_ids
        while end + size <= last and ours[end : end + size] == theirs[end : end + size]:
            end += size
        return end
