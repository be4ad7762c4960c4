"""One step, decode or prefill, without HTTP, beside what the machine allows.

    python benchmarks/step.py --models-dir DIR            # a random model of Qwen2.5-0.5B's shape
    python benchmarks/step.py --model MODEL --vs-generate

The bound is that of `ceilings.py`. Its rates are measured before and after every few steps, and the
steps are compared with the better of the two, since a machine that is shared has slow minutes; a
step that is faster raises them.

--vs-generate compares tokens per second: the engine with 16 requests at a time, and transformers'
own generate one by one; the same weights, prompts and numbers of tokens, greedy, in turn.
"""

import statistics
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ceilings import Ceiling, Work, multiply_rate, read_rate, use_all_cores
from models import BUILT_IN_MODEL, SHAPES, make_model
from parts.conditions import write_result
from parts.steps import BLOCK_SIZE, num_cached_tokens, time_decode, time_prefill
from parts.versus import compare, describe_comparison

from engine import EngineConfig, Runner
from engine.load import load
from server.cpu import CpuMeter, CpuUse
from server.metrics import Metrics
from server.report import describe_cpu, percentile, table

NUM_PROMPT_TOKENS = 128
NUM_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """A step: so many rows that look back at `context` tokens, or whole prompts of as many."""

    is_prefill: bool
    batch: int
    context: int

    def num_bytes(self, work: Work) -> float:
        """Count what it must read."""
        return work.num_bytes(0 if self.is_prefill else self.batch * self.context)

    def num_flops(self, work: Work) -> float:
        """Count the operations of its products of matrices."""
        return work.num_flops(self.batch * (self.context if self.is_prefill else 1), self.batch)

    def time(self, runner: Runner, num_steps: int) -> list[float]:
        """Do it so many times; return the seconds, shortest first."""
        do = time_prefill if self.is_prefill else time_decode
        return sorted(do(runner, self.batch, self.context, num_steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of step, over all rounds."""

    kind: Kind
    step_ms: float
    """Median; the next two are where the middle eight tenths of the steps lie."""
    p10_ms: float
    p90_ms: float
    bound_ms: float
    """Median of the rounds'."""
    of_bound: float
    """The bound of a round by its median step: 1 is as fast as can be. Median of the rounds."""
    of_bound_low: float
    of_bound_high: float
    tokens_per_s: float
    """Taken in or given."""
    cpu: CpuUse


@dataclass(frozen=True, slots=True)
class Round:
    """A few steps of one kind, shortest first, in seconds; and the least that one takes."""

    times: list[float]
    bound_s: float

    @property
    def of_bound(self) -> float:
        """Divide the bound by the median step."""
        return self.bound_s / statistics.median(self.times)


def measure_rows(model_dir: Path, args: Namespace) -> list[Row]:
    """Time every kind of step."""
    kinds = [Kind(False, batch, context) for batch in args.batches for context in args.contexts]
    kinds += [Kind(True, num_prompts, NUM_PROMPT_TOKENS) for num_prompts in args.prompts]
    config = EngineConfig(
        model=str(model_dir),
        max_batch_size=max(kind.batch for kind in kinds),
        max_total_tokens=max(num_cached_tokens(1, kind.context, args.steps) for kind in kinds),
        max_cache_tokens=max(
            num_cached_tokens(kind.batch, kind.context, args.steps) for kind in kinds
        ),
        block_size=BLOCK_SIZE,
    )
    engine = load(config, Metrics())
    num_bytes = torch.finfo(getattr(torch, engine.info.dtype)).bits // 8
    work = Work.of(model_dir, num_bytes, num_bytes)
    # The door shows no runner; a step is measured as `load` puts it together.
    runner, dtype = engine._runner, getattr(torch, engine.info.dtype)
    print(
        f"{model_dir.name}: {engine.info.num_parameters / 1e6:.0f} M parameters in "
        f"{engine.info.dtype}, {work.weight_bytes / 1e6:.0f} MB of weights read a step"
    )
    rows = [measure_kind(runner, work, dtype, kind, args.steps) for kind in kinds]
    runner.close()
    return rows


def measure_kind(runner: Runner, work: Work, dtype: torch.dtype, kind: Kind, num_steps: int) -> Row:
    """Time steps of one kind in rounds."""
    meter = CpuMeter()
    num_bytes, num_flops = kind.num_bytes(work), kind.num_flops(work)
    rounds, before = [], look(work, dtype)
    for _ in range(NUM_ROUNDS):
        times = kind.time(runner, max(1, num_steps // NUM_ROUNDS))
        after = look(work, dtype)
        reached = Ceiling(num_bytes / times[0], num_flops / times[0])
        best = before.or_better(after).or_better(reached)
        rounds.append(Round(times, best.least_s(num_bytes, num_flops)))
        before = after
    return row_of(kind, rounds, meter.stop())


def look(work: Work, dtype: torch.dtype) -> Ceiling:
    """Measure how fast the machine is now."""
    return Ceiling(read_rate(work.weight_bytes), multiply_rate(dtype))


def row_of(kind: Kind, rounds: Sequence[Round], cpu: CpuUse) -> Row:
    """Put the steps of one kind beside their bounds."""
    times = sorted(seconds for each in rounds for seconds in each.times)
    of_bounds = [each.of_bound for each in rounds]
    step_s = statistics.median(times)
    num_each = kind.context if kind.is_prefill else 1
    return Row(
        kind=kind,
        step_ms=step_s * 1e3,
        p10_ms=percentile(times, 0.1) * 1e3,
        p90_ms=percentile(times, 0.9) * 1e3,
        bound_ms=statistics.median(each.bound_s for each in rounds) * 1e3,
        of_bound=statistics.median(of_bounds),
        of_bound_low=min(of_bounds),
        of_bound_high=max(of_bounds),
        tokens_per_s=kind.batch * num_each / step_s,
        cpu=cpu,
    )


def describe_rows(rows: Sequence[Row]) -> str:
    """Write a line for each kind of step."""
    head = ("step", "rows", "context", "step ms", "p10-p90", "bound ms", "of bound", "tokens/s")
    lines = [
        [
            "prefill" if row.kind.is_prefill else "decode",
            str(row.kind.batch),
            str(row.kind.context),
            f"{row.step_ms:.2f}",
            f"{row.p10_ms:.2f}-{row.p90_ms:.2f}",
            f"{row.bound_ms:.2f}",
            f"{row.of_bound:.2f} ({row.of_bound_low:.2f}-{row.of_bound_high:.2f})",
            f"{row.tokens_per_s:.0f}",
            "-" if row.cpu.other_cores is None else f"{row.cpu.other_cores:.2f}",
        ]
        for row in rows
    ]
    return table((*head, "others"), lines) + "\nothers: cores that other processes kept busy"


def find_model(args: Namespace) -> Path:
    """Take the model that was named, or write a random one."""
    if args.model is not None:
        return Path(args.model)
    if args.models_dir is None:
        return BUILT_IN_MODEL
    return make_model(args.shape, args.models_dir)


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory")
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen-0.5b", help="of the random")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024])
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1, 8], help="taken in one step, of 128 tokens"
    )
    parser.add_argument("--steps", type=int, default=30, help="timed for each")
    parser.add_argument("--vs-generate", action="store_true", help="compare with transformers'")
    parser.add_argument("--repeat", type=int, default=3, help="comparisons")
    parser.add_argument("--short", action="store_true", help="a few steps of the built-in model")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.batches, args.contexts, args.steps, args.repeat = [1, 16], [128], 20, 1
    elif args.model is None and args.models_dir is None:
        parser.error("give --model, --models-dir or --short")
    return args


def main() -> None:
    args = parse_args()
    use_all_cores()
    model_dir = find_model(args)
    rows = measure_rows(model_dir, args)
    print(describe_rows(rows))
    result: dict[str, object] = {"model": model_dir.name, "rows": rows}
    if args.vs_generate:
        comparisons = compare(model_dir, args.repeat)
        print(describe_comparison(comparisons))
        print(describe_cpu([comparison.cpu for comparison in comparisons]))
        result["vs_generate"] = comparisons
    if args.json is not None:
        write_result(args.json, result)


if __name__ == "__main__":
    main()
