import random
from collections.abc import Sequence

import pytest
from hypothesis import settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.blocks import BlockPool, Prefix, Root, chain_digest


def remembered(pool: BlockPool, blocks: Sequence[int], token_ids: Sequence[int]) -> list[Prefix]:
    """Remember these ids' whole blocks as a chain from the root."""
    chain: list[Prefix] = []
    size = pool.block_size
    for number in range(len(token_ids) // size):
        parent = chain[-1] if chain else None
        ids = token_ids[number * size : number * size + size]
        chain.append(pool.remember(parent, ids, blocks[number]))
    return chain


def found(pool: BlockPool, token_ids: Sequence[int]) -> list[int]:
    return [prefix.block for prefix in pool.find(token_ids, len(token_ids))]


def test_a_new_pool_gives_its_blocks_in_order():
    pool = BlockPool(3, 4)
    assert pool.take(2) == [0, 1]
    assert (pool.num_free, pool.num_cached) == (1, 0)
    pool.check([0, 1])


def test_taking_nothing_gives_nothing():
    pool = BlockPool(1, 4)
    assert pool.take(0) == []
    pool.check([])


def test_released_blocks_of_unknown_content_are_free_and_not_cached():
    pool = BlockPool(2, 2)
    pool.release(pool.take(2))
    assert (pool.num_free, pool.num_cached) == (2, 0)
    pool.check([])


def test_released_blocks_of_known_content_are_cached_and_found():
    pool = BlockPool(4, 2)
    blocks = pool.take(3)
    remembered(pool, blocks, [1, 2, 3, 4])
    pool.release(blocks)
    assert (pool.num_free, pool.num_cached) == (4, 2)
    assert found(pool, [1, 2, 3, 4, 5, 6]) == blocks[:2]
    pool.check([])


@pytest.mark.parametrize(
    ("token_ids", "max_tokens", "num_found"),
    [
        ([], 0, 0),
        ([1], 1, 0),
        ([1, 2], 1, 0),
        ([1, 2], 2, 1),
        ([1, 2, 3], 3, 1),
        ([1, 2, 3, 4], 3, 1),
        ([1, 2, 3, 4], 4, 2),
        ([1, 2, 3, 4, 5, 6], 6, 3),
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, 3),
        ([1, 2, 9, 4, 5, 6], 6, 1),
        ([9, 2, 3, 4, 5, 6], 6, 0),
        ([3, 4, 5, 6], 4, 0),
        ([2, 1], 2, 0),
        ([1, 2], 100, 1),
    ],
)
def test_find_gives_the_longest_known_chain_of_whole_blocks(token_ids, max_tokens, num_found):
    pool = BlockPool(3, 2)
    blocks = pool.take(3)
    remembered(pool, blocks, [1, 2, 3, 4, 5, 6])
    chain = pool.find(token_ids, max_tokens)
    assert [prefix.block for prefix in chain] == blocks[:num_found]
    pool.check(blocks)


def test_the_tail_of_a_chain_is_evicted_first():
    pool = BlockPool(3, 1)
    blocks = pool.take(3)
    remembered(pool, blocks, [1, 2, 3])
    pool.release(blocks)
    for num_left in (2, 1, 0):
        taken = pool.take(1)
        assert found(pool, [1, 2, 3]) == blocks[:num_left]
        assert taken == [blocks[num_left]]


def test_the_least_recently_released_chain_is_evicted_first():
    pool = BlockPool(4, 1)
    first, second = pool.take(2), pool.take(2)
    remembered(pool, first, [1, 2])
    remembered(pool, second, [7, 8])
    pool.release(first)
    pool.release(second)
    pool.take(2)
    assert (found(pool, [1, 2]), found(pool, [7, 8])) == ([], second)


def test_sharing_makes_a_chain_recent_again():
    pool = BlockPool(4, 1)
    first, second = pool.take(2), pool.take(2)
    remembered(pool, first, [1, 2])
    remembered(pool, second, [7, 8])
    pool.release(first)
    pool.release(second)
    pool.release(pool.share(pool.find([1, 2], 2)))
    pool.take(2)
    assert (found(pool, [1, 2]), found(pool, [7, 8])) == (first, [])


