"""One decode step by batch size and context, without HTTP, beside what the machine allows.

    python benchmarks/step.py --models-dir DIR            # a random model of Qwen2.5-0.5B's shape
    python benchmarks/step.py --model MODEL --vs-generate

The bound is that of `ceilings.py`; its rates are measured again beside every row of the table, and
a step that is faster raises them.

--vs-generate compares tokens per second: the engine with 16 requests at a time, and transformers'
own generate one by one; the same weights, prompts and numbers of tokens, greedy, in turn.
"""

import random
import statistics
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ceilings import Ceiling, Work, multiply_rate, read_rate, use_all_cores
from models import BUILT_IN_MODEL, SHAPES, make_model
from parts.conditions import write_result
from parts.versus import compare, describe_comparison

from engine import Batch, EngineConfig, Join, RowWork, Runner, SamplingParams
from engine.load import load
from server.cpu import CpuMeter, CpuUse
from server.metrics import Metrics
from server.report import describe_cpu, percentile, table

_NUM_WARM_UP = 3
_BLOCK_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One batch size at one context."""

    batch: int
    context: int
    """Tokens of each row, the one to compute included."""
    step_ms: float
    """Median; the next two are where the middle eight tenths of the steps lie."""
    p10_ms: float
    p90_ms: float
    bound_ms: float
    ratio: float
    tokens_per_s: float
    cpu: CpuUse


@dataclass(frozen=True, slots=True)
class Timed:
    """The steps of one batch size at one context, shortest first, in seconds."""

    batch: int
    context: int
    times: list[float]
    cpu: CpuUse


def time_steps(runner: Runner, batch: int, context: int, num_steps: int) -> list[float]:
    """Decode so many steps with all rows; return the seconds of each.

    The rows join with nearly all of their context computed. A first step makes every block theirs
    and writes zeros to it, so that its memory is there to be read.
    """
    num_each = -(-(context + num_steps + _NUM_WARM_UP) // _BLOCK_SIZE)
    blocks = list(range(batch * num_each))
    dice = random.Random(1)
    dice.shuffle(blocks)
    params = SamplingParams(max_new_tokens=num_steps + _NUM_WARM_UP, ignore_eos=True)
    ids = tuple(range(batch))
    joins = [
        Join(
            sequence_id=row,
            token_ids=tuple(dice.randrange(200) for _ in range(context)),
            num_prompt_tokens=context,
            num_computed_tokens=num_computed,
            blocks=tuple(blocks[row * num_each : (row + 1) * num_each]),
            params=params,
        )
        for num_computed in (0, context - 1)
        for row in ids
    ]
    runner.execute(Batch(0, (), tuple(joins[:batch]), tuple(RowWork(i, 1, 0, False) for i in ids)))
    decode = tuple(RowWork(row, 1, 1, True) for row in ids)
    runner.execute(Batch(1, ids, tuple(joins[batch:]), decode))
    times = []
    for step in range(2, num_steps + _NUM_WARM_UP):
        start = time.perf_counter()
        runner.execute(Batch(step, (), (), decode))
        times.append(time.perf_counter() - start)
    runner.execute(Batch(0, ids, (), ()))
    return times[_NUM_WARM_UP - 2 :]


def measure_rows(model_dir: Path, args: Namespace) -> list[Row]:
    """Time every batch size at every context."""
    longest = max(args.contexts) + args.steps + _NUM_WARM_UP
    num_each = -(-longest // _BLOCK_SIZE) * _BLOCK_SIZE
    config = EngineConfig(
        model=str(model_dir),
        max_batch_size=max(args.batches),
        max_total_tokens=num_each,
        max_cache_tokens=max(args.batches) * num_each,
        block_size=_BLOCK_SIZE,
    )
    engine = load(config, Metrics())
    num_bytes = torch.finfo(getattr(torch, engine.info.dtype)).bits // 8
    work = Work.of(model_dir, num_bytes, num_bytes)
    # The door shows no runner; a step is measured as `load` puts it together.
    timed, ceiling = time_all(engine._runner, work, getattr(torch, engine.info.dtype), args)
    print(
        f"{model_dir.name}: {engine.info.num_parameters / 1e6:.0f} M parameters in "
        f"{engine.info.dtype}, {work.weight_bytes / 1e6:.0f} MB of weights read a step; "
        f"best {ceiling.bytes_per_s / 1e9:.1f} GB/s and {ceiling.flops_per_s / 1e12:.2f} TFLOP/s"
    )
    return [
        row_of(item, ceiling.decode_s(work, item.batch, item.batch * item.context))
        for item in timed
    ]


def time_all(
    runner: Runner, work: Work, dtype: torch.dtype, args: Namespace
) -> tuple[list[Timed], Ceiling]:
    """Time the steps; look before each kind and at the end how fast the machine is."""
    timed = []
    reads, products = [read_rate(work.weight_bytes)], [multiply_rate(dtype)]
    for batch in args.batches:
        for context in args.contexts:
            meter = CpuMeter()
            times = sorted(time_steps(runner, batch, context, args.steps))
            timed.append(Timed(batch, context, times, meter.stop()))
            reads += [read_rate(work.weight_bytes), work.num_bytes(batch * context) / times[0]]
            products += [multiply_rate(dtype), batch * work.flops_per_row / times[0]]
    runner.close()
    return timed, Ceiling(max(reads), max(products))


def row_of(timed: Timed, bound_s: float) -> Row:
    """Put the steps of one kind beside their bound."""
    step_s = statistics.median(timed.times)
    return Row(
        batch=timed.batch,
        context=timed.context,
        step_ms=step_s * 1e3,
        p10_ms=percentile(timed.times, 0.1) * 1e3,
        p90_ms=percentile(timed.times, 0.9) * 1e3,
        bound_ms=bound_s * 1e3,
        ratio=step_s / bound_s,
        tokens_per_s=timed.batch / step_s,
        cpu=timed.cpu,
    )


def describe_rows(rows: Sequence[Row]) -> str:
    """Write a line for each batch size and context."""
    head = ("batch", "context", "step ms", "p10-p90", "bound ms", "ratio", "tokens/s", "others")
    lines = [
        [
            str(row.batch),
            str(row.context),
            f"{row.step_ms:.2f}",
            f"{row.p10_ms:.2f}-{row.p90_ms:.2f}",
            f"{row.bound_ms:.2f}",
            f"{row.ratio:.2f}",
            f"{row.tokens_per_s:.0f}",
            "-" if row.cpu.other_cores is None else f"{row.cpu.other_cores:.2f}",
        ]
        for row in rows
    ]
    return table(head, lines) + "\nothers: cores that other processes kept busy"


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
