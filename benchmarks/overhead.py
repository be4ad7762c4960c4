"""What the server itself costs: production's code without a model, beside a bare handler.

Production's server and engine run over a runner that answers every step at once, so each step gives
one token to every stream, each in an event of its own: detokenised, counted, rendered and written.
Next to it, in turn and with the same client, a bare aiohttp handler on the same loop writes
constant bytes, one event at a time. Each server has one core to itself, the client another. Then
the same streams in OpenAI's words, beside the native ones; and production's alone with many more
streams, at the pace of a model that is slower than it.

tokens/s    tokens that came while all streams ran, by the client's clock
us/token    processor time of the server, or of the client, for a token; others disturb it little
late        from the end of the step that gave a token to its arrival at the client. The token's id
            says which step that was; both processes read CLOCK_MONOTONIC. Over the same tokens.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from parts.child import free_port, run_server
from parts.conditions import write_result

from server.cpu import CpuMeter, CpuUse
from server.loadgen import Target, closed_loop
from server.question import Dialect, Ending, Outcome, Question
from server.recording import Recording, read_answer, read_events
from server.report import Percentiles, describe_cpu, spread, table

TIMEOUT_S = 120.0
MANY_STREAMS = 2000
MANY_TOKENS = 400
MAX_OPENAI_RATIO = 1.3
"""Of the server's processor time for a token, by the native events."""
MANY_TOKENS_PER_S = 45_000
"""Above the goal, so that a server that reaches it only just is seen to be late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server once."""

    tokens_per_s: float
    server_us_per_token: float
    """Processor time of the server, starts and ends of the streams included."""
    client_us_per_token: float
    late_ms: Percentiles | None
    cpu: CpuUse


@dataclass(frozen=True, slots=True)
class Place:
    """Which core is whose."""

    server_core: int
    client_core: int

    @classmethod
    def choose(cls) -> "Place":
        """Take two of the cores that we may use, or the same one twice."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1])


def measure(
    kind: str,
    num_streams: int,
    num_tokens: int,
    place: Place,
    tokens_per_s: float | None = None,
    dialect: Dialect = Dialect.TGI,
) -> Run:
    """Run one server and the client against it; at most at this rate, or as fast as it goes."""
    question = Question(dialect=dialect, num_prompt_words=4, num_output_tokens=num_tokens)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "stamps.json"
        script = Path(__file__).parent / "parts" / "weightless.py"
        command = [sys.executable, str(script), kind, str(port), str(stamps)]
        if tokens_per_s is not None:
            command.append(str(tokens_per_s))
        with run_server(command, port, place.server_core) as child:
            recordings, cpu = _load(child.pid, child.url, question, num_streams)
        steps = json.loads(stamps.read_text())
    outcomes = [question.outcome(recording) for recording in recordings]
    for outcome in outcomes:
        if outcome.ending is not Ending.ANSWERED:
            raise RuntimeError(f"a stream of {kind} {outcome.ending}: {outcome.error}")
    assert cpu.server_s is not None
    window = _window(outcomes)
    late = None
    if steps and dialect is Dialect.TGI:  # the only events that say their token's id
        late = Percentiles.of(_lateness(recordings, *window, steps["ids"], steps["born"]))
    total = num_streams * num_tokens
    return Run(
        tokens_per_s=_rate(outcomes, *window),
        server_us_per_token=cpu.server_s / total * 1e6,
        client_us_per_token=cpu.own_s / total * 1e6,
        late_ms=late,
        cpu=cpu,
    )


def _load(
    pid: int, url: str, question: Question, num_streams: int
) -> tuple[list[Recording], CpuUse]:
    """Open all streams at once and record them to their ends.

    A stream before them lets the server start what it starts with the first of its kind.
    """
    target = Target.parse(url)
    request = target.request(question.dialect, question.body(" a few short words"))
    uvloop.run(closed_loop(target, [request], 1, TIMEOUT_S))
    meter = CpuMeter(pid)
    recordings = uvloop.run(closed_loop(target, [request] * num_streams, num_streams, TIMEOUT_S))
    return recordings, meter.stop()


def _window(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Say from when until when all streams ran."""
    start = max(outcome.token_times[0] for outcome in outcomes)
    end = min(outcome.token_times[-1] for outcome in outcomes)
    if end <= start:
        raise RuntimeError("the streams did not run at the same time: ask for more tokens")
    return start, end


def _rate(outcomes: Sequence[Outcome], start: float, end: float) -> float:
    num_tokens = sum(
        bisect_left(o.token_times, end) - bisect_right(o.token_times, start) for o in outcomes
    )
    return num_tokens / (end - start)


def _lateness(
    recordings: Sequence[Recording], start: float, end: float, ids: list[int], born: list[float]
) -> Iterator[float]:
    """Give for each token that came in a span of time the seconds from its birth to its arrival.

    Ids repeat after a while: a stream's first token is of the latest step that fits, and each
    further one must be of the step after. `born` begins with step 1.
    """
    place = {token_id: number for number, token_id in enumerate(ids)}
    for recording in recordings:
        step = 0
        for when, data in read_events(read_answer(recording).pieces):
            number = place[json.loads(data)["token"]["id"]]
            if step == 0:
                latest = bisect_right(born, when)
                step = latest - (latest - number) % len(ids)
            else:
                step += 1
            assert step % len(ids) == number, "a token was lost, came twice, or out of order"
            if start <= when <= end:
                yield when - born[step - 1]


