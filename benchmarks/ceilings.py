"""What this machine can do at best: reading memory, and multiplying matrices; with all cores.

The best of many tries counts: a ceiling is not a mean. How fast memory is read depends on how much
of it, since caches hold what is small; ask for the size of what you compare with.
"""

import os
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import torch

from server.cpu import CpuMeter
from server.report import describe_cpu, table, to_json

_MIN_S = 0.5
_MIN_TRIES = 8


def use_all_cores() -> int:
    """Let torch use every core this process may use; return their number."""
    num_threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(num_threads)
    return num_threads


def read_rate(num_bytes: int) -> float:
    """Measure the most bytes per second that so much memory can be read at, over and over.

    Three reductions, of which one or the other is the best on a given machine.
    """
    # ones, since pages of zeros that nobody wrote may all be one page in the cache
    words = torch.ones(max(1, num_bytes // 8), dtype=torch.int64)
    shorts, floats = words.view(torch.int32), words.view(torch.float32)
    seconds = min(map(best_s, (lambda: words.sum(), lambda: shorts.amax(), lambda: floats.sum())))
    return words.numel() * 8 / seconds


def multiply_rate(dtype: torch.dtype) -> float:
    """Measure the most floating-point operations per second in a product of matrices."""
    return max(_product_rate(size, dtype) for size in (1024, 2048))


def best_s(work: Callable[[], object]) -> float:
    """Time something many times; return the shortest."""
    work()
    best = float("inf")
    num_tries, end = 0, time.perf_counter() + _MIN_S
    while num_tries < _MIN_TRIES or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        num_tries += 1
    return best


def _product_rate(size: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / best_s(lambda: torch.nn.functional.linear(a, b))


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    num_threads = use_all_cores()
    meter = CpuMeter()
    reads = {f"{size} MiB": read_rate(size << 20) / 1e9 for size in (8, 64, 1024)}
    products = {
        str(dtype).removeprefix("torch."): multiply_rate(dtype) / 1e12
        for dtype in (torch.bfloat16, torch.float32)
    }
    rows = [[f"read {size}", f"{rate:.1f} GB/s"] for size, rate in reads.items()]
    rows += [[f"product {dtype}", f"{rate:.2f} TFLOP/s"] for dtype, rate in products.items()]
    cpu = meter.stop()
    print(table((f"best with {num_threads} threads", ""), rows))
    print(describe_cpu([cpu]))
    if args.json is not None:
        result = {"read_gb_per_s": reads, "product_tflop_per_s": products, "cpu": cpu}
        args.json.write_text(to_json(result))


if __name__ == "__main__":
    main()
