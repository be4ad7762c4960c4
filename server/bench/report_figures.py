"""The plots of a sweep's report, each with what it shows in words and as a table.

Knows which figures a reader compares, not how lines are drawn.
"""

from collections.abc import Callable, Sequence
from html import escape

from server.bench.plots import (
    Axis,
    Series,
    format_number,
    legend,
    linear_axis,
    log_axis,
    plot,
    share_axis,
)
from server.bench.result import SHARES, Distribution, Level

_LEAST_MS = 0.01
"""What lies below is drawn at the left end of a plot: a logarithm has no 0."""
_SHOWN = (5, 25, 50, 75, 90, 99, 100)
"""Percentiles of the tables beneath the plots."""


def draw_figures(levels: Sequence[Level]) -> str:
    """Draw the section of plots; nothing where no request was answered."""
    answered = [level for level in levels if level.first_token_ms]
    if not answered:
        return ""
    figures = [_throughput(levels), _first_token(answered)]
    figures.append(
        _spread_figure(
            "first-token-spread",
            "How long the first token took",
            "milliseconds to the first token",
            answered,
            lambda level: level.first_token_ms,
        )
    )
    if any(level.gap_ms for level in answered):
        figures.append(
            _spread_figure(
                "gap-spread",
                "How evenly the tokens came",
                "milliseconds between tokens",
                [level for level in answered if level.gap_ms],
                lambda level: level.gap_ms,
            )
        )
    return f'<section><h2>Plots</h2><div class="plots">{"".join(figures)}</div></section>'


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table that scrolls by itself where the page is narrow."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def with_clients(level: Level) -> str:
    """Name a level within a sentence."""
    return "with one client" if level.num_clients == 1 else f"with {level.num_clients} clients"


def _throughput(levels: Sequence[Level]) -> str:
    points = tuple((float(level.num_clients), level.figures.tokens_per_s) for level in levels)
    title = "Tokens per second, by clients"
    told = "; ".join(
        f"{format_number(y)} tokens/s {with_clients(v)}"
        for v, (_, y) in zip(levels, points, strict=True)
    )
    drawing = plot(
        plot_id="throughput",
        title=title,
        description=f"{told}.",
        x=_clients_axis(levels),
        y=linear_axis("tokens per second", max(y for _, y in points)),
        series=[Series("tokens/s", points)],
        has_points=True,
    )
    rows = [
        [f"{level.num_clients}", format_number(y)]
        for level, (_, y) in zip(levels, points, strict=True)
    ]
    return _figure(
        title,
        "All clients together, over the whole run.",
        drawing,
        html_table("Tokens per second", ("clients", "tokens/s"), rows),
    )


def _first_token(levels: Sequence[Level]) -> str:
    shares = (("p50", 0.5), ("p99", 0.99))
    series = [
        Series(
            name, tuple((float(v.num_clients), _at_share(v.first_token_ms, share)) for v in levels)
        )
        for name, share in shares
    ]
    title = "First token, by clients"
    told = "; ".join(
        f"{format_number(series[0].points[at][1])} ms in the middle and "
        f"{format_number(series[1].points[at][1])} ms at p99 {with_clients(level)}"
        for at, level in enumerate(levels)
    )
    drawing = plot(
        plot_id="first-token",
        title=title,
        description=f"{told}.",
        x=_clients_axis(levels),
        y=linear_axis("milliseconds", max(y for line in series for _, y in line.points)),
        series=series,
        has_points=True,
    )
    rows = [
        [f"{level.num_clients}", *(format_number(line.points[at][1]) for line in series)]
        for at, level in enumerate(levels)
    ]
    return _figure(
        title,
        "The middle (p50) and what 99 of 100 stay below (p99).",
        drawing + legend([line.name for line in series]),
        html_table("Milliseconds to the first token", ("clients", "p50", "p99"), rows),
    )


def _spread_figure(
    plot_id: str,
    title: str,
    label: str,
    levels: Sequence[Level],
    read: Callable[[Level], Distribution],
) -> str:
    """Draw which share of all cases lies at or below each delay, a line a level."""
    series = [
        Series(_clients(level), tuple(zip(read(level), (100 * s for s in SHARES), strict=True)))
        for level in levels
    ]
    told = "; ".join(
        f"{_clients(level)}: half at or below {format_number(_at_share(read(level), 0.5))} ms, "
        f"all at or below {format_number(read(level)[-1])} ms"
        for level in levels
    )
    low = min(max(_at_share(read(level), 0.01), _LEAST_MS) for level in levels)
    high = max(max(read(level)[-1], _LEAST_MS) for level in levels)
    drawing = plot(
        plot_id=plot_id,
        title=title,
        description=f"{told}.",
        x=log_axis(label, low, high),
        y=share_axis("% at or below"),
        series=series,
        has_points=False,
    )
    rows = [
        [f"{level.num_clients}", *(format_number(_at_share(read(level), p / 100)) for p in _SHOWN)]
        for level in levels
    ]
    head = ("clients", *(f"p{p}" if p < 100 else "max" for p in _SHOWN))
    return _figure(
        title,
        "Each line: which share of all cases was at or below. Further left is faster, steeper is "
        "steadier.",
        drawing + legend([line.name for line in series]),
        html_table(label.capitalize(), head, rows),
    )


def _figure(title: str, text: str, drawing: str, table: str) -> str:
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3><p>{escape(text)}</p></figcaption>{drawing}"
        f"<details><summary>As a table</summary>{table}</details></figure>"
    )


def _clients_axis(levels: Sequence[Level]) -> Axis:
    """Mark each concurrency that was measured; doublings are equally far apart."""
    numbers = [float(level.num_clients) for level in levels]
    low, high = min(numbers), max(numbers)
    if low == high:
        low, high = low / 2, high * 2
    return Axis(label="clients at a time", low=low, high=high, ticks=tuple(numbers), is_log=True)


def _at_share(distribution: Distribution, share: float) -> float:
    return distribution[round(share * (len(distribution) - 1))]


def _clients(level: Level) -> str:
    return f"{level.num_clients} client" + "s" * (level.num_clients != 1)