def test_free_blocks_are_taken_before_cached_ones():
    pool = BlockPool(3, 1)
    blocks = pool.take(1)
    remembered(pool, blocks, [1])
    pool.release(blocks)
    assert blocks[0] not in pool.take(2)
    assert found(pool, [1]) == blocks


def test_a_shared_block_is_free_only_when_its_last_owner_lets_go():
    pool = BlockPool(2, 2)
    blocks = pool.take(1)
    remembered(pool, blocks, [1, 2])
    shared = pool.share(pool.find([1, 2], 2))
    assert shared == blocks
    pool.release(blocks)
    pool.check(shared)
    assert (pool.num_free, pool.num_cached) == (1, 0)
    pool.release(shared)
    pool.check([])
    assert (pool.num_free, pool.num_cached) == (2, 1)


def test_num_free_after_leaves_out_cached_blocks_that_a_chain_would_own():
    pool = BlockPool(4, 1)
    blocks = pool.take(3)
    remembered(pool, blocks, [1, 2, 3])
    keep = pool.share(pool.find([1], 1))
    pool.release(blocks)
    chain = pool.find([1, 2, 3], 3)
    assert (pool.num_free, pool.num_free_after(chain)) == (3, 1)
    shared = pool.share(chain)
    assert pool.num_free == 1
    pool.check(keep + shared)


def test_a_prefix_computed_twice_keeps_its_first_block():
    pool = BlockPool(2, 2)
    first, second = pool.take(1), pool.take(1)
    (known,) = remembered(pool, first, [1, 2])
    assert remembered(pool, second, [1, 2]) == [known]
    pool.release(second)
    assert (pool.num_free, pool.num_cached) == (1, 0)
    assert found(pool, [1, 2]) == first
    pool.check(first)


def test_equal_blocks_after_different_parents_are_different():
    pool = BlockPool(4, 1)
    blocks = pool.take(4)
    remembered(pool, blocks[:2], [1, 5])
    remembered(pool, blocks[2:], [2, 5])
    assert (found(pool, [1, 5]), found(pool, [2, 5])) == (blocks[:2], blocks[2:])


@pytest.mark.parametrize("digest", [chain_digest, lambda parent, token_ids: b"same"])
def test_equal_blocks_after_different_roots_are_different(digest):
    pool = BlockPool(4, 2, digest)
    one, other = Root("one"), Root("other")
    [block] = pool.take(1)
    pool.remember(one, [1, 2], block)
    assert pool.find([1, 2], 2) == pool.find([1, 2], 2, other) == []
    assert [prefix.block for prefix in pool.find([1, 2], 2, one)] == [block]
    pool.check([block])


def test_broken_blocks_are_not_found_again():
    pool = BlockPool(3, 1)
    blocks = pool.take(3)
    remembered(pool, blocks, [1, 2])
    pool.release(blocks, is_broken=True)
    assert (pool.num_free, pool.num_cached, found(pool, [1, 2])) == (3, 0, [])
    pool.check([])


def test_a_broken_block_that_another_still_owns_is_forgotten_and_freed_with_its_last_owner():
    pool = BlockPool(2, 1)
    blocks = pool.take(1)
    remembered(pool, blocks, [1])
    shared = pool.share(pool.find([1], 1))
    pool.release(blocks, is_broken=True)
    pool.check(shared)
    assert found(pool, [1]) == []
    pool.release(shared)
    assert (pool.num_free, pool.num_cached) == (2, 0)
    pool.check([])


