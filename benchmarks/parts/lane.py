"""Lane: a server that has started for one family of loads, and its turns.

Whoever does not have its turn is stopped like a job in a shell, and takes no processor time. Before
each turn one request, not counted, wakes the server and fills its cache with what prompts share.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from parts.child import Child, free_port, run_server
from parts.contenders import Absent, Contender
from parts.families import Family, Point

from server.loadgen import Load, Target, measure, warm_up
from server.question import Dialect, Question
from server.report import Figures

_TIMEOUT_S = 600.0
"""For one answer."""
_FIRST = Point(4, 4)
_NUM_FIRST_TOKENS = 16
_NUM_TRIES = 2
_NUM_WAKING_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One server under one load once."""

    server: str
    num_clients: int
    round: int
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A server that has started, and what it is asked."""

    contender: Contender
    child: Child
    question: Question
    num_shared_tokens: int
    """Of each prompt, besides the words of the question."""
    first_tokens_per_s: float = 0.0
    """At its first answers, once what is slow only once is over."""

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

    def answer_first(self) -> float:
        """Let the server answer a few; return its tokens per second.

        Raises Absent where it does not answer as asked.
        """
        short = replace(self, question=replace(self.question, num_output_tokens=_NUM_FIRST_TOKENS))
        figures = short.take_turn(_FIRST, 0, random.SystemRandom().randrange(1 << 31)).figures
        if figures.num_answered < figures.num_requests:
            raise Absent(f"it does not answer as asked: {next(iter(figures.errors), 'refused')}")
        return figures.tokens_per_s

    async def _measure(self, load: Load) -> Figures:
        target = Target.parse(self.child.url)
        few_tokens = replace(load.question, num_output_tokens=_NUM_WAKING_TOKENS)
        await warm_up(target, replace(load, question=few_tokens))
        return await measure(target, load, self.child.pid)


@contextmanager
def start(
    family: Family, contender: Contender, words: tuple[str, ...], log: Path
) -> Iterator[Lane]:
    """Start a server and let it answer a few, since compilers and allocators are slow at first.

    Raises Absent or RuntimeError where it does not come so far.
    """
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
        lane.answer_first()
        best = max(lane.answer_first() for _ in range(_NUM_TRIES))
        yield replace(lane, first_tokens_per_s=best)
