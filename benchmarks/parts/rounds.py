"""Loads servers in turn, round after round, so that what disturbs a while disturbs all of them.

All servers of a family are started once, and only one of them runs at a time.
"""

import json
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from ceilings import Ceiling, Work, multiply_rate, read_rate
from parts.contenders import OURS, Absent, Contender
from parts.families import Family
from parts.lane import Lane, Run, start

_LEAST_SHARE = 0.2
"""Of the best's tokens per second in the first answers: a peer below it would take all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What a family of loads gave."""

    runs: list[Run]
    ceilings: list[Ceiling]
    """Of each run: the better of what was seen just before and just after it."""
    absent: dict[str, str]
    """Who did not start, and why."""


def run_rounds(
    family: Family,
    model_dir: Path,
    contenders: Sequence[Contender],
    num_rounds: int,
    log: Path,
) -> Rounds:
    """Start all of them and load them in turn."""
    words = tuple(json.loads((model_dir / "bench_words.json").read_text()))
    work = family.work(model_dir)
    runs: list[Run] = []
    ceilings: list[Ceiling] = []
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        lanes = []
        for contender in contenders:
            print(f"starting {contender.name}", file=sys.stderr)
            try:
                lanes.append(stack.enter_context(start(family, contender, words, log)))
            except Absent as reason:
                absent[contender.name] = str(reason)
            except RuntimeError as error:
                absent[contender.name] = f"{error}: {_last_line(log)}"
        absent |= (slow := _find_slow(lanes))
        lanes = [lane for lane in lanes if lane.contender.name not in slow]
        before = _look(family, work)
        for number in range(num_rounds):
            for point in family.points:
                seed = random.SystemRandom().randrange(1, 1 << 31)  # new words, the same for all
                for lane in lanes:
                    runs.append(lane.take_turn(point, number, seed))
                    print(_progress(runs[-1]), file=sys.stderr)
                    after = _look(family, work)
                    ceilings.append(before.or_better(after))
                    before = after
    return Rounds(runs=runs, ceilings=ceilings, absent=absent)


def _find_slow(lanes: Sequence[Lane]) -> dict[str, str]:
    """Find the peers that are far too slow to be asked again and again."""
    rates = {lane.contender.name: lane.first_tokens_per_s for lane in lanes}
    best = max(rates, key=lambda name: rates[name], default="")
    return {
        name: f"too slow: {rate:.1f} tokens/s at first, where {best} has {rates[best]:.1f}"
        for name, rate in rates.items()
        if name != OURS and rate < _LEAST_SHARE * rates[best]
    }


def _last_line(log: Path) -> str:
    """Take what a server said last, which mostly is why it ended."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _look(family: Family, work: Work) -> Ceiling:
    """Measure what the machine can do now, while all servers are stopped."""
    dtype = torch.int8 if family.is_int8 else torch.bfloat16
    return Ceiling(read_rate(work.weight_bytes), multiply_rate(dtype))


def _progress(run: Run) -> str:
    figures = run.figures
    return (
        f"  round {run.round + 1}, {run.num_clients} clients, {run.server}: "
        f"{figures.tokens_per_s:.1f} tokens/s in {figures.wall_s:.1f} s, "
        f"{figures.num_answered} of {figures.num_requests} answered"
    )