def test_the_children_of_an_evicted_block_are_not_found_and_make_way_for_new_ones():
    pool = BlockPool(3, 1)
    blocks = pool.take(2)
    chain = remembered(pool, blocks, [1, 2])
    pool.release(blocks[:1])  # the parent alone, as when the child's owner had its own copy
    pool.take(2)
    assert found(pool, [1, 2]) == []
    orphan = chain[1]
    pool.release(blocks[1:])
    assert pool.num_cached == 1
    pool.check([0, 2])
    again = remembered(pool, [2, 0], [1, 2])
    assert again[1] is not orphan
    assert (pool.num_cached, pool.num_free) == (0, 1)
    assert found(pool, [1, 2]) == [2, 0]
    pool.check([0, 2])


def test_check_sees_a_block_that_nobody_owns():
    pool = BlockPool(2, 1)
    pool.take(1)
    with pytest.raises(AssertionError, match="disagree"):
        pool.check([])


def test_digests_depend_on_parent_order_and_ids():
    digests = {
        chain_digest(parent, ids)
        for parent in (b"", b"x" * 16)
        for ids in ([1, 2], [2, 1], [1, 2, 3], [0x0201])
    }
    assert len(digests) == 8
    assert {len(digest) for digest in digests} == {16}


def collide(parent: bytes, token_ids: Sequence[int]) -> bytes:
    return b"same"


def weak(parent: bytes, token_ids: Sequence[int]) -> bytes:
    return bytes([sum(token_ids) % 3])