def run_all(args: Namespace) -> dict[str, object]:
    """Measure both loads; print and return what came of it."""
    place = Place.choose()
    os.sched_setaffinity(0, {place.client_core})
    both = run_both(args, place)
    return {**both, "dialects": run_dialects(args, place), "many": run_many(args, place)}


def run_many(args: Namespace, place: Place) -> dict[str, object]:
    """Measure our server alone with very many streams."""
    num_tokens, repeat = min(args.tokens, MANY_TOKENS), min(args.repeat, 3)
    load = (MANY_STREAMS, num_tokens, place, MANY_TOKENS_PER_S)
    runs = [measure("millrace", *load) for _ in range(repeat)]
    late = [run.late_ms for run in runs if run.late_ms is not None]
    print(f"\n{MANY_STREAMS} streams of {num_tokens} tokens, {repeat} runs")
    print(f"at most {MANY_TOKENS_PER_S} tokens/s")
    print(describe({"millrace": runs}))
    print("goals: at least 40000 tokens/s, late p99 below 50 ms")
    return {
        "tokens_per_s": statistics.median(run.tokens_per_s for run in runs),
        "late_p99_ms": statistics.median(delay.p99 for delay in late),
        "num_streams": MANY_STREAMS,
        "num_tokens": num_tokens,
        "runs": runs,
    }


def run_both(args: Namespace, place: Place) -> dict[str, object]:
    """Measure both servers in turn, as often as asked."""
    runs: dict[str, list[Run]] = {"millrace": [], "bare": []}
    for number in range(args.repeat):
        for kind in ("millrace", "bare") if number % 2 == 0 else ("bare", "millrace"):
            runs[kind].append(measure(kind, args.streams, args.tokens, place))
    ratios = [a.tokens_per_s / b.tokens_per_s for a, b in zip(*runs.values(), strict=True)]
    cpu_ratios = [
        b.server_us_per_token / a.server_us_per_token for a, b in zip(*runs.values(), strict=True)
    ]
    late = [run.late_ms for run in runs["millrace"] if run.late_ms is not None]
    print(f"{args.streams} streams of {args.tokens} tokens, {args.repeat} runs in turn, {place}")
    print(describe(runs))
    print(f"ratio of tokens/s: {spread(ratios, 2)} (goal: at least 0.9)")
    print(f"ratio of tokens by processor time: {spread(cpu_ratios, 2)}")
    return {
        "tokens_per_s": statistics.median(run.tokens_per_s for run in runs["millrace"]),
        "bare_tokens_per_s": statistics.median(run.tokens_per_s for run in runs["bare"]),
        "ratio": statistics.median(ratios),
        "cpu_ratio": statistics.median(cpu_ratios),
        "late_p99_ms": statistics.median(delay.p99 for delay in late),
        "num_streams": args.streams,
        "num_tokens": args.tokens,
        "runs": runs,
    }


def run_dialects(args: Namespace, place: Place) -> dict[str, object]:
    """Measure our server in each dialect, in turn, as often as asked."""
    runs: dict[str, list[Run]] = {str(dialect): [] for dialect in Dialect}
    for number in range(args.repeat):
        for dialect in list(Dialect)[:: (-1) ** number]:
            run = measure("millrace", args.streams, args.tokens, place, dialect=dialect)
            runs[dialect].append(run)
    print(f"\nevents by dialect: {args.streams} streams of {args.tokens} tokens")
    print(describe(runs))
    ratios = {}
    for dialect in (Dialect.COMPLETIONS, Dialect.CHAT):
        pairs = zip(runs[dialect], runs[Dialect.TGI], strict=True)
        ratios[str(dialect)] = [a.server_us_per_token / b.server_us_per_token for a, b in pairs]
        print(
            f"{dialect} by native, processor time: {spread(ratios[dialect], 2)} "
            f"(goal: at most {MAX_OPENAI_RATIO})"
        )
    medians = {f"{name}_ratio": statistics.median(each) for name, each in ratios.items()}
    return {**medians, "ratios": ratios, "runs": runs}


def describe(runs: dict[str, list[Run]]) -> str:
    """Write a line for each server: medians, the least and the most."""
    head = ("server", "tokens/s", "server us/token", "client us/token", "late p50 ms", "p99", "max")
    rows = []
    for kind, several in runs.items():
        late = [run.late_ms for run in several if run.late_ms is not None]
        rows.append(
            [
                kind,
                spread([run.tokens_per_s for run in several], 0),
                spread([run.server_us_per_token for run in several], 1),
                spread([run.client_us_per_token for run in several], 1),
                *(spread([getattr(delay, p) for delay in late], 1) for p in ("p50", "p99", "max")),
            ]
        )
    uses = [f"{kind}: {describe_cpu([run.cpu for run in runs[kind]])}" for kind in runs]
    return "\n".join([table(head, rows), *uses])


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000, help="of each stream")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each server, in turn")
    parser.add_argument("--short", action="store_true", help="two short runs of each")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.tokens, args.repeat = min(args.tokens, 500), min(args.repeat, 2)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a file a stream, here and there
    result = run_all(args)
    if args.json is not None:
        write_result(args.json, result)


if __name__ == "__main__":
    main()
