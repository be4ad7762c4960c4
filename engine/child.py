"""Child processes of ours: how one is started, and how it bounds its memory; not what it does."""

import os
import resource
import sys
from pathlib import Path

_PATH = os.pathsep.join(
    filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")])
)
"""Where a child finds this package, whatever others of its name the server may find."""


def command(module: str) -> tuple[str, ...]:
    """Give the command that runs one of our modules."""
    return (sys.executable, "-P", "-m", module)


def environment() -> dict[str, str]:
    """Give a child's environment; it forks, so it may have no threads but its own."""
    return {**os.environ, "PYTHONPATH": _PATH, "OMP_NUM_THREADS": "1"}


def limit_memory(max_bytes: int) -> None:
    """Let this process take no more than so many bytes beyond what it has now."""
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + max_bytes, hard))
