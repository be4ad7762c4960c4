"""What a long prompt does to sixteen streams, and the streams to its first token, by the option.

    python benchmarks/pace.py --models-dir DIR            # a random model of Qwen2.5-0.5B's shape
    python benchmarks/pace.py --models-dir DIR --shape llama-30m

The engine without HTTP: sixteen sequences decode, then a long prompt arrives. The gap is the time
from a step's end to the next one's. For each value of `--max-inter-token-latency` (given in times
of the median gap before the prompt came, so that the curve has the same shape on every machine):
the gaps while the prompt enters, beside the first token of the newcomer. "default" is the engine
without the option, "inf" lets the prompt fill every step up to its limit. Values are taken in turn,
round by round.
"""

import math
import random
import statistics
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

from ceilings import use_all_cores
from models import BUILT_IN_MODEL, SHAPES, make_model
from parts.conditions import write_result

from engine import Engine, EngineConfig, SamplingParams
from engine.detokenizer import Detokenizer
from engine.load import load
from engine.sequence import Sequence
from server.cpu import CpuMeter, CpuUse
from server.metrics import Metrics
from server.report import describe_cpu, percentile, spread, table

GOAL = 2.5
NUM_STREAMS = 16
_STREAM_TOKENS = 128
"""Of each stream's prompt."""
_MAX_STEPS = 1024
"""Of a stream; a prompt that takes more is not whole when they end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One prompt among the streams, by one value of the option."""

    option: str
    """The target in times of the quiet gap, or "default" or "inf"."""
    quiet_ms: float
    """Median gap before the prompt came; its p99 says how quiet the machine was."""
    quiet_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    """While the prompt entered, the step of its first token included."""
    ratio: float
    """Of that p99 to the quiet gap."""
    first_token_ms: float
    """Of the newcomer."""
    num_steps: int
    """In which the prompt entered, those without any of it included."""


class Bench:
    """A loaded engine's parts, and steps one after another."""

    def __init__(self, engine: Engine) -> None:
        # The door shows none of these; they are measured as `load` puts them together.
        self._runner, self._scheduler = engine._runner, engine._scheduler
        self._tokenizer = engine.tokenizer
        self._dice = random.Random(1)
        self._ids = count(1)
        assert self._scheduler._pace is not None
        self.pace = self._scheduler._pace

    def add(self, num_tokens: int, num_output: int) -> Sequence:
        """Let a prompt of random tokens into the line; nothing of it is known."""
        prompt = [self._dice.randrange(200) for _ in range(num_tokens)]
        params = SamplingParams(max_new_tokens=num_output, ignore_eos=True, is_prefix_cached=False)
        sequence = Sequence(
            next(self._ids), prompt, params, Detokenizer(self._tokenizer, prompt), time.monotonic()
        )
        self._scheduler.add(sequence)
        return sequence

    def step(self) -> float:
        """Run one step; return when it had ended."""
        batch = self._scheduler.schedule(time.monotonic())
        assert batch is not None
        output = self._runner.execute(batch)
        now = time.monotonic()
        self._scheduler.update(output, now)
        return now

    def clear(self) -> None:
        """End all that runs."""
        for sequence in list(self._scheduler.running.values()):
            self._scheduler.abort(sequence, time.monotonic())

    def first_token_alone_s(self, num_tokens: int) -> float:
        """Let a prompt in while nothing else runs."""
        newcomer = self.add(num_tokens, 1)
        ends = [self.step()]
        while newcomer.first_token_at is None:
            ends.append(self.step())
        return ends[-1] - newcomer.submitted_at


def one_round(bench: Bench, factor: float | None, args: Namespace) -> Round:
    """Let streams decode, then a prompt arrive."""
    bench.pace.max_step_s = None
    streams = [bench.add(_STREAM_TOKENS, _MAX_STEPS) for _ in range(NUM_STREAMS)]
    while any(stream.num_output < 2 for stream in streams):
        bench.step()
    quiet = sorted(gaps([bench.step() for _ in range(args.quiet_steps + 1)]))
    quiet_s = statistics.median(quiet)
    bench.pace.max_step_s = None if factor is None else factor * quiet_s
    ends = [bench.step()]
    newcomer = bench.add(args.prompt, 1)
    while newcomer.first_token_at is None:
        ends.append(bench.step())
    assert all(stream in bench._scheduler.running.values() for stream in streams), "a stream ended"
    bench.clear()
    ranked = sorted(gaps(ends))
    return Round(
        option="default" if factor is None else f"{factor:g}",
        quiet_ms=quiet_s * 1e3,
        quiet_p99_ms=percentile(quiet, 0.99) * 1e3,
        gap_p50_ms=percentile(ranked, 0.5) * 1e3,
        gap_p99_ms=percentile(ranked, 0.99) * 1e3,
        ratio=percentile(ranked, 0.99) / quiet_s,
        first_token_ms=(ends[-1] - newcomer.submitted_at) * 1e3,
        num_steps=len(ranked),
    )


