"""Whether computing and sending are in each other's way: 64 rows with open streams and without.

    python benchmarks/overlap.py --models-dir DIR     # a random model of Qwen2.5-0.5B's shape
    python benchmarks/overlap.py --models-dir DIR --shape llama-30m

Production's server runs the same 64 requests in turn: answered in one piece, so that nothing is
rendered or written while they run, and streamed. Only steps count that give each row a token.

step    from the call of the runner to its return, so what sending takes away from computing
lag     how much later than due the event loop woke a task that sleeps 5 ms again and again, so what
        computing takes away from sending; beside it while nothing runs
"""

import json
import math
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from models import SHAPES, make_model
from parts.child import free_port, run_server
from parts.conditions import write_result
from parts.weightless import MODEL as BUILT_IN_MODEL

from server.cpu import CpuMeter, CpuUse
from server.loadgen import Target, closed_loop
from server.question import Dialect, Question
from server.recording import read_answer
from server.report import describe_cpu, spread, table

NUM_ROWS = 64
TIMEOUT_S = 300.0
IDLE_S = 2.0


@dataclass(slots=True)
class Phase:
    """One way in which the rows ran, or that none did; a value a round."""

    step_ms: list[float] = field(default_factory=list)
    lag_p99_ms: list[float] = field(default_factory=list)
    lag_max_ms: list[float] = field(default_factory=list)


Span = tuple[str, float, float]


def run_rounds(args: Namespace, url: str) -> list[Span]:
    """Run the phases in turn; say which was when."""
    spans = []
    for number in range(args.rounds):
        order = ("whole", "streamed") if number % 2 == 0 else ("streamed", "whole")
        for name in ("idle", *order):
            begin = time.monotonic()
            if name == "idle":
                time.sleep(IDLE_S)
            else:
                ask(url, args.tokens, is_streamed=name == "streamed")
            spans.append((name, begin, time.monotonic()))
    return spans


def ask(url: str, num_tokens: int, *, is_streamed: bool) -> None:
    """Ask all rows' questions at once, and wait for the answers."""
    question = Question(
        dialect=Dialect.COMPLETIONS, num_prompt_words=8, num_output_tokens=num_tokens
    )
    target = Target.parse(url)
    requests = []
    for row in range(NUM_ROWS):
        body = {
            **json.loads(question.body(f" number {row} and a few words")),
            "stream": is_streamed,
        }
        if not is_streamed:
            del body["stream_options"]
        requests.append(target.request(question.dialect, json.dumps(body).encode()))
    recordings = uvloop.run(closed_loop(target, requests, NUM_ROWS, TIMEOUT_S))
    statuses = {read_answer(recording).status for recording in recordings}
    if statuses != {200}:
        raise RuntimeError(f"the server answered {statuses}")


def phases_of(
    spans: Sequence[Span], steps: Sequence[Sequence[float]], lags: Sequence[Sequence[float]]
) -> dict[str, Phase]:
    """Put what the server noted into the phases."""
    phases: dict[str, Phase] = {}
    for name, begin, end in spans:
        phase = phases.setdefault(name, Phase())
        full = [s for s in steps if begin <= s[0] and s[1] <= end and s[2:] == [NUM_ROWS, 0]]
        if not full and name != "idle":
            raise RuntimeError("the rows did not all run at the same time: ask for more --tokens")
        if full:
            phase.step_ms.append(statistics.median(s[1] - s[0] for s in full) * 1e3)
            begin, end = full[0][0], full[-1][1]
        inside = sorted(lag * 1e3 for when, lag in lags if begin <= when <= end)
        phase.lag_p99_ms.append(inside[math.ceil(0.99 * len(inside)) - 1])
        phase.lag_max_ms.append(inside[-1])
    return phases


def measure(args: Namespace, model_dir: Path) -> tuple[dict[str, Phase], CpuUse]:
    """Start the server, run all rounds, read what it noted."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes.json"
        script = Path(__file__).parent / "parts" / "watched.py"
        command = [sys.executable, str(script), str(model_dir), str(port), str(notes)]
        with run_server(command, port) as child:
            for is_streamed in (False, True):  # warm
                ask(child.url, 8, is_streamed=is_streamed)
            meter = CpuMeter(child.pid)
            spans = run_rounds(args, child.url)
            cpu = meter.stop()
        noted = json.loads(notes.read_text())
    return phases_of(spans, noted["steps"], noted["lags"]), cpu


def describe(phases: dict[str, Phase]) -> str:
    """Write a line for each phase: medians of the rounds, the least and the most."""
    rows = [
        [
            name,
            spread(phase.step_ms, 2) if phase.step_ms else "-",
            spread(phase.lag_p99_ms, 1),
            spread(phase.lag_max_ms, 1),
        ]
        for name, phase in phases.items()
    ]
    return table(("answers", "step ms", "lag p99 ms", "lag max ms"), rows)


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen-0.5b", help="of the random")
    parser.add_argument("--tokens", type=int, default=250, help="of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="two rounds on the built-in model")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.rounds = min(args.rounds, 2)
    elif args.models_dir is None:
        parser.error("give --models-dir or --short")
    return args


def main() -> None:
    args = parse_args()
    is_random = args.models_dir is not None
    model_dir = make_model(args.shape, args.models_dir) if is_random else BUILT_IN_MODEL
    phases, cpu = measure(args, model_dir)
    pairs = zip(phases["streamed"].step_ms, phases["whole"].step_ms, strict=True)
    ratios = [streamed / whole for streamed, whole in pairs]
    print(f"{model_dir.name}: {NUM_ROWS} rows, {args.tokens} tokens each, {args.rounds} rounds")
    print(describe(phases))
    print(f"a step with open streams, by one without: {spread(ratios, 2)}")
    print(describe_cpu([cpu]))
    if args.json is not None:
        result = {"model": model_dir.name, "num_tokens": args.tokens, "phases": phases}
        write_result(args.json, {**result, "step_ratio": statistics.median(ratios), "cpu": cpu})


if __name__ == "__main__":
    main()
