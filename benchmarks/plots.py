"""Draws what `peers.py` and `pace.py` measured: pictures beside the file of results.

    python benchmarks/plots.py benchmarks/results/peers.json
    python benchmarks/plots.py benchmarks/results/pace.json

Prints the summary that goes into the README, in Markdown, with the pictures.
"""

import json
import statistics
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from parts.contenders import KINDS, OURS
from parts.side_by_side import MEASURES

from server.bench.plots import Axis, Series, format_number, log_axis, plot
from server.report import spread

_WIDTH, _HEIGHT = 960, 330
_PANEL, _LEFT, _TOP, _BOTTOM = _WIDTH / len(MEASURES), 50, 34, 78
_MARKS: tuple[str, ...] = (
    "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6L6 0L0 6L-6 0Z",
)
_MARKS += ("M0-6L6 5H-6Z", "M0 6L6-5H-6Z")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #53626c; } .m { text-anchor: middle; }
.e { text-anchor: end; } .grid { stroke: #d9e0e3; } .axis { stroke: #53626c; } path { fill: none; }
.bound { stroke: #16212a; stroke-width: 2; stroke-dasharray: 5 3; } .whisker { stroke-width: 2; }
.s0 { --c: #0b6b7d; } .s1 { --c: #b45309; } .s2 { --c: #6d28d9; } .s3 { --c: #15803d; }
.s4 { --c: #be185d; } .mark { fill: var(--c); } .whisker { stroke: var(--c); }
@media (prefers-color-scheme: dark) {
  text { fill: #9fb0ba; } .grid { stroke: #2a3841; } .axis { stroke: #9fb0ba; }
  .bound { stroke: #e5ecef; } .s0 { --c: #5fc6d8; } .s1 { --c: #fbbf24; } .s2 { --c: #b9a3ff; }
  .s3 { --c: #6ee7a0; } .s4 { --c: #f58ac0; }
}
"""

_PACE_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #53626c; } .x { text-anchor: middle; }
.y { text-anchor: end; } path { fill: none; } .grid { stroke: #d9e0e3; } .point { fill: #0b6b7d; }
.axis, .tick { stroke: #53626c; } .line { stroke: #0b6b7d; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #9fb0ba; } .grid { stroke: #2a3841; } .axis, .tick { stroke: #9fb0ba; }
  .line { stroke: #5fc6d8; } .point { fill: #5fc6d8; }
}
</style>"""

_SERVERS = list(KINDS)
"""In the order of their colours and marks."""
Json = dict[str, Any]
"""As `peers.py` writes its dataclasses."""


def draw(family: Json) -> str:
    """Draw a family as an SVG file of its own: a panel a measure, a mark a server and load."""
    comparisons = family["comparisons"]
    servers = [name for name in _SERVERS if _has(comparisons, name)]
    panels = [
        _panel(at * _PANEL, measure.name, comparisons, servers)
        for at, measure in enumerate(MEASURES)
    ]
    title = family["family"]["title"]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="title text"><title id="title">{escape(title)}</title>'
        f'<desc id="text">{escape(_told(comparisons))}</desc><style>{_STYLE}</style>\n'
        f"{''.join(panels)}{_legend(servers)}</svg>\n"
    )


def summarise(family: Json, picture: str) -> str:
    """Write the ratios in Markdown, with the picture."""
    lengths, servers = family["family"], family["servers"]
    shared = lengths["num_shared_tokens"]
    told = f"{lengths['num_prompt_tokens']} tokens in{f' ({shared} shared)' if shared else ''}"
    names = " | ".join(f"{measure.name}, ratio" for measure in MEASURES)
    lines = [
        f"### {lengths['title']}: {told}, {lengths['num_output_tokens']} out",
        "",
        f"![{lengths['title']}: tokens per second, first token and gap, by clients]({picture})",
        "",
        f"| clients | tokens/s | of the bound | {names} |",
        f"| --- | --- | --- |{' --- |' * len(MEASURES)}",
        *map(_summary_row, family["comparisons"]),
        "",
        "; ".join(f"{name} {version}" for name, version in servers.items()) + ".",
    ]
    missing = [f"{name} is missing: {reason}." for name, reason in family["missing"].items()]
    return "\n".join([*lines, *missing, ""])


def draw_pace(options: dict[str, list[Json]]) -> str:
    """Draw what the option's values cost: the others' gaps against the newcomer's first token."""
    gaps = [_median(rounds, "ratio") for rounds in options.values()]
    firsts = [_median(rounds, "first_token_ms") / 1e3 for rounds in options.values()]
    told = "; ".join(
        f"{option}: {gap:.2f} times and {first:.1f} s"
        for option, gap, first in zip(options, gaps, firsts, strict=True)
    )
    drawn = plot(
        plot_id="pace",
        title="What a long prompt costs others, and they it, by --max-inter-token-latency",
        description=f"Gap p99 by the quiet gap, and the newcomer's first token: {told}.",
        x=log_axis("the others' gap p99, in quiet gaps (log)", min(gaps) / 1.2, max(gaps) * 1.2),
        y=log_axis("the newcomer's first token, s (log)", min(firsts) / 1.2, max(firsts) * 1.2),
        series=[Series("options", tuple(sorted(zip(gaps, firsts, strict=True))))],
        has_points=True,
    )
    of_its_own = '<svg xmlns="http://www.w3.org/2000/svg" '
    return drawn.replace("<svg ", of_its_own, 1).replace("<title", f"{_PACE_STYLE}<title", 1) + "\n"


def summarise_pace(options: dict[str, list[Json]], picture: str) -> str:
    """Write the values in Markdown, with the picture."""
    lines = [
        f"![first token of a long prompt against the others' gaps]({picture})",
        "",
        "| `--max-inter-token-latency`, in quiet gaps | quiet gap ms | gap p50 ms | gap p99 ms | "
        "p99 by quiet | first token of the newcomer ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for option, rounds in options.items():
        quiet, p50, p99, first = (
            _median(rounds, name)
            for name in ("quiet_ms", "gap_p50_ms", "gap_p99_ms", "first_token_ms")
        )
        ratios = spread([item["ratio"] for item in rounds], 2)
        lines.append(
            f"| {option} | {quiet:.1f} | {p50:.1f} | {p99:.1f} | {ratios} | {first:,.0f} |"
        )
    return "\n".join([*lines, ""])


def _median(rounds: Sequence[Json], name: str) -> float:
    return float(statistics.median(item[name] for item in rounds))


def _summary_row(comparison: Json) -> str:
    ours = next((row for row in comparison["rows"] if row["server"] == OURS), None)
    if ours is None or ours["problem"]:
        return f"| {comparison['num_clients']} | - | - |{' - |' * len(MEASURES)}"
    ratios = {ratio["measure"]: ratio for ratio in comparison["ratios"]}
    cells = [_ratio_cell(ratios.get(measure.name)) for measure in MEASURES]
    rate = statistics.median(ours["values"][MEASURES[0].name])
    return (
        f"| {comparison['num_clients']} | {format_number(rate)} | {spread(ours['of_bound'], 2)} | "
        f"{' | '.join(cells)} |"
    )


def _ratio_cell(ratio: Json | None) -> str:
    if ratio is None:
        return "-"
    low, high = min(ratio["values"]), max(ratio["values"])
    return f"{ratio['median']:.2f} ({low:.2f}-{high:.2f}) {ratio['peer']}"


def _panel(left: float, measure: str, comparisons: Sequence[Json], servers: list[str]) -> str:
    """Draw one measure: a group a load, in it a mark a server, with its least and most."""
    bounds = [c["bound_tokens_per_s"] for c in comparisons] if measure == MEASURES[0].name else []
    shown = [v for c in comparisons for row in c["rows"] for v in row["values"].get(measure, ())]
    shown = [value for value in [*shown, *bounds] if value > 0]
    if not shown:
        return ""
    axis = log_axis(measure, min(shown) / 1.2, max(shown) * 1.2)
    start, width = left + _LEFT, (_PANEL - _LEFT - 10) / len(comparisons)
    parts = [f'<text x="{left + 4:.0f}" y="16">{escape(measure)}, by clients (log)</text>']
    parts += [_tick(tick, axis, start, left + _PANEL - 10) for tick in axis.ticks]
    for at, comparison in enumerate(comparisons):
        place = start + at * width
        middle, foot = place + width / 2, _HEIGHT - _BOTTOM + 20
        parts.append(
            f'<text class="m" x="{middle:.1f}" y="{foot}">{comparison["num_clients"]}</text>'
        )
        if bounds:
            y = _y(axis, bounds[at])
            parts.append(
                f'<path class="bound" d="M{place + 4:.1f} {y:.1f}H{place + width - 4:.1f}"/>'
            )
        for row in comparison["rows"]:
            x = place + (servers.index(row["server"]) + 1) * width / (len(servers) + 1)
            parts.append(_mark(x, axis, row, measure))
    return f"<g>{''.join(parts)}</g>\n"


def _tick(value: float, axis: Axis, left: float, right: float) -> str:
    y = _y(axis, value)
    return (
        f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
        f'<text class="e" x="{left - 6:.1f}" y="{y + 4:.1f}">{format_number(value)}</text>'
    )


def _mark(x: float, axis: Axis, row: Json, measure: str) -> str:
    values = row["values"].get(measure)
    if not values:
        return ""
    low, high, y = (_y(axis, f(values)) for f in (min, max, statistics.median))
    number = _SERVERS.index(row["server"])
    told = f"{row['server']}: {format_number(statistics.median(values))}"
    return (
        f'<g class="s{number}"><title>{escape(told)}</title>'
        f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
        f'<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{_MARKS[number]}"/></g>'
    )


def _has(comparisons: Sequence[Json], server: str) -> bool:
    return any(row["server"] == server for c in comparisons for row in c["rows"])


def _legend(servers: Sequence[str]) -> str:
    y = _HEIGHT - 20
    parts = []
    for at, server in enumerate(servers):
        x, number = 60 + 140 * at, _SERVERS.index(server)
        parts.append(
            f'<g class="s{number}"><path class="mark" transform="translate({x} {y - 4})" '
            f'd="{_MARKS[number]}"/></g><text x="{x + 12}" y="{y}">{escape(server)}</text>'
        )
    x = 60 + 140 * len(servers)
    parts.append(f'<path class="bound" d="M{x - 14} {y - 4}h26"/>')
    parts.append(f'<text x="{x + 18}" y="{y}">the machine\'s bound</text>')
    return f"<g>{''.join(parts)}</g>"


def _told(comparisons: Sequence[Json]) -> str:
    """Say in words what the first panel shows."""
    name = MEASURES[0].name
    loads = []
    for comparison in comparisons:
        rates = [
            f"{row['server']} {format_number(statistics.median(row['values'][name]))}"
            for row in comparison["rows"]
            if row["values"]
        ]
        clients = f"{comparison['num_clients']} at a time"
        bound = format_number(comparison["bound_tokens_per_s"])
        loads.append(f"{clients}: {', '.join(rates)}, bound {bound}")
    return f"Tokens per second with clients {'; '.join(loads)}."


def _y(axis: Axis, value: float) -> float:
    return _TOP + (1 - axis.place(value)) * (_HEIGHT - _TOP - _BOTTOM)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("result", type=Path, help="a file that peers.py or pace.py has written")
    args = parser.parse_args()
    result = json.loads(args.result.read_text())
    if "rounds" in result:
        options: dict[str, list[Json]] = {}
        for item in result["rounds"]:
            options.setdefault(item["option"], []).append(item)
        picture = args.result.with_suffix(".svg")
        picture.write_text(draw_pace(options), encoding="utf-8")
        print(summarise_pace(options, f"results/{picture.name}"))
        return
    measured = [family for family in result.get("families", ()) if "comparisons" in family]
    if not measured:
        sys.exit(f"{args.result} has no loads that were measured")
    for family in measured:
        picture = args.result.with_name(f"{args.result.stem}-{family['name']}.svg")
        picture.write_text(draw(family), encoding="utf-8")
        print(summarise(family, f"results/{picture.name}"))


if __name__ == "__main__":
    main()
