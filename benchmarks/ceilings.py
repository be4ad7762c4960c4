"""What this machine can do at best, and what a model's step or a load takes at least on it.

A step reads every weight and every key and value once, at the best rate at which so much memory was
read, or multiplies at the best rate of a product of matrices, whichever is longer; prefill is steps
of their own. Worked out from the config.json of dense decoders of the Llama kind.

The best of many tries counts: a ceiling is not a mean. How fast memory is read depends on how much
of it, since caches hold what is small; ask for the size of what you compare with.
"""

import json
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from parts.conditions import write_result

from server.cpu import CpuMeter
from server.report import describe_cpu, table

_MIN_S = 0.5
_MIN_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a model must at least read and multiply."""

    weight_bytes: int
    """Once a step."""
    kv_bytes_per_token: int
    flops_per_token: int
    flops_per_logits: int
    """Of the head: a prompt needs it only once."""

    @classmethod
    def of(cls, model_dir: Path, bytes_per_weight: int = 2, bytes_per_kv: int = 2) -> Self:
        """Work it out from the configuration and the bytes of a weight and of a cached number."""
        config = json.loads((model_dir / "config.json").read_text())
        hidden, num_layers = config["hidden_size"], config["num_hidden_layers"]
        num_heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // num_heads
        num_kv = 2 * config.get("num_key_value_heads", num_heads) * head_dim
        attention = (2 * num_heads * head_dim + num_kv) * hidden
        layers = num_layers * (attention + 3 * hidden * config["intermediate_size"])
        head = config["vocab_size"] * hidden
        return cls(
            weight_bytes=(layers + head) * bytes_per_weight,
            kv_bytes_per_token=num_layers * num_kv * bytes_per_kv,
            flops_per_token=2 * layers,
            flops_per_logits=2 * head,
        )

    def num_bytes(self, num_cached_tokens: float) -> float:
        """Count what a step must read whose rows together look back at so many tokens."""
        return self.weight_bytes + num_cached_tokens * self.kv_bytes_per_token

    def num_flops(self, num_tokens: float, num_logits: float) -> float:
        """Count the operations of a step's products with weights; the head is for logits only."""
        return num_tokens * self.flops_per_token + num_logits * self.flops_per_logits


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The best rates that were seen in a run."""

    bytes_per_s: float
    flops_per_s: float

    def or_better(self, other: Self) -> Self:
        """Take the better of both rates."""
        return type(self)(
            max(self.bytes_per_s, other.bytes_per_s), max(self.flops_per_s, other.flops_per_s)
        )

    def least_s(self, num_bytes: float, num_flops: float) -> float:
        """Give the least time of a step that reads and multiplies so much."""
        return max(num_bytes / self.bytes_per_s, num_flops / self.flops_per_s)


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
    """Measure the most operations per second in a product of matrices."""
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
    a, b = (torch.randn(size, size).mul(40).to(dtype) for _ in range(2))
    multiply = torch._int_mm if dtype is torch.int8 else torch.nn.functional.linear
    return 2 * size**3 / best_s(lambda: multiply(a, b))


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    num_threads = use_all_cores()
    meter = CpuMeter()
    reads = {f"{size} MiB": read_rate(size << 20) / 1e9 for size in (8, 64, 1024)}
    products = {
        str(dtype).removeprefix("torch."): multiply_rate(dtype) / 1e12
        for dtype in (torch.int8, torch.bfloat16, torch.float32)
    }
    rows = [[f"read {size}", f"{rate:.1f} GB/s"] for size, rate in reads.items()]
    rows += [[f"product {dtype}", f"{rate:.2f} Top/s"] for dtype, rate in products.items()]
    cpu = meter.stop()
    print(table((f"best with {num_threads} threads", ""), rows))
    print(describe_cpu([cpu]))
    if args.json is not None:
        result = {"read_gb_per_s": reads, "product_top_per_s": products, "cpu": cpu}
        write_result(args.json, result)


if __name__ == "__main__":
    main()
