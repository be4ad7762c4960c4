"""The report of a sweep as one HTML file: no script, nothing loaded from anywhere.

Knows how figures are shown to a reader, not how they were measured.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from server.bench.plots import format_number
from server.bench.report_figures import draw_figures, html_table, with_clients
from server.bench.result import BenchResult, Level, client_share
from server.report import Percentiles

_STYLE = Path(__file__).with_name("report.css")
_METHOD = """
<p>Each client asks again as soon as its last answer has ended. Every prompt has other words, so
that no cache helps. The load generator notes bytes and moments while the clock runs and reads them
only afterwards.</p>
<p><em>First token</em> is the time from sending a request to its first event that carries a token.
<em>Gap</em> is the time between two such events of one answer; it is 0 for those that came in one
read. <em>Tokens per second</em> counts the tokens of answered requests over the whole run, its
beginning and end included. p50, p90 and p99: so many per cent of all cases are at or below;
of fewer than a hundred cases p99 is nearly the slowest. <em>Own CPU</em> is the load generator's
share of one core.</p>
<p>An answer counts when its stream came to its end, with the tokens asked for, by the server's own
count and by its events. Everything else is a failure; 429 is a refusal and counted apart. Neither
is part of any figure of time.</p>
"""


def render(result: BenchResult) -> str:
    """Write the whole document."""
    model = result.server.model or "A model"
    title = f"{model} under load"
    style = _STYLE.read_text()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="millrace {escape(result.millrace)}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<p class="kind">Millrace bench</p>
<h1>{escape(title)}</h1>
<p>{escape(_subtitle(result))}</p>
</header>
{_headline(result.levels)}
{_notes(result)}
{draw_figures(result.levels)}
<section>
<h2>Figures</h2>
{_counts(result.levels)}
{_delays(result.levels)}
</section>
<section>
<h2>Conditions</h2>
{_facts(result)}
</section>
<section class="method">
<h2>How to read this</h2>
{_METHOD}</section>
</main>
</body>
</html>
"""


def _subtitle(result: BenchResult) -> str:
    asked = result.asked
    tokens = f"up to {asked.num_output_tokens}" if asked.may_stop else f"{asked.num_output_tokens}"
    clients = _join([f"{level.num_clients}" for level in result.levels])
    return (
        f"{clients} clients at a time, each asking for {tokens} tokens after a prompt of "
        f"{asked.num_prompt_words} words. Measured on {result.began_at[:10]} at "
        f"{result.began_at[11:16]} UTC."
    )


def _headline(levels: Sequence[Level]) -> str:
    """Show the few numbers that a reader looks for first."""
    best, last = max(levels, key=lambda level: level.figures.tokens_per_s), levels[-1]
    facts = [("highest throughput,", best, best.figures.tokens_per_s, "tokens/s")]
    for level in (levels[0], *levels[1:][-1:]):
        if (delay := level.figures.first_token_ms) is not None:
            facts.append(("median first token", level, delay.p50, "ms"))
    if (gap := last.figures.gap_ms) is not None:
        facts.append(("gap between tokens at p99", last, gap.p99, "ms"))
    items = [
        f"<div><dt>{text} {with_clients(level)}</dt>"
        f"<dd>{format_number(number)} <small>{unit}</small></dd></div>"
        for text, level, number, unit in facts
    ]
    return f'<dl class="headline">{"".join(items)}</dl>'


def _notes(result: BenchResult) -> str:
    if result.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
        return (
            '<div class="notes" role="note"><h2>Mind, when you read these figures</h2>'
            f"<ul>{items}</ul></div>"
        )
    num = sum(level.figures.num_requests for level in result.levels)
    most = max(client_share(level.figures.cpu) for level in result.levels)
    return (
        f'<div class="notes good" role="note"><p>All {num} requests were answered as asked. The '
        f"load generator took at most {100 * most:.0f} % of a core.</p></div>"
    )


def _counts(levels: Sequence[Level]) -> str:
    head = ("clients", "tokens/s", "answers/s", "answered", "short", "refused", "failed", "own CPU")
    rows = [
        [
            f"{level.num_clients}",
            format_number(level.figures.tokens_per_s),
            format_number(level.figures.requests_per_s),
            f"{level.figures.num_answered} of {level.figures.num_requests}",
            f"{level.num_short}",
            f"{level.figures.num_refused}",
            f"{level.figures.num_failed}",
            f"{100 * client_share(level.figures.cpu):.0f} %",
        ]
        for level in levels
    ]
    return html_table("Answers", head, rows)


def _delays(levels: Sequence[Level]) -> str:
    kinds = ("first token", "gap", "whole answer")
    head = ("clients", *(name for kind in kinds for name in (f"{kind} p50", "p90", "p99", "max")))
    rows = []
    for level in levels:
        run = level.figures
        delays = (run.first_token_ms, run.gap_ms, run.whole_ms)
        rows.append([f"{level.num_clients}", *(cell for delay in delays for cell in _cells(delay))])
    return html_table("Times, in milliseconds", head, rows)


def _cells(delay: Percentiles | None) -> list[str]:
    if delay is None:
        return ["-"] * 4
    return [format_number(value) for value in (delay.p50, delay.p90, delay.p99, delay.max)]


def _facts(result: BenchResult) -> str:
    server, asked, machine = result.server, result.asked, result.machine
    tokens = "at most, it may stop before" if asked.may_stop else "exactly"
    dtype = (server.dtype or "").removeprefix("torch.")
    told = [server.model, dtype, server.device and f"on {server.device}", server.version]
    facts = {
        "Command": f"<code>{escape(result.command)}</code>",
        "Began": escape(result.began_at),
        "Server": f"<code>{escape(server.url)}</code>",
        "It says it is": escape(", ".join(filter(None, told)) or "nothing of itself"),
        "Each request": f"{asked.num_prompt_words} words, {asked.num_output_tokens} tokens "
        f"{tokens}, greedy, by the route of {escape(asked.dialect)}, seed {asked.seed}",
        "Load generator": f"Millrace {escape(result.millrace)}, Python {escape(machine.python)}",
        "Its machine": escape(f"{machine.num_cores} cores of {machine.cpu}, {machine.system}"),
    }
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