class Pools(RuleBasedStateMachine):
    """A pool beside a model that knows which ids each block holds, after which parents."""

    digest = staticmethod(chain_digest)

    @initialize(num_blocks=st.integers(3, 9), block_size=st.integers(1, 2))
    def make(self, num_blocks, block_size):
        self.size = block_size
        self.pool = BlockPool(num_blocks, block_size, self.digest)
        self.owners: list[dict] = []
        self.content: dict[int, tuple[int, ...]] = {}
        """For each remembered block all ids from the root to its end, while nobody rewrites it."""
        self.num_hits = self.num_evicted = 0

    @rule(count=st.integers(0, 2))
    def take(self, count):
        count = min(count, self.pool.num_free)
        self._take({"ids": [], "prefix": None, "blocks": [], "num_remembered": 0}, count)

    @rule(ids=st.lists(st.integers(0, 1), min_size=1, max_size=8), num_left=st.integers(0, 2))
    def start(self, ids, num_left):
        """Do what a scheduler does: find, look, share, take the rest."""
        max_tokens = max(0, len(ids) - num_left)
        before = self._snapshot()
        chain = self.pool.find(ids, max_tokens)
        assert self._snapshot() == before, "find has changed something"
        assert len(chain) * self.size <= max_tokens
        for number, prefix in enumerate(chain):
            expected = tuple(ids[: (number + 1) * self.size])
            assert self.content[prefix.block] == expected, "a foreign block is found"
        num_missing = -(-len(ids) // self.size) - len(chain)
        num_free = self.pool.num_free_after(chain)
        if num_missing > num_free:
            return
        blocks = self.pool.share(chain)
        assert self.pool.num_free == num_free
        owner = {
            "ids": ids,
            "prefix": chain[-1] if chain else None,
            "blocks": blocks,
            "num_remembered": len(chain),
        }
        self.num_hits += len(chain)
        self._take(owner, num_missing)

    @precondition(lambda self: any(map(self._num_unknown, self.owners)))
    @rule(who=st.integers(0, 9), count=st.integers(1, 8))
    def remember(self, who, count):
        candidates = list(filter(self._num_unknown, self.owners))
        owner = candidates[who % len(candidates)]
        first = owner["num_remembered"]
        num_whole = first + self._num_unknown(owner)
        for number in range(first, min(first + count, num_whole)):
            ids = owner["ids"][number * self.size : (number + 1) * self.size]
            block = owner["blocks"][number]
            self.content[block] = tuple(owner["ids"][: (number + 1) * self.size])
            owner["prefix"] = self.pool.remember(owner["prefix"], ids, block)
            owner["num_remembered"] += 1
            known = owner["prefix"].block
            assert self.content[known] == self.content[block], "the prefix of another content"

    @precondition(lambda self: self.owners)
    @rule(who=st.integers(0, 9), is_broken=st.sampled_from([False, False, True]))
    def release(self, who, is_broken):
        owner = self.owners.pop(who % len(self.owners))
        self.pool.release(owner["blocks"], is_broken=is_broken)
        if is_broken:
            assert not set(owner["blocks"]) & set(self.pool._unowned)
            for block in owner["blocks"]:
                self.content.pop(block, None)

    @invariant()
    def is_sound(self):
        if hasattr(self, "pool"):
            owned = [block for owner in self.owners for block in owner["blocks"]]
            self.pool.check(owned)
            assert self.pool.num_free == self.pool.num_blocks - len(set(owned))

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        for owner in self.owners:
            self.pool.release(owner["blocks"])
        self.pool.check([])
        assert self.pool.num_free == self.pool.num_blocks
        target(float(self.num_hits), label="hits")
        target(float(self.num_evicted), label="evictions")

    def _take(self, owner, count):
        num_cached = self.pool.num_cached
        taken = self.pool.take(count)
        assert len(set(taken)) == count
        others = {block for other in self.owners for block in other["blocks"]}
        assert others.isdisjoint(taken), "a block that somebody owns is given out"
        assert not set(owner["blocks"]) & set(taken)
        self.num_evicted += num_cached - self.pool.num_cached
        for block in taken:
            self.content.pop(block, None)
        owner["blocks"] = owner["blocks"] + taken
        self.owners.append(owner)

    def _num_unknown(self, owner):
        """Count the whole blocks that it has not yet remembered."""
        return len(owner["ids"]) // self.size - owner["num_remembered"]

    def _snapshot(self):
        return (list(self.pool._free), list(self.pool._unowned), dict(self.pool._by_digest))


class WeakPools(Pools):
    digest = staticmethod(weak)


class CollidingPools(Pools):
    digest = staticmethod(collide)


TestPools = Pools.TestCase
TestWeakPools = WeakPools.TestCase
TestCollidingPools = CollidingPools.TestCase
TestPools.settings = settings(max_examples=20, stateful_step_count=25)
TestWeakPools.settings = TestCollidingPools.settings = TestPools.settings


MOVES = [*["start"] * 2, *["remember"] * 3, "release", "take"]


@pytest.mark.parametrize("machine", [Pools, WeakPools, CollidingPools])
def test_some_thousand_random_moves_find_only_what_was_remembered(machine):
    dice = random.Random(machine.__name__)
    pools = machine()
    pools.make(num_blocks=9, block_size=1)
    for _ in range(3000):
        who = dice.randrange(10)
        match dice.choice(
            ["start", "start", "remember", "remember", "remember", "release", "take"]
        ):
            case "start":
                pools.start(dice.choices([0, 1, 2], k=dice.randint(1, 5)), dice.randrange(2))
            case "remember" if any(map(pools._num_unknown, pools.owners)):
                pools.remember(who, dice.randint(1, 8))
            case "release" if pools.owners:
                pools.release(who, dice.random() < 0.2)
            case "take":
                pools.take(dice.randrange(2))
        pools.is_sound()
        if len(pools.owners) > 4:
            pools.release(who, False)
    assert pools.num_hits > 10
    assert pools.num_evicted > 10


def test_with_colliding_digests_a_chain_longer_than_one_block_is_never_found():
    pool = BlockPool(4, 1, collide)
    blocks = pool.take(2)
    remembered(pool, blocks, [1, 2])
    assert found(pool, [1, 2]) == []
    assert found(pool, [2]) == []
    pool.release(blocks)
    pool.check([])


def test_with_colliding_digests_the_last_content_is_found_and_no_other():
    pool = BlockPool(4, 1, collide)
    blocks = pool.take(2)
    pool.remember(None, [1], blocks[0])
    pool.remember(None, [2], blocks[1])
    assert (found(pool, [1]), found(pool, [2])) == ([], blocks[1:])
    pool.check(blocks)
