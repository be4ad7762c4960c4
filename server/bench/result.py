"""BenchResult: what a sweep found, as it is written to JSON, and what a reader must be told of it.

Knows neither how it was measured nor how it is drawn.
"""

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from server.cpu import CpuUse
from server.question import Ending, Outcome, Question
from server.report import Figures, figures_of, percentile

SHARES = tuple(step / 200 for step in range(201))
"""Of which percentiles a distribution is kept: every half of one."""
BUSY_CLIENT = 0.9
"""From this share of a core on, the load generator itself may have been the limit."""
_BUSY_MACHINE = 0.95

Distribution = tuple[float, ...]
"""The values below which `SHARES` of all cases lie, in milliseconds; empty without a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the load generator ran."""

    cpu: str
    num_cores: int
    """That this process may use."""
    system: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One concurrency."""

    num_clients: int
    figures: Figures
    num_short: int
    """Answered with fewer tokens than asked for, where that is allowed."""
    first_token_ms: Distribution
    gap_ms: Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What each request asked for."""

    dialect: str
    model: str
    num_prompt_words: int
    num_output_tokens: int
    may_stop: bool
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server told of itself; None where it did not."""

    url: str
    model: str | None
    device: str | None
    dtype: str | None
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A whole sweep, or as much of it as was measured."""

    millrace: str
    """The version that measured."""
    command: str
    began_at: str
    """In UTC, as ISO 8601."""
    is_complete: bool
    machine: Machine
    server: ServerFacts
    asked: Asked
    levels: tuple[Level, ...]
    notes: tuple[str, ...]
    """What lessens the worth of the figures."""

    @property
    def is_answered(self) -> bool:
        """Tell whether every request of every level was answered as asked."""
        return self.is_complete and all(
            level.figures.num_answered == level.figures.num_requests for level in self.levels
        )


def level_of(
    num_clients: int, outcomes: Sequence[Outcome], cpu: CpuUse, num_output_tokens: int
) -> Level:
    """Add up one run; after the clock has stopped."""
    answered = [outcome for outcome in outcomes if outcome.ending is Ending.ANSWERED]
    return Level(
        num_clients=num_clients,
        figures=figures_of(outcomes, cpu),
        num_short=sum(outcome.num_tokens < num_output_tokens for outcome in answered),
        first_token_ms=_distribution(o.token_times[0] - o.due for o in answered),
        gap_ms=_distribution(b - a for o in answered for a, b in pairwise(o.token_times)),
    )


def asked_of(question: Question, seed: int) -> Asked:
    """Name what each request asks for."""
    return Asked(
        dialect=question.dialect,
        model=question.model,
        num_prompt_words=question.num_prompt_words,
        num_output_tokens=question.num_output_tokens,
        may_stop=not question.ignore_eos,
        seed=seed,
    )


def notes_on(levels: Sequence[Level], machine: Machine, *, is_complete: bool) -> tuple[str, ...]:
    """Say what a reader of the figures must know, the gravest first."""
    notes = [] if is_complete else ["The sweep was cut short: later levels are missing."]
    for level in levels:
        clients = f"{level.num_clients} client" + "s" * (level.num_clients != 1)
        notes += [f"With {clients}, {sentence}" for sentence in _notes_on(level, machine)]
    return tuple(notes)


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return Machine(
        cpu=_cpu_name(),
        num_cores=len(cores) if cores else os.cpu_count() or 1,
        system=platform.platform(terse=True),
        python=platform.python_version(),
    )


def client_share(cpu: CpuUse) -> float:
    """Give the share of one core that the load generator took."""
    return cpu.own_s / cpu.wall_s


def _distribution(seconds: Iterable[float]) -> Distribution:
    ranked = sorted(seconds)
    if not ranked:
        return ()
    return tuple(round(percentile(ranked, share) * 1e3, 3) for share in SHARES)


def _notes_on(level: Level, machine: Machine) -> list[str]:
    figures, cpu = level.figures, level.figures.cpu
    notes = []
    if figures.num_failed:
        reasons = "; ".join(f"{count} x {error}" for error, count in figures.errors.items())
        notes.append(f"{figures.num_failed} of {figures.num_requests} requests failed: {reasons}")
    if figures.num_refused:
        notes.append(
            f"{figures.num_refused} of {figures.num_requests} requests were refused (429) and "
            "count in no figure of time."
        )
    if level.num_short:
        notes.append(f"{level.num_short} answers ended before they had all tokens asked for.")
    if client_share(cpu) >= BUSY_CLIENT:
        notes.append(
            f"the load generator itself kept {100 * client_share(cpu):.0f} % of a core busy: it "
            "may have been the limit, and the server may be faster than these figures."
        )
    elif _is_machine_full(cpu, machine):
        notes.append(
            f"all {machine.num_cores} cores of this machine were busy: if the server runs here "
            f"too, the load generator took {100 * client_share(cpu):.0f} % of a core from it."
        )
    return notes


def _is_machine_full(cpu: CpuUse, machine: Machine) -> bool:
    others = cpu.other_cores or 0.0
    return others + client_share(cpu) >= _BUSY_MACHINE * machine.num_cores


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
