"""Generators: what a server publishes and what runs of it, until it is over. Knows no HTTP."""

import asyncio
from collections.abc import Mapping
from typing import Any

from engine import EngineStopped
from server.generators.published import Published
from server.generators.run import Run, TaskSource, ThreadSource


class Generators:
    """The published generators of one server; the owner of their runs."""

    def __init__(self, published: Mapping[str, Published]) -> None:
        self.published = published
        self._runs: set[Run] = set()
        self._has_no_readers = asyncio.Event()
        self._has_no_readers.set()

    @property
    def num_running(self) -> int:
        """How many have begun and are not over."""
        return len(self._runs)

    @property
    def num_abandoned(self) -> int:
        """How many have lost their reader and have not come back to a yield since."""
        return sum(1 for run in self._runs if run.is_left)

    def start(self, published: Published, arguments: Mapping[str, Any], patience_s: float) -> Run:
        """Begin a run; whoever reads it leaves it. A line in the log tells of one that does not
        yield for `patience_s`.
        """
        run = Run(published.name, patience_s, self._runs.remove)
        generator: Any = published.function(**arguments)  # none of its code runs yet
        source = TaskSource if published.is_async else ThreadSource
        run.start(source(generator, run))
        self._runs.add(run)
        self._has_no_readers.clear()
        return run

    def leave(self, run: Run) -> None:
        """Read a run no more."""
        run.leave()
        if self.num_abandoned == self.num_running:
            self._has_no_readers.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is read, and after the timeout let what is left end with an error."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_no_readers.wait()
        except TimeoutError:
            for run in self._runs:
                run.stop(EngineStopped("the server is shutting down"))
