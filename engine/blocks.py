"""BlockPool: which KV blocks are free, who owns the rest, and which hold a known prefix.

Knows block numbers and token ids, not tensors. Each block is in exactly one of three places:

    free ──take──▶ owned ──release──▶ cached (when it holds a known prefix) ──take, evict──▶ owned
      ▲              │ ▲                 │
      └──release─────┘ └────share────────┘

A full block's content is known by its Prefix: its token ids and the prefix before it. Prefixes are
found by a hash chain and compared by identity and ids, so a collision cannot hand out foreign keys.
A chain starts from a Root: the same ids give other keys where an adapter computes them.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b


class Root:
    """What an adapter's prefixes start from; the base model's start from None."""

    __slots__ = ("digest",)

    def __init__(self, name: str) -> None:
        self.digest = blake2b(name.encode(), digest_size=16).digest()


class Prefix:
    """One full block of tokens that follows its parent's; a node of the prefix tree."""

    __slots__ = ("block", "digest", "parent", "token_ids")

    def __init__(
        self, digest: bytes, parent: "Prefix | Root | None", token_ids: tuple[int, ...], block: int
    ) -> None:
        self.digest = digest
        self.parent = parent
        self.token_ids = token_ids
        self.block = block


def chain_digest(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Hash a block's ids after its parent's hash; 16 bytes."""
    return blake2b(parent + array("i", token_ids).tobytes(), digest_size=16).digest()


class BlockPool:
    """The only owner of block numbers `0 … num_blocks - 1`."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        digest: Callable[[bytes, Sequence[int]], bytes] = chain_digest,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._digest = digest
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_owners = [0] * num_blocks
        self._prefix_of: dict[int, Prefix] = {}
        self._by_digest: dict[bytes, Prefix] = {}
        self._unowned: OrderedDict[int, None] = OrderedDict()
        """Cached blocks without an owner, least recently used first."""

    @property
    def num_free(self) -> int:
        """Count the blocks that `take` could give: free and only cached ones."""
        return len(self._free) + len(self._unowned)

    @property
    def num_cached(self) -> int:
        """Count the blocks that nobody owns and that still hold a known prefix."""
        return len(self._unowned)

    def find(
        self, token_ids: Sequence[int], max_tokens: int, root: Root | None = None
    ) -> list[Prefix]:
        """Return the longest chain of known blocks from a root that these ids begin with.

        At most `max_tokens` of them; changes nothing. Own the blocks with `share` at once.
        """
        size = self.block_size
        chain: list[Prefix] = []
        parent: Prefix | Root | None = root
        for end in range(size, max_tokens + 1, size):
            ids = token_ids[end - size : end]
            found = self._by_digest.get(self._digest(parent.digest if parent else b"", ids))
            if found is None or found.parent is not parent or found.token_ids != tuple(ids):
                break
            chain.append(found)
            parent = found
        return chain

    def num_free_after(self, chain: Iterable[Prefix]) -> int:
        """Count the blocks that `take` could still give once this chain is shared."""
        return self.num_free - sum(1 for prefix in chain if prefix.block in self._unowned)

    def share(self, chain: Iterable[Prefix]) -> list[int]:
        """Own the blocks of a found chain, beside their other owners."""
        blocks = [prefix.block for prefix in chain]
        for block in blocks:
            self._unowned.pop(block, None)
            self._num_owners[block] += 1
        return blocks

    def take(self, count: int) -> list[int]:
        """Own `count` blocks of unknown content, evicting the least recently used prefixes.

        The caller has looked at `num_free` before.
        """
        blocks = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._unowned.popitem(last=False)
                self._forget(block)
            self._num_owners[block] = 1
            blocks.append(block)
        return blocks

    def remember(
        self, parent: Prefix | Root | None, token_ids: Sequence[int], block: int
    ) -> Prefix:
        """Note that an owned block now holds these ids after `parent`'s; return its prefix.

        When another block is known for the same prefix, that one is returned and stays.
        """
        ids = tuple(token_ids)
        digest = self._digest(parent.digest if parent else b"", ids)
        known = self._by_digest.get(digest)
        if known is not None:
            if known.parent is parent and known.token_ids == ids:
                return known
            self._drop_unreachable(known)
        prefix = Prefix(digest, parent, ids, block)
        self._by_digest[digest] = prefix
        self._prefix_of[block] = prefix
        return prefix

    def release(self, blocks: Sequence[int], *, is_broken: bool = False) -> None:
        """Give blocks back; the tail of a chain becomes the first to be evicted.

        `is_broken` says that their content must not be found again.
        """
        for block in reversed(blocks):
            if is_broken and block in self._prefix_of:
                self._forget(block)
            self._num_owners[block] -= 1
            if self._num_owners[block]:
                continue
            if block in self._prefix_of:
                self._unowned[block] = None
            else:
                self._free.append(block)

    def check(self, owned: Iterable[int]) -> None:
        """Assert the invariants; `owned` lists every owner's blocks, one entry an owner."""
        num_owners = [0] * self.num_blocks
        for block in owned:
            num_owners[block] += 1
        assert num_owners == self._num_owners, "owners and pool disagree"
        free = set(self._free)
        assert len(free) == len(self._free), "a block is free twice"
        for block in range(self.num_blocks):
            places = (block in free) + (block in self._unowned) + (num_owners[block] > 0)
            assert places == 1, f"block {block} is in {places} places"
        assert free.isdisjoint(self._prefix_of), "a free block holds a known prefix"
        assert set(self._unowned) <= set(self._prefix_of), "a cached block holds no prefix"
        for digest, prefix in self._by_digest.items():
            assert self._prefix_of[prefix.block] is prefix, "a prefix has lost its block"
            assert prefix.digest == digest, "a prefix lies under another's digest"
        assert len(self._by_digest) == len(self._prefix_of), "a prefix cannot be found"

    def _forget(self, block: int) -> None:
        prefix = self._prefix_of.pop(block)
        del self._by_digest[prefix.digest]

    def _drop_unreachable(self, prefix: Prefix) -> None:
        """Make way for a prefix of the same digest: a collision, or an orphan of an evicted one."""
        self._forget(prefix.block)
        if prefix.block in self._unowned:
            del self._unowned[prefix.block]
            self._free.append(prefix.block)
