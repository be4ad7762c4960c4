"""What the live feed costs: processor time for a token, with somebody watching and without.

Production's server runs over a runner that answers every step at once, on a core of its own. Its
streams are run again and again, in pairs: once with watchers of `GET /events`, once without, in
turn, in the same process. Neighbours disturb processor time little, and pairs even less; still they
scatter by several per cent. So the time in which events are made is also taken by itself.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import uvloop
from overhead import TIMEOUT_S, Place
from parts.child import Child, free_port, run_server
from parts.conditions import write_result

from server.cpu import CpuMeter
from server.loadgen import Target, closed_loop
from server.question import Dialect, Ending, Question
from server.report import spread

GOAL = 0.01
_RESAMPLES = 10_000
_FRAME = b'"type":"frame"'


@contextmanager
def watching(url: str) -> Iterator[IO[bytes]]:
    """Read the live feed until the block ends, in a process of its own; the file fills with it.

    A thread of this one would hold up the streams' reader, for which the server would pay.
    """
    with tempfile.TemporaryFile() as file:
        watcher = subprocess.Popen(["curl", "-sN", f"{url}/events"], stdout=file)
        try:
            yield file
        finally:
            watcher.terminate()
            watcher.wait()


def num_frames_of(file: IO[bytes]) -> int:
    """Count the frames that came."""
    file.seek(0)
    return file.read().count(_FRAME)


def us_per_token(child: Child, args: Namespace, num_watchers: int) -> tuple[float, int]:
    """Run all streams once; give the server's processor time for a token, and the frames seen."""
    question = Question(dialect=Dialect.TGI, num_prompt_words=4, num_output_tokens=args.tokens)
    target = Target.parse(child.url)
    requests = [target.request(question.dialect, question.body(" a few short words"))]
    with ExitStack() as stack:
        feeds = [stack.enter_context(watching(child.url)) for _ in range(num_watchers)]
        meter = CpuMeter(child.pid)
        streams = closed_loop(target, requests * args.streams, args.streams, TIMEOUT_S)
        recordings = uvloop.run(streams)
        cpu = meter.stop()
        num_frames = sum(map(num_frames_of, feeds))
    for outcome in map(question.outcome, recordings):
        if outcome.ending is not Ending.ANSWERED:
            raise RuntimeError(f"a stream {outcome.ending}: {outcome.error}")
    if cpu.server_s is None:
        raise RuntimeError("the server's processor time cannot be read here")
    return cpu.server_s / (args.streams * args.tokens) * 1e6, num_frames


def interval(costs: Sequence[float]) -> tuple[float, float]:
    """Give a 95 % interval of the mean, by resampling."""
    dice = random.Random(0)
    means = sorted(statistics.fmean(dice.choices(costs, k=len(costs))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]


def run_all(args: Namespace) -> dict[str, object]:
    """Run the pairs; print and return what came of them."""
    place, port = Place.choose(), free_port()
    os.sched_setaffinity(0, {place.client_core})
    pairs: list[dict[str, float]] = []
    script = Path(__file__).parent / "parts" / "weightless.py"
    with tempfile.TemporaryDirectory() as folder:
        stamps = str(Path(folder) / "stamps.json")
        command = [sys.executable, str(script), "millrace", str(port), stamps]
        with run_server(command, port, place.server_core) as child:
            us_per_token(child, args, 0)  # warm
            for number in range(args.pairs):
                pair: dict[str, float] = {}
                for num_watchers in (0, args.watchers)[:: 1 if number % 2 == 0 else -1]:
                    cost, num_frames = us_per_token(child, args, num_watchers)
                    pair["watched_us" if num_watchers else "alone_us"] = cost
                    if num_watchers:
                        pair["num_frames"] = num_frames
                pairs.append(pair)
        feed_s = json.loads(Path(stamps).read_text())["feed_s"]
    watched_s = sum(pair["watched_us"] for pair in pairs) * args.streams * args.tokens / 1e6
    share = feed_s / watched_s
    costs = [pair["watched_us"] / pair["alone_us"] - 1.0 for pair in pairs]
    low, high = interval(costs)
    alone, watched = ([pair[key] for pair in pairs] for key in ("alone_us", "watched_us"))
    print(f"{args.streams} streams of {args.tokens} tokens, {args.pairs} pairs, {place}")
    print(f"us/token alone {spread(alone, 2)}, with {args.watchers} watching {spread(watched, 2)}")
    print(f"frames seen in a run: {spread([pair['num_frames'] for pair in pairs], 0)}")
    print(f"making the feed's events took {share:.2%} of it (goal: below {GOAL:.0%})")
    print(
        f"cost of watching: {statistics.fmean(costs):+.2%} of processor time for a token, "
        f"95 % interval {low:+.2%} to {high:+.2%}"
    )
    return {
        "share": share,
        "cost": statistics.fmean(costs),
        "cost_low": low,
        "cost_high": high,
        "num_streams": args.streams,
        "num_tokens": args.tokens,
        "num_watchers": args.watchers,
        "pairs": pairs,
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000, help="of each stream")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--watchers", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="four pairs of 500 tokens")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.tokens, args.pairs = min(args.tokens, 500), min(args.pairs, 4)
    result = run_all(args)
    if args.json is not None:
        write_result(args.json, result)


if __name__ == "__main__":
    main()
