"""LiveView: a few lines of a terminal that say what the load is doing now; plain lines elsewhere.

Knows neither sockets nor how the figures came about.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TextIO

from server.bench.progress import Progress, Snapshot
from server.report import Percentiles

_REDRAW_S = 0.25
_PLAIN_S = 5.0
"""Where lines cannot be rewritten they come more seldom."""
_BARS = "▁▂▃▄▅▆▇█"
_NUM_CELLS = 24


class LiveView:
    """Writes to standard error while a run goes on, and leaves no trace in a terminal."""

    def __init__(self, stream: TextIO, *, is_terminal: bool) -> None:
        self._stream = stream
        self._is_terminal = is_terminal
        self._num_drawn = 0

    @asynccontextmanager
    async def watching(self, label: str, progress: Progress) -> AsyncIterator[None]:
        """Show the progress for as long as the block runs."""
        task = asyncio.create_task(self._watch(label, progress))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._erase()

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._erase()
        self._stream.write(line + "\n")
        self._stream.flush()

    async def _watch(self, label: str, progress: Progress) -> None:
        while True:
            await asyncio.sleep(_REDRAW_S if self._is_terminal else _PLAIN_S)
            snapshot = progress.look(time.monotonic())
            if self._is_terminal:
                width = shutil.get_terminal_size().columns
                self._draw([line[: width - 1] for line in live_lines(label, snapshot)])
            else:
                self.say(plain_line(label, snapshot))

    def _draw(self, lines: Sequence[str]) -> None:
        self._erase()
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._num_drawn = len(lines)

    def _erase(self) -> None:
        if self._num_drawn:  # up to the first of the lines, and clear from there
            self._stream.write(f"\x1b[{self._num_drawn}F\x1b[J")
            self._stream.flush()
            self._num_drawn = 0


def live_lines(label: str, now: Snapshot) -> list[str]:
    """Write a look as the lines of a terminal."""
    share = now.num_done / now.num_requests
    num_full = round(share * _NUM_CELLS)
    bar = "█" * num_full + "░" * (_NUM_CELLS - num_full)
    return [
        f"{label:>14}  {bar}  {now.num_done} of {now.num_requests} done, "
        f"{now.num_running} running, {now.num_failed} failed, {now.num_refused} refused",
        f"{f'{now.tokens_per_s:,.0f} tokens/s':>14}  {sparkline(now.pace)}",
        f"{'first token':>14}  {_delay(now.first_token_ms)}   gap  {_delay(now.gap_ms)}",
    ]


def plain_line(label: str, now: Snapshot) -> str:
    """Write a look in one line."""
    return (
        f"{label}: {now.num_done} of {now.num_requests} done, {now.num_running} running, "
        f"{now.num_failed} failed, {now.num_refused} refused; {now.tokens_per_s:.0f} tokens/s"
    )


def sparkline(values: Sequence[float]) -> str:
    """Draw values as bars, the highest as high as a line allows."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in values)


def _delay(delay: Percentiles | None) -> str:
    if delay is None:
        return "p50 -  p99 -"
    return f"p50 {delay.p50:.1f} ms  p99 {delay.p99:.1f} ms"
