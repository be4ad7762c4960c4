"""How much memory the cache may take: of the machine, and of the control groups around us."""

import pytest
import torch

from engine.compute.kv_cache import free_memory_bytes

GIB = 2**30
OURS = "sys/fs/cgroup/a.slice/b.service"


def group(folder, limit, usage, droppable):
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{usage}\n",
        f"{folder}/memory.stat": f"anon 7\ninactive_file {droppable}\n",
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIB),
        (group(OURS, "max", 5 * GIB, 0), 8 * GIB),
        (group(OURS, 4 * GIB, 3 * GIB, 0), GIB),
        (group(OURS, 4 * GIB, 3 * GIB, 2 * GIB), 3 * GIB),
        (group("sys/fs/cgroup/a.slice", 6 * GIB, 5 * GIB, 0), GIB),
        (group("sys/fs/cgroup", 9 * GIB, 2 * GIB, 0), 7 * GIB),
        (group("sys/fs/cgroup/other.slice", 2 * GIB, GIB, 0), 8 * GIB),
        (group(OURS, GIB, 2 * GIB, 0), 0),
        ({f"{OURS}/memory.max": f"{GIB}\n"}, 8 * GIB),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/x\n",
                "sys/fs/cgroup/cpu,memory/x/memory.limit_in_bytes": f"{4 * GIB}\n",
                "sys/fs/cgroup/cpu,memory/x/memory.usage_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/cpu,memory/x/memory.stat": f"total_inactive_file {GIB}\n",
            },
            2 * GIB,
        ),
    ],
)
def test_it_is_what_the_tightest_leaves_read_files_not_counted(tmp_path, files, expected):
    machine = {
        "proc/meminfo": f"MemTotal: {2**24} kB\nMemAvailable: {8 * 2**20} kB\n",
        "proc/self/cgroup": "0::/a.slice/b.service\n",
    }
    for name, text in {**machine, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert free_memory_bytes(torch.device("cpu"), tmp_path) == expected


def test_here_there_is_some():
    assert free_memory_bytes(torch.device("cpu")) > 0
