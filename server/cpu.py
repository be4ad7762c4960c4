"""CpuMeter: who used the processors while something was measured. Knows nothing of what it was.

A figure taken while others compute is disturbed, so it is printed with their share beside it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_IDLE = (3, 4)
"""Of the first eight columns of /proc/stat these two, idle and iowait, are no work; the eighth is
time that the host took from us. https://man7.org/linux/man-pages/man5/proc_stat.5.html"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """Processor seconds spent in a span of time; None where the system does not tell."""

    wall_s: float
    own_s: float
    """By the process that measured."""
    server_s: float | None
    """By the process named to the meter and all below it."""
    other_s: float | None
    """By everything else on the machine, and by its host."""

    @property
    def other_cores(self) -> float | None:
        """Cores that others kept busy on average."""
        return None if self.other_s is None else self.other_s / self.wall_s


class CpuMeter:
    """Measures from its making until `stop`."""

    def __init__(self, server_pid: int | None = None) -> None:
        self._server_pid = server_pid
        self._start = self._now()

    def stop(self) -> CpuUse:
        """Say what was used since the start."""
        now = self._now()
        wall_s, own_s, server_s, busy_s = (
            None if a is None or b is None else b - a for a, b in zip(self._start, now, strict=True)
        )
        assert wall_s is not None
        assert own_s is not None
        other_s = None if busy_s is None else max(0.0, busy_s - own_s - (server_s or 0.0))
        return CpuUse(wall_s=wall_s, own_s=own_s, server_s=server_s, other_s=other_s)

    def _now(self) -> tuple[float | None, ...]:
        server = None if self._server_pid is None else _tree_s(self._server_pid)
        return time.monotonic(), time.process_time(), server, _machine_s()


def _machine_s() -> float | None:
    try:
        with open(_PROC / "stat") as file:
            columns = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return None
    busy = sum(ticks for place, ticks in enumerate(columns) if place not in _IDLE)
    return busy / os.sysconf("SC_CLK_TCK")


def _tree_s(pid: int) -> float | None:
    """Add up a process, its descendants, and those of them that have ended."""
    stats = dict(_stats())
    if pid not in stats:
        return None
    family = {pid}
    while more := {p for p, fields in stats.items() if int(fields[1]) in family} - family:
        family |= more
    ticks = sum(int(ticks) for p in family for ticks in stats[p][11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stats() -> list[tuple[int, list[str]]]:
    """Read each process's line, from its state on; names may hold anything and are cut off."""
    lines = []
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            lines.append((int(path.parent.name), path.read_text().rpartition(")")[2].split()))
        except OSError:
            continue  # it has ended meanwhile
    return lines
