"""Permits: how many sequences may be in the server at once, from the door to the last byte.

The one owner of that count. A permit is a context: however a request ends, it is given back once.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Permits:
    """Counts what is being validated, waiting, running or written, as TGI does."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_held = 0

    def has_room(self, count: int) -> bool:
        """Tell whether so many could be taken now."""
        return self.num_held + count <= self.limit

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold so many permits, all or none; look at `has_room` first, with no await between."""
        assert self.has_room(count), "This is a bug. More permits are taken than there are."
        self.num_held += count
        try:
            yield
        finally:
            self.num_held -= count
