"""cores: how many processor cores this process may use, by its affinity and its control groups."""

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that are left to this process; at least one.

    A control group's quota counts in whole cores: threads beyond it would only be held up.
    """
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    quotas = [int(quota) for quota in _quotas(root)]
    return max(1, min([num_cores, *quotas]))


def _quotas(root: Path) -> list[float]:
    """Read the quotas of our control group and of those around it, in cores."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        for place in (own, *own.parents):
            if not controllers:
                quotas.append(_quota_v2(top / place))
            elif "cpu" in controllers.split(","):
                quotas.append(_quota_v1(top / controllers / place))
    return [quota for quota in quotas if quota is not None]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota < 0 else quota / period
