"""Run: one running generator, an item at a time for one reader; and the two ways to run one.

A plain generator lives in a thread of its own, from its first line to its close; an asynchronous
one in a task of its own on the event loop. Knows no HTTP.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Any, Protocol

from server.generators.step import End, Failure, Step, Value, close, take_step
from server.generators.value import encode_value, is_small

logger = logging.getLogger(__name__)


class Source(Protocol):
    """What produces the steps of one run, and tells the run of each and of its own end."""

    def ask(self) -> None:
        """Begin to produce one step more."""
        ...

    def close(self) -> None:
        """Close the generator as soon as it can be closed."""
        ...


class Run:
    """One running generator, seen from the event loop.

    `next_step` asks for a step only after the last one was taken, so nothing piles up. It is over,
    and calls `on_over`, when the generator is closed and its reader has left, in either order.
    """

    num_pending = 0
    """What waits for the reader beside the item it is writing."""

    def __init__(self, name: str, patience_s: float, on_over: Callable[["Run"], None]) -> None:
        self.name = name
        self.is_left = False
        """Nobody reads it any more."""
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._patience_s = patience_s
        self._on_over = on_over
        self._source: Source | None = None
        self._step: Step | None = None
        self._stopped: Failure | None = None
        self._is_asked = False
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._held = ExitStack()

    def holds(self, held: ExitStack) -> None:
        """Give back what it holds, its permit, only when it is over."""
        self._held = held

    def start(self, source: Source) -> None:
        """Take the steps from there."""
        self._source = source

    async def next_step(self) -> Step | None:
        """Ask for the next step and wait for it; None is a nudge, with the step still to come."""
        assert self._source is not None
        if not self._is_asked:
            self._is_asked = True
            self._alarm = self._loop.call_later(self._patience_s, self._complain)
            self._source.ask()
        await self._wake.wait()
        self._wake.clear()
        if self._stopped is not None:
            return self._stopped
        step, self._step = self._step, None
        self._is_asked = step is None
        return step

    def nudge(self) -> None:
        """Wake the reader, so that it can show the client a sign of life."""
        self._wake.set()

    def stop(self, error: Exception) -> None:
        """Let the reader's next step be this failure, whatever the generator does."""
        self._stopped = Failure(error)
        self._wake.set()

    def leave(self) -> None:
        """Read no more: the generator is closed at its next yield."""
        assert self._source is not None
        self.is_left = True
        self._source.close()
        self._look_whether_over()

    # For the source

    def deliver(self, step: Step) -> None:
        """Hand over the step that was asked for."""
        self._calm()
        self._step = step
        self._wake.set()

    def closed(self, error: BaseException | None) -> None:
        """Say that the generator is closed; `error` is what it raised at that."""
        self._calm()
        self._is_closed = True
        if error is not None:
            logger.warning("generator %s failed as it was closed", self.name, exc_info=error)
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._is_closed and self.is_left:
            self._held.close()
            self._on_over(self)

    def _calm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _complain(self) -> None:
        logger.warning(
            "generator %s has not yielded for %g s; it keeps its permit until it does",
            self.name,
            self._patience_s,
        )


class ThreadSource:
    """Runs a plain generator in a thread of its own.

    A daemon, since one that never yields is not to hold up the exit; an executor's threads would.
    Each has a permit, so there are no more of them than `--max-concurrent-requests`.
    """

    def __init__(self, generator: Generator[Any, None, Any], run: Run) -> None:
        self._generator = generator
        self._run = run
        self._is_wanted: SimpleQueue[bool] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name=f"generator {run.name}", daemon=True).start()

    def ask(self) -> None:
        """Begin to produce one step more."""
        self._is_wanted.put(True)

    def close(self) -> None:
        """Close the generator at its next yield."""
        self._is_wanted.put(False)

    def _work(self) -> None:
        while self._is_wanted.get():
            step = take_step(self._generator)
            self._tell(self._run.deliver, step)
            if not isinstance(step, Value):
                break
        self._tell(self._run.closed, close(self._generator))

    def _tell(self, what: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped meanwhile
            self._loop.call_soon_threadsafe(what, value)


class TaskSource:
    """Runs an asynchronous generator in a task of its own, so that its context stays one."""

    def __init__(self, generator: AsyncGenerator[Any, None], run: Run) -> None:
        self._generator = generator
        self._run = run
        self._is_wanted = asyncio.Event()
        self._is_closing = False
        self._error: BaseException | None = None
        self._task = asyncio.create_task(self._work(), name=f"generator {run.name}")
        # Called even where the task is cancelled before its first line.
        self._task.add_done_callback(lambda _: run.closed(self._error))

    def ask(self) -> None:
        """Begin to produce one step more."""
        self._is_wanted.set()

    def close(self) -> None:
        """Cancel what it waits for, and close the generator."""
        if not self._is_closing:  # what it awaits at its end is left in peace
            self._is_closing = True
            self._task.cancel()

    async def _work(self) -> None:
        try:
            try:
                await self._produce()
            finally:
                self._is_closing = True
                await self._generator.aclose()
        except asyncio.CancelledError:
            pass  # nobody awaits this task: `closed` tells of its end
        except BaseException as error:  # SystemExit would leave the task and stop the server
            self._error = error

    async def _produce(self) -> None:
        step: Step | None = None
        while not self._is_closing and (step is None or isinstance(step, Value)):
            await self._is_wanted.wait()
            self._is_wanted.clear()
            step = await self._take_step()
            self._run.deliver(step)

    async def _take_step(self) -> Step:
        try:
            value = await anext(self._generator)
            if is_small(value):
                return Value(encode_value(value))
            return Value(await asyncio.to_thread(encode_value, value))
        except StopAsyncIteration:
            return End()
        except BaseException as error:  # our own cancellation too: then nobody takes the step
            return Failure(error)