def gaps(ends: AbstractSequence[float]) -> list[float]:
    """Give the times between the ends of steps."""
    return [after - before for before, after in pairwise(ends)]


def measure(model_dir: Path, args: Namespace) -> tuple[list[Round], list[float], list[CpuUse]]:
    """Take every value in turn, round by round; the first token alone comes between the rounds."""
    longest = max(args.prompt + 1, _STREAM_TOKENS + _MAX_STEPS)
    config = EngineConfig(
        model=str(model_dir),
        max_batch_size=NUM_STREAMS + 1,
        max_total_tokens=longest,
        max_cache_tokens=(NUM_STREAMS + 1) * -(-longest // 32) * 32,
        num_threads=args.threads,
    )
    bench = Bench(load(config, Metrics()))
    rounds, alone, cpu = [], [], []
    for number in range(args.rounds):
        alone.append(bench.first_token_alone_s(args.prompt) * 1e3)
        for factor in [None, *args.factors][:: 1 if number % 2 == 0 else -1]:
            meter = CpuMeter()
            rounds.append(one_round(bench, factor, args))
            cpu.append(meter.stop())
            time.sleep(args.pause)
    return rounds, alone, cpu


def describe(rounds: AbstractSequence[Round]) -> str:
    """Write a line for each value: medians over the rounds, the least and the most."""
    head = (
        "option",
        "quiet p50",
        "p99 ms",
        "gap p50",
        "gap p99",
        "p99/quiet",
        "first token ms",
        "steps",
    )
    by_option: dict[str, list[Round]] = {}
    for item in rounds:
        by_option.setdefault(item.option, []).append(item)
    lines = [
        [
            option,
            spread([item.quiet_ms for item in items], 1),
            spread([item.quiet_p99_ms for item in items], 1),
            spread([item.gap_p50_ms for item in items], 1),
            spread([item.gap_p99_ms for item in items], 1),
            spread([item.ratio for item in items], 2),
            spread([item.first_token_ms for item in items], 0),
            spread([item.num_steps for item in items], 0),
        ]
        for option, items in by_option.items()
    ]
    return table(head, lines)


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory")
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen-0.5b", help="of the random")
    parser.add_argument("--prompt", type=int, default=4000, help="tokens of the newcomer")
    parser.add_argument(
        "--factors", type=float, nargs="*", default=[1.25, 1.5, 2, 3, 4, 8, math.inf],
        help="values of the option, in times of the quiet gap",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quiet-steps", type=int, default=40, help="timed before each prompt")
    parser.add_argument("--threads", type=int, help="of the forward pass")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between prompts")
    parser.add_argument("--short", action="store_true", help="a shorter prompt, built-in model")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.prompt, args.rounds, args.factors = min(args.prompt, 500), 2, [4, math.inf]
    elif args.model is None and args.models_dir is None:
        parser.error("give --model, --models-dir or --short")
    return args


def find_model(args: Namespace) -> Path:
    """Take the model that was named, or write a random one."""
    if args.model is not None:
        return Path(args.model)
    return BUILT_IN_MODEL if args.models_dir is None else make_model(args.shape, args.models_dir)


def main() -> None:
    args = parse_args()
    use_all_cores()
    model_dir = find_model(args)
    rounds, alone, cpu = measure(model_dir, args)
    print(f"{model_dir.name}: {args.prompt} tokens arrive among {NUM_STREAMS} streams")
    print(describe(rounds))
    print(f"first token alone: {spread(alone, 0)} ms; goal: p99/quiet of the default <= {GOAL}")
    print(describe_cpu(cpu))
    if args.json is not None:
        result: dict[str, object] = {
            "model": model_dir.name,
            "alone_ms": alone,
            "rounds": rounds,
            "cpu": cpu,
        }
        write_result(args.json, result)


if __name__ == "__main__":
    main()
