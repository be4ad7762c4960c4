"""Loads servers in turn, round after round, so that what disturbs a while disturbs all of them.

All servers of a family are started once; whoever does not have its turn is stopped like a job in a
shell, and takes no processor time. Before each turn one request, not counted, wakes the server and
fills its cache with what prompts share.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import uvloop
from ceilings import Ceiling, Work, multiply_rate, read_rate
from parts.child import Child, free_port, run_server
from parts.contenders import Absent, Contender
from parts.families import Family, Point

from server.loadgen import Load, Target, measure, warm_up
from server.question import Dialect, Question
from server.report import Figures

_TIMEOUT_S = 600.0
"""For one answer."""
_FIRST = Point(4, 4)
_NUM_WAKING_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server under one load once."""

    server: str
    num_clients: int
    round: int
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What a family of loads gave."""

    runs: list[Run]
    ceiling: Ceiling
    """The best of what was looked for between the rounds."""
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
    absent: dict[str, str] = {}
    ceilings = [_look(family, work)]
    with ExitStack() as stack:
        lanes = []
        for contender in contenders:
            try:
                lanes.append(stack.enter_context(_start(family, contender, words, log)))
            except (Absent, RuntimeError) as error:
                absent[contender.name] = str(error)
        for number in range(num_rounds):
            for point in family.points:
                seed = random.SystemRandom().randrange(1, 1 << 31)  # new words, the same for all
                for lane in lanes:
                    runs.append(lane.take_turn(point, number, seed))
                    print(_progress(runs[-1]), file=sys.stderr)
            ceilings.append(_look(family, work))
    best = Ceiling(max(c.bytes_per_s for c in ceilings), max(c.flops_per_s for c in ceilings))
    return Rounds(runs=runs, ceiling=best, absent=absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A server that has started, and what it is asked."""

    contender: Contender
    child: Child
    question: Question
    num_shared_tokens: int

    def take_turn(self, point: Point, number: int, seed: int) -> Run:
        """Let the server run for one load."""
        dice = random.Random(f"prefix {seed}")
        shared = dice.choices(self.question.words, k=self.num_shared_tokens)
        load = Load(
            question=replace(self.question, prefix="".join(f" {word}" for word in shared)),
            num_requests=point.num_requests,
            num_clients=point.num_clients,
            seed=seed,
            timeout_s=_TIMEOUT_S,
        )
        self.child.resume()
        try:
            figures = uvloop.run(self._measure(load))
        finally:
            self.child.pause()
        return Run(
            server=self.contender.name,
            num_clients=point.num_clients,
            round=number,
            figures=figures,
        )

    async def _measure(self, load: Load) -> Figures:
        target = Target.parse(self.child.url)
        few_tokens = replace(load.question, num_output_tokens=_NUM_WAKING_TOKENS)
        await warm_up(target, replace(load, question=few_tokens))
        return await measure(target, load, self.child.pid)


@contextmanager
def _start(
    family: Family, contender: Contender, words: tuple[str, ...], log: Path
) -> Iterator[Lane]:
    """Start a server and let it answer a few, since compilers and allocators are slow at first."""
    print(f"starting {contender.name}", file=sys.stderr)
    question = Question(
        dialect=Dialect.COMPLETIONS,
        model=contender.served_name,
        num_prompt_words=family.num_own_tokens,
        num_output_tokens=family.num_output_tokens,
        words=words,
        is_plain=contender.is_plain,
    )
    port = free_port()
    command = (*contender.command, str(port))
    with run_server(command, port, health="/health", env=contender.env, log=log) as child:
        lane = Lane(
            contender=contender,
            child=child,
            question=question,
            num_shared_tokens=family.num_shared_tokens,
        )
        figures = lane.take_turn(_FIRST, 0, random.SystemRandom().randrange(1 << 31)).figures
        if figures.num_answered < figures.num_requests:
            raise Absent(f"it does not answer as asked: {next(iter(figures.errors), 'refused')}")
        yield lane


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
