"""control groups: the folders of Linux that say what this process may take of its machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A group that limits this process."""

    folder: Path
    is_v2: bool
    """Of the one hierarchy of version 2, not of a controller's own."""


def control_groups(controller: str, root: Path) -> Iterator[ControlGroup]:
    """Give our own group and those around it, in each hierarchy that has this controller."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        for place in (own, *own.parents):
            if not controllers:
                yield ControlGroup(top / place, is_v2=True)
            elif controller in controllers.split(","):
                yield ControlGroup(top / controllers / place, is_v2=False)
