"""Figures: what a load measured, and how it is written down. Knows nothing of how it was measured.

Delays are milliseconds. From when they count: a request of an open loop from the moment it was due,
so a server or a client that stalls is not forgiven; one of a closed loop from its sending.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from server.cpu import CpuUse
from server.question import Ending, Outcome


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How a delay is spread over its cases, in milliseconds."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Percentiles | None":
        """Rank the cases; None where there are none."""
        ranked = sorted(seconds)
        if not ranked:
            return None
        return cls(*(round(percentile(ranked, share) * 1e3, 3) for share in (0.5, 0.9, 0.99, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run of a load."""

    num_requests: int
    num_answered: int
    num_refused: int
    num_failed: int
    errors: dict[str, int]
    """What the failed ones failed of, and how often."""
    num_tokens: int
    """Of the answered ones, by the server's count and the events."""
    prompt_tokens: tuple[int, int] | None
    """The shortest and the longest prompt, by the server's count."""
    wall_s: float
    tokens_per_s: float
    """Over the whole run, beginning and end included."""
    requests_per_s: float
    """Answered ones."""
    first_token_ms: Percentiles | None
    gap_ms: Percentiles | None
    """Between one event with a token and the next; 0 for those that came in one read."""
    per_token_ms: Percentiles | None
    """One value a request: from its first token to its last, by the tokens after the first."""
    whole_ms: Percentiles | None
    """Until the last byte."""
    sent_late_ms: float
    """The most by which the client itself sent later than due."""
    cpu: CpuUse


def figures_of(outcomes: Sequence[Outcome], cpu: CpuUse) -> Figures:
    """Add up what became of all requests of one run."""
    endings = Counter(outcome.ending for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.ending is Ending.ANSWERED]
    prompts = [outcome.num_prompt_tokens for outcome in answered]
    num_tokens = sum(outcome.num_tokens for outcome in answered)
    several = [outcome for outcome in answered if outcome.num_tokens > 1]
    gaps = (b - a for outcome in answered for a, b in pairwise(outcome.token_times))
    return Figures(
        num_requests=len(outcomes),
        num_answered=endings[Ending.ANSWERED],
        num_refused=endings[Ending.REFUSED],
        num_failed=endings[Ending.FAILED],
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
        num_tokens=num_tokens,
        prompt_tokens=(min(prompts), max(prompts)) if prompts else None,
        wall_s=cpu.wall_s,
        tokens_per_s=num_tokens / cpu.wall_s,
        requests_per_s=len(answered) / cpu.wall_s,
        first_token_ms=Percentiles.of(o.token_times[0] - o.due for o in answered),
        gap_ms=Percentiles.of(gaps),
        per_token_ms=Percentiles.of(
            (o.token_times[-1] - o.token_times[0]) / (o.num_tokens - 1) for o in several
        ),
        whole_ms=Percentiles.of(o.end - o.due for o in answered),
        sent_late_ms=max(((o.sent - o.due) * 1e3 for o in outcomes), default=0.0),
        cpu=cpu,
    )


def percentile(ranked: Sequence[float], share: float) -> float:
    """Take the value below which that share of the sorted values lies, between two if need be."""
    place = (len(ranked) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def describe(runs: Sequence[Figures]) -> str:
    """Write runs of the same load as tables: medians, and in brackets the least and the most."""
    counts = table(
        ("tokens/s", "requests/s", "answered", "refused", "failed", "wall s", "prompt tokens"),
        [
            [
                spread([run.tokens_per_s for run in runs], 1),
                spread([run.requests_per_s for run in runs], 2),
                spread([run.num_answered for run in runs], 0),
                spread([run.num_refused for run in runs], 0),
                spread([run.num_failed for run in runs], 0),
                spread([run.wall_s for run in runs], 2),
                _range([n for run in runs for n in run.prompt_tokens or ()]),
            ]
        ],
    )
    delays: tuple[tuple[str, Callable[[Figures], Percentiles | None]], ...] = (
        ("first token", lambda run: run.first_token_ms),
        ("gap between tokens", lambda run: run.gap_ms),
        ("time per token", lambda run: run.per_token_ms),
        ("whole answer", lambda run: run.whole_ms),
    )
    rows = [
        [name, *(_delay(runs, read, share) for share in ("p50", "p90", "p99", "max"))]
        for name, read in delays
    ]
    errors = sum((Counter(run.errors) for run in runs), Counter[str]())
    lines = [f"{count} x {error}" for error, count in errors.most_common()]
    milliseconds = table(("milliseconds", "p50", "p90", "p99", "max"), rows)
    return "\n".join([counts, "", milliseconds, "", describe_cpu([r.cpu for r in runs]), *lines])


def describe_cpu(uses: Sequence[CpuUse]) -> str:
    """Say in one line who used the processors, the others last: they disturb."""
    server = [use.server_s for use in uses if use.server_s is not None]
    others = [use.other_cores for use in uses if use.other_cores is not None]
    parts = [f"client {spread([use.own_s for use in uses], 2)} s"]
    parts += [f"server {spread(server, 2)} s"] if server else []
    parts += [f"others {spread(others, 2)} cores"] if others else ["others unknown"]
    return "processor: " + ", ".join(parts)


def spread(values: Sequence[float], digits: int) -> str:
    """Write a median, and the least and the most where they differ from it."""
    if not values:
        return "-"
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if least == most else f"{middle} ({least}-{most})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write columns: the first to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def to_json(value: Any) -> str:
    """Write a result for a file: dataclasses as objects, indented."""
    return json.dumps(value, default=asdict, indent=1) + "\n"


def _delay(
    runs: Sequence[Figures], read: Callable[[Figures], Percentiles | None], share: str
) -> str:
    found = [read(run) for run in runs]
    return spread([getattr(delay, share) for delay in found if delay is not None], 1)


def _range(values: Sequence[int]) -> str:
    if not values:
        return "-"
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)}-{max(values)}"
