"""Servers side by side under one family of loads: figures, the machine's bound, and ratios.

Ratios are of runs of the same round. The best peer is the best by that figure, so it may be
another one for each; whoever failed to answer a request as asked has no figures, and wins and loses
nothing.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ceilings import Work
from parts.contenders import OURS
from parts.families import Family
from parts.rounds import Rounds

from server.report import Figures, Percentiles, spread, table

_DISTURBED = 0.08
"""Of the cores: where others kept more of them busy, the figures are marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One of the figures that are compared."""

    name: str
    read: Callable[[Figures], float]
    is_more_better: bool = False


def _delay(delay: Percentiles | None) -> Percentiles:
    return delay or Percentiles(0.0, 0.0, 0.0, 0.0)


MEASURES = (
    Measure(name="tokens/s", read=lambda f: f.tokens_per_s, is_more_better=True),
    Measure(name="first token ms", read=lambda f: _delay(f.first_token_ms).p50),
    Measure(name="gap p99 ms", read=lambda f: _delay(f.gap_ms).p99),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server under one load: a value a round for each measure, by its name."""

    server: str
    values: dict[str, list[float]]
    of_bound: list[float]
    """Tokens per second by what the bound allowed in those minutes, a value a round."""
    other_cores: list[float]
    """Kept busy by others, a value a round: what disturbs."""
    problem: str | None
    """Why its figures do not count; then there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Ours by the best peer's, round by round."""

    measure: str
    peer: str
    values: list[float]
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All servers under one load."""

    num_clients: int
    num_requests: int
    bound_tokens_per_s: float
    """Median of all runs'."""
    rows: list[Row]
    ratios: list[Ratio]


_Bounded = tuple[Figures, float]
"""A run's figures, and the most tokens per second that the machine allowed."""


def compare(family: Family, work: Work, rounds: Rounds) -> list[Comparison]:
    """Put the runs of each load side by side."""
    comparisons = []
    for point in family.points:
        runs: dict[str, list[_Bounded]] = {}
        for run, ceiling in zip(rounds.runs, rounds.ceilings, strict=True):
            if run.num_clients == point.num_clients:
                bound = family.bound_tokens_per_s(point, work, ceiling)
                runs.setdefault(run.server, []).append((run.figures, bound))
        rows = [_row(server, own) for server, own in runs.items()]
        comparisons.append(
            Comparison(
                num_clients=point.num_clients,
                num_requests=point.num_requests,
                bound_tokens_per_s=statistics.median(
                    bound for own in runs.values() for _, bound in own
                ),
                rows=rows,
                ratios=_ratios(rows),
            )
        )
    return comparisons


def describe(comparisons: Sequence[Comparison]) -> str:
    """Write the figures as one table and the ratios as another."""
    names = [measure.name for measure in MEASURES]
    lines, ratios = [], []
    for comparison in comparisons:
        clients = str(comparison.num_clients)
        lines.append([clients, "bound", f"{comparison.bound_tokens_per_s:.1f}", "", "", "", ""])
        lines += [[clients, *_cells(row)] for row in comparison.rows]
        found = {r.measure: f"{spread(r.values, 2)} {r.peer}" for r in comparison.ratios}
        if found:
            ratios.append([clients, *(found.get(name, "-") for name in names)])
    head = ("clients", "server", *names, "of bound", "others")
    problems = [
        f"{row.server} with {comparison.num_clients} clients does not count: {row.problem}"
        for comparison in comparisons
        for row in comparison.rows
        if row.problem is not None
    ]
    told = [table(head, lines), *problems]
    if ratios:
        told += ["", table(("clients", *(f"{name}, by the best peer's" for name in names)), ratios)]
    return "\n".join(told)


def is_disturbed(comparison: Comparison) -> bool:
    """Tell whether anything else kept the processors busy."""
    most = max((cores for row in comparison.rows for cores in row.other_cores), default=0.0)
    return most > _DISTURBED * len(os.sched_getaffinity(0))


def _row(server: str, bounded: Sequence[_Bounded]) -> Row:
    figures = [found for found, _ in bounded]
    values = {m.name: [m.read(f) for f in figures] for m in MEASURES}
    problem = _problem(figures)
    return Row(
        server=server,
        values={} if problem else values,
        of_bound=[] if problem else [found.tokens_per_s / bound for found, bound in bounded],
        other_cores=[f.cpu.other_cores or 0.0 for f in figures],
        problem=problem,
    )


def _problem(figures: Sequence[Figures]) -> str | None:
    """Say what was wrong with the answers, if anything."""
    num_requests = sum(f.num_requests for f in figures)
    num_answered = sum(f.num_answered for f in figures)
    if num_answered == num_requests:
        return None
    errors = [error for f in figures for error in f.errors] or ["refused"]
    return f"{num_requests - num_answered} of {num_requests} requests failed: {errors[0]}"


def _ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Compare ours with the best peer of each measure; nothing where one of them is missing."""
    return [ratio for measure in MEASURES if (ratio := _ratio(rows, measure)) is not None]


def _ratio(rows: Sequence[Row], measure: Measure) -> Ratio | None:
    found = {row.server: row.values[measure.name] for row in rows if row.problem is None}
    # a gap of 0 is no small gap: all came in one read, so nothing was streamed, or seen of it
    good = {server: values for server, values in found.items() if min(values) > 0}
    ours = good.pop(OURS, None)
    if ours is None or not good:
        return None
    best = max if measure.is_more_better else min
    peer = best(good, key=lambda server: statistics.median(good[server]))
    values = [mine / theirs for mine, theirs in zip(ours, good[peer], strict=True)]
    return Ratio(measure=measure.name, peer=peer, values=values, median=statistics.median(values))


def _cells(row: Row) -> list[str]:
    if row.problem is not None:
        return [row.server, *(["-"] * (len(MEASURES) + 2))]
    values = [spread(row.values[m.name], 1) for m in MEASURES]
    return [row.server, *values, spread(row.of_bound, 2), f"{max(row.other_cores):.2f}"]
