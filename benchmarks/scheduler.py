"""What a step costs beside the model: scheduling, building the batch, and finding prefixes.

    python benchmarks/scheduler.py

Rows decode while a line of any length waits behind them; no model computes. The scheduler's share
is `schedule` and `update` (detokenising and stop conditions included); the batch is built by the
runner's own code up to the forward pass and after the sampler, which are empty here. Then what a
token costs that is looked up in the prefix cache, with all of it known, and waiting for a prefix.
"""

import random
import statistics
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from models import BUILT_IN_MODEL
from parts.conditions import write_result
from transformers import PreTrainedTokenizerFast

from engine import SamplingParams
from engine.batch import Sampled
from engine.compute.attention import PagedAttention
from engine.compute.kernels.reference import Reference
from engine.compute.kv_cache import KVCache, LayerShape
from engine.compute.logits import Logits
from engine.compute.runner import ModelRunner
from engine.config import Limits
from engine.detokenizer import Detokenizer
from engine.pace import Pace
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer
from server.report import percentile, table

GOAL_MS = 0.5
_BLOCK_SIZE = 32
_CONTEXT = 128
_MAX_TOTAL = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of rows behind which so many wait; medians over the steps, and a p90."""

    rows: int
    waiting: int
    schedule_us: float
    update_us: float
    build_us: float
    total_us: float
    total_p90_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """Prefixes, in nanoseconds a prompt token."""

    num_tokens: int
    find_ns: float
    """All but the last block is known."""
    wait_ns: float
    """None of it is known, and another is computing all of it."""
    still_waiting_us: float
    """A whole step of one chunk, while as many wait for its prompt as are looked at."""


class Bench:
    """A scheduler and a runner without a model."""

    def __init__(self, rows: int, waiting: int, num_blocks: int) -> None:
        self._tokenizer = Tokenizer(PreTrainedTokenizerFast.from_pretrained(BUILT_IN_MODEL))
        limits = Limits(
            num_blocks=num_blocks,
            block_size=_BLOCK_SIZE,
            max_batch_size=rows,
            max_batch_tokens=max(512, rows),
            max_waiting=waiting + rows,
            max_waiting_tokens=1 << 40,
            max_queue_s=3600.0,
            max_input_tokens=8191,
            max_total_tokens=8192,
        )
        self.scheduler = Scheduler(limits, self._tokenizer, (), Pace(None, 16, 512))
        self.runner = _hollow_runner(limits)
        self._dice = random.Random(1)
        self._ids = count(1)

    @property
    def newest(self) -> Sequence:
        """Give the one that started last."""
        return next(reversed(self.scheduler.running.values()))

    def prompt(self, num_tokens: int) -> list[int]:
        """Make one up."""
        return [self._dice.randrange(200) for _ in range(num_tokens)]

    def add(self, prompt: list[int], num_output: int = _MAX_TOTAL - _CONTEXT) -> Sequence:
        """Let a prompt into the line."""
        params = SamplingParams(max_new_tokens=num_output, ignore_eos=True)
        detokenizer = Detokenizer(self._tokenizer, prompt)
        sequence = Sequence(next(self._ids), prompt, params, detokenizer, time.monotonic())
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> tuple[float, float, float]:
        """Run one step; return the seconds of scheduling, building and updating."""
        start = time.perf_counter()
        batch = self.scheduler.schedule(time.monotonic())
        scheduled = time.perf_counter()
        assert batch is not None
        output = self.runner.execute(batch)
        built = time.perf_counter()
        self.scheduler.update(output, time.monotonic())
        return scheduled - start, built - scheduled, time.perf_counter() - built


def _hollow_runner(limits: Limits) -> ModelRunner:
    """Make a runner whose forward pass and sampler do nothing."""
    device, dtype = torch.device("cpu"), torch.float32
    cache = KVCache([LayerShape(1, 1, 1)], limits.num_blocks, limits.block_size, dtype, device)
    attention = PagedAttention(device, Reference(dtype))
    attention.attach(cache)
    model = SimpleNamespace(
        device=device,
        attention=attention,
        adapters=(),
        forward=lambda ids, positions, wanted, adapted: Logits(torch.zeros(len(wanted), 1)),
    )
    sampler = SimpleNamespace(sample=lambda logits, rows: [Sampled(33)] * len(rows))
    return ModelRunner(
        cast(Any, model),
        cache,
        cast(Any, sampler),
        limits.max_batch_size,
        limits.max_total_tokens,
        torch.get_num_threads(),
    )


def measure_steps(rows: int, waiting: int, num_steps: int) -> Row:
    """Let all rows decode while others wait; their prompts have nothing in common."""
    bench = Bench(rows, waiting, rows * _MAX_TOTAL // _BLOCK_SIZE)
    for _ in range(rows + waiting):
        bench.add(bench.prompt(_CONTEXT))
    while len(bench.scheduler.running) < rows or bench.newest.num_output < 2:
        bench.step()
    steps = [bench.step() for _ in range(num_steps)]
    totals = sorted(sum(step) for step in steps)
    scheduled, built, updated = (statistics.median(times) for times in zip(*steps, strict=True))
    return Row(
        rows=rows,
        waiting=waiting,
        schedule_us=scheduled * 1e6,
        update_us=updated * 1e6,
        build_us=built * 1e6,
        total_us=statistics.median(totals) * 1e6,
        total_p90_us=percentile(totals, 0.9) * 1e6,
    )


def measure_lookups(num_tokens: int, repeat: int) -> Lookups:
    """Look a prompt up when its prefix is known, when it is being computed, and meanwhile."""
    found, told, waited = [], [], []
    for _ in range(repeat):
        bench = Bench(64, 64, 1024)
        prompt = bench.prompt(num_tokens)
        prefixes = bench.scheduler._prefixes
        first = bench.add(prompt, 1)
        for _ in range(16):
            bench.add(prompt, 1)
        bench.step()
        waiting = next(iter(bench.scheduler.waiting))
        start = time.perf_counter()
        assert prefixes.must_wait(waiting, prefixes.find(waiting), [first])
        told.append((time.perf_counter() - start) / num_tokens)
        waited.append(bench.step()[0])
        assert first.num_behind > 1, "the prompt is too short"
        while first.first_token_at is None:
            bench.step()
        again = bench.add(prompt)
        start = time.perf_counter()
        chain = prefixes.find(again)
        found.append((time.perf_counter() - start) / num_tokens)
        assert len(chain) == (num_tokens - 1) // _BLOCK_SIZE
    return Lookups(
        num_tokens=num_tokens,
        find_ns=statistics.median(found) * 1e9,
        wait_ns=statistics.median(told) * 1e9,
        still_waiting_us=statistics.median(waited) * 1e6,
    )


def describe(rows: list[Row], lookups: Lookups) -> str:
    """Write a line for each number of rows and each length of the line."""
    head = ("rows", "waiting", "schedule us", "build us", "update us", "sum us", "p90")
    lines = [
        [
            str(row.rows),
            str(row.waiting),
            f"{row.schedule_us:.0f}",
            f"{row.build_us:.0f}",
            f"{row.update_us:.0f}",
            f"{row.total_us:.0f}",
            f"{row.total_p90_us:.0f}",
        ]
        for row in rows
    ]
    prefixes = (
        f"prefix of {lookups.num_tokens} tokens, ns/token: found {lookups.find_ns:.0f}, "
        f"being computed {lookups.wait_ns:.0f}; a step while 16 wait for it: "
        f"{lookups.still_waiting_us:.0f} us to schedule"
    )
    return f"{table(head, lines)}\n{prefixes}"


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--waiting", type=int, nargs="+", default=[0, 100, 10_000])
    parser.add_argument("--steps", type=int, default=300, help="timed for each")
    parser.add_argument("--short", action="store_true", help="fewer steps")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.rows, args.steps = [256], 100
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    rows = [measure_steps(n, waiting, args.steps) for n in args.rows for waiting in args.waiting]
    lookups = measure_lookups(4000, 10)
    print(describe(rows, lookups))
    print(f"goals: sum at 256 rows below {GOAL_MS} ms; a lookup below 1000 ns a token")
    if args.json is not None:
        write_result(args.json, {"rows": rows, "lookups": lookups})


if __name__ == "__main__":
    main()
