"""cores: how many processor cores this process may use, by its affinity and its control groups."""

import os
from pathlib import Path

from engine.control_groups import control_groups


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
    quotas = [
        _quota_v2(group.folder) if group.is_v2 else _quota_v1(group.folder)
        for group in control_groups("cpu", root)
    ]
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
