"""What `--speculate` brings where text repeats itself, and what it costs where it never does.

    python benchmarks/speculate.py                      # the built-in model
    python benchmarks/speculate.py --models-dir DIR     # a random model of Qwen2.5-0.5B's shape

The engine without HTTP: some streams decode, with guesses and without in turn, in the same process,
in pairs. Taken are processor time for a token and tokens a second; and, since neighbours make the
pairs scatter, the time in which guesses are looked for by itself. Three kinds of text:

    repeats  greedy answers to a prompt that repeats itself; end tokens are ignored, so they go
             round in circles
    new      every token is drawn from the whole vocabulary: nothing is ever guessed
    wrong    every token is drawn from thirty: three of them were often seen together before, and
             what followed then is seldom right
"""

import math
import random
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import fmean, median
from typing import cast

from ceilings import use_all_cores
from events import interval
from models import BUILT_IN_MODEL, SHAPES, make_model
from parts.conditions import write_result

from engine import Engine, EngineConfig, RowWork, SamplingParams
from engine.detokenizer import Detokenizer
from engine.load import load
from engine.sequence import Sequence
from engine.speculation import Speculation
from server.metrics import Metrics
from server.report import spread, table

GOAL = 0.03
"""Of processor time for a token, where nothing is ever guessed."""
_REPEATING = "The miller counts his sacks: one two three four, one two three four, one two three"
_NUM_PROMPT = 48
_FEW = tuple((token_id, 100.0) for token_id in range(40, 70))
_TEXTS = {
    "repeats": SamplingParams(max_new_tokens=1, ignore_eos=True),
    "new": SamplingParams(max_new_tokens=1, ignore_eos=True, do_sample=True, temperature=1000.0),
    "wrong": SamplingParams(
        max_new_tokens=1, ignore_eos=True, do_sample=True, temperature=10.0, logit_bias=_FEW
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load, once through."""

    text: str
    is_guessing: bool
    """The side of its pair; with `--drafts 0` both are the same."""
    cpu_us: float
    """Processor time for a token."""
    guess_us: float
    """Of it, looking for guesses; by the median step, which no neighbour interrupts."""
    tokens_per_s: float
    num_steps: int
    num_drafts: int
    num_accepted: int


class Timed:
    """A scheduler's speculation, and how long it took in each step."""

    def __init__(self, inner: Speculation) -> None:
        self._inner = inner
        self.seconds: list[float] = []

    def extend(self, work: list[RowWork], running: Mapping[int, Sequence]) -> None:
        """Look for guesses."""
        start = time.perf_counter()
        self._inner.extend(work, running)
        self.seconds.append(time.perf_counter() - start)


class Bench:
    """A loaded engine's parts, and loads one after another."""

    def __init__(self, engine: Engine, args: Namespace) -> None:
        # The door shows none of these; they are measured as `load` puts them together.
        self._runner, self._scheduler = engine._runner, engine._scheduler
        self._speculation = Timed(self._scheduler._speculation)
        self._scheduler._speculation = cast(Speculation, self._speculation)
        self._tokenizer = engine.tokenizer
        self._args = args
        self._ids = count(1)

    def run(self, text: str, *, is_guessing: bool) -> Run:
        """Let all streams say so many tokens; timed from when all of them decode."""
        scheduler = self._scheduler
        max_drafts = self._args.drafts if is_guessing else 0
        scheduler.limits = replace(scheduler.limits, max_drafts=max_drafts)
        streams = [self._add(text, number) for number in range(self._args.streams)]
        while any(stream.num_output < 1 for stream in streams):
            self._step()
        first = sum(stream.num_output for stream in streams)
        num_steps = num_drafts = num_accepted = 0
        self._speculation.seconds.clear()
        start, start_cpu = time.perf_counter(), time.process_time()
        while scheduler.num_sequences:
            num_steps += 1
            drafted, accepted = self._step()
            num_drafts += drafted
            num_accepted += accepted
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
        num_tokens = sum(stream.num_output for stream in streams) - first
        guess_s = self._speculation.seconds or [0.0]
        return Run(
            text=text,
            is_guessing=is_guessing,
            cpu_us=cpu_s / num_tokens * 1e6,
            guess_us=median(guess_s) * len(guess_s) / num_tokens * 1e6,
            tokens_per_s=num_tokens / wall_s,
            num_steps=num_steps,
            num_drafts=num_drafts,
            num_accepted=num_accepted,
        )

    def _add(self, text: str, number: int) -> Sequence:
        dice = random.Random(number)
        prompt = [dice.randrange(100, 300) for _ in range(_NUM_PROMPT)]
        if text == "repeats":
            prompt = self._tokenizer.encode(_REPEATING)[number % 8 :]
        params = replace(
            _TEXTS[text], max_new_tokens=self._args.tokens, seed=number, is_prefix_cached=False
        )
        detokenizer = Detokenizer(self._tokenizer, prompt)
        sequence = Sequence(next(self._ids), prompt, params, detokenizer, time.monotonic())
        self._scheduler.add(sequence)
        return sequence

    def _step(self) -> tuple[int, int]:
        batch = self._scheduler.schedule(time.monotonic())
        assert batch is not None
        update = self._scheduler.update(self._runner.execute(batch), time.monotonic())
        return update.num_draft_tokens, sum(update.num_accepted)


def measure(model_dir: Path, args: Namespace) -> list[Run]:
    """Run every text with and without, in turn; the first pair of each warms up."""
    longest = 2 * _NUM_PROMPT + args.tokens
    config = EngineConfig(
        model=str(model_dir),
        max_batch_size=args.streams,
        max_total_tokens=longest,
        max_cache_tokens=args.streams * -(-longest // 32) * 32,
        max_drafts=args.drafts,
        num_threads=args.threads,
    )
    bench = Bench(load(config, Metrics()), args)
    runs = []
    for number in range(args.pairs + 1):
        for text in args.texts:
            sides = (False, True)[:: (-1) ** number]
            pair = [bench.run(text, is_guessing=side) for side in sides]
            runs += pair if number else []
    return runs


def describe(runs: list[Run]) -> tuple[str, dict[str, object]]:
    """Write a line for each text, and say what each costs."""
    head = (
        "text",
        "us/token",
        "with guesses",
        "looking",
        "cpu",
        "95 %",
        "tokens/s",
        "tokens/step",
        "right",
    )
    lines: list[list[str]] = []
    costs: dict[str, object] = {}
    for text in dict.fromkeys(run.text for run in runs):
        without = [run for run in runs if run.text == text and not run.is_guessing]
        guessing = [run for run in runs if run.text == text and run.is_guessing]
        pairs = list(zip(without, guessing, strict=True))
        mean, low, high = _gain([guess.cpu_us / plain.cpu_us for plain, guess in pairs])
        speed = [guess.tokens_per_s / plain.tokens_per_s for plain, guess in pairs]
        faster, faster_low, faster_high = _gain(speed)
        share = sum(run.guess_us for run in guessing) / sum(run.cpu_us for run in guessing)
        num_drafts = sum(run.num_drafts for run in guessing)
        num_accepted = sum(run.num_accepted for run in guessing)
        per_step = [plain.num_steps / guess.num_steps for plain, guess in pairs]
        costs[text] = {
            "cost": mean,
            "cost_low": low,
            "cost_high": high,
            "looking": share,
            "speed": 1 + faster,
            "speed_low": 1 + faster_low,
            "speed_high": 1 + faster_high,
            "tokens_per_step": fmean(per_step),
            "right": num_accepted / num_drafts if num_drafts else None,
        }
        lines.append(
            [
                text,
                spread([run.cpu_us for run in without], 1),
                spread([run.cpu_us for run in guessing], 1),
                f"{share:.2%}",
                f"{mean:+.1%}",
                f"{low:+.1%} to {high:+.1%}",
                f"x {spread(speed, 2)}",
                f"{fmean(per_step):.2f}",
                f"{num_accepted / num_drafts:.0%} of {num_drafts}" if num_drafts else "none made",
            ]
        )
    return table(head, lines), costs


def _gain(ratios: list[float]) -> tuple[float, float, float]:
    """Say by what part a pair's second is more than its first, with the 95 % interval.

    By logarithms: neighbours make either run of a pair dearer, which a mean of ratios sees.
    """
    logs = [math.log(ratio) for ratio in ratios]
    mean, low, high = map(math.expm1, (fmean(logs), *interval(logs)))
    return mean, low, high


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUILT_IN_MODEL, help="a model directory")
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen-0.5b", help="of the random")
    parser.add_argument(
        "--drafts",
        type=int,
        default=4,
        help="tokens guessed at most; 0 shows how far alike runs differ",
    )
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=400, help="of each stream")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--texts", nargs="*", choices=list(_TEXTS), default=list(_TEXTS))
    parser.add_argument("--threads", type=int, default=1, help="of the forward pass")
    parser.add_argument("--short", action="store_true", help="four pairs of 200 tokens")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.tokens, args.pairs = min(args.tokens, 200), min(args.pairs, 4)
    return args


def main() -> None:
    args = parse_args()
    use_all_cores()
    model_dir = args.model
    if args.models_dir is not None:
        model_dir = make_model(args.shape, args.models_dir)
    runs = measure(model_dir, args)
    text, costs = describe(runs)
    print(f"{model_dir.name}: {args.streams} streams of {args.tokens} tokens, {args.pairs} pairs,")
    print(f"{args.drafts} tokens guessed at most; goal: `new` costs at most {GOAL:+.0%}")
    print(text)
    if args.json is not None:
        write_result(args.json, {"model": model_dir.name, "costs": costs, "runs": runs})


if __name__ == "__main__":
    main()
