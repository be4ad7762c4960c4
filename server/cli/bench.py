"""`millrace bench`: a load on a server, watched while it runs; as a table, as JSON, as HTML."""

import os
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from server.bench.html_report import render
from server.bench.live_view import LiveView
from server.bench.plan import Plan
from server.bench.result import (
    BenchResult,
    Level,
    asked_of,
    client_share,
    notes_on,
    this_machine,
)
from server.cli.asking_options import connection_options
from server.cli.terminal import leaving_in_words, say
from server.client.asking import full_url
from server.client.failure import ExitCode
from server.loadgen import Target
from server.question import Dialect, Question
from server.report import Percentiles, table, to_json

_MAX_SEED = 2**31


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers above 0 with commas between them, each once, the least first."""

    name = "n,n,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read them."""
        words = str(value).split(",")
        if not all(word.strip().isdigit() and int(word) > 0 for word in words):
            self.fail(f"must be numbers above 0, as 1,4,16. Given: {value}", param, ctx)
        return tuple(sorted({int(word) for word in words}))


def _check_folder(
    context: click.Context, option: click.Parameter, path: Path | None
) -> Path | None:
    """See before the load that its result can be written after it."""
    if path is not None and not os.access(path.parent, os.W_OK):
        raise click.BadParameter(f"cannot write into {path.parent}")
    return path


_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(
    context_settings={"max_content_width": 100},
    help="""Measure a server under load, at several numbers of clients one after the other.

    Each client asks again as soon as its last answer has ended. What is wanted of an answer is
    checked: one that is cut, short or wrongly counted has failed.
    """,
    epilog="""
\b
Exit codes: 0 all answered, 1 some failed or were refused, 2 wrong command line, 3 no server,
130 Ctrl-C; what was measured till then is still written.
""",
)
@connection_options
@click.option(
    "--dialect",
    type=click.Choice(["auto", *(dialect.value for dialect in Dialect)]),
    default="auto",
    show_default=True,
    help="auto: TGI where /info answers as TGI's does, else OpenAI's completions.",
)
@click.option(
    "--clients",
    type=Counts(),
    default="1,4,16",
    show_default=True,
    help="How many ask at a time, level by level.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Of each level; at least two a client.",
)
@click.option(
    "--prompt",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Words of each prompt.",
)
@click.option(
    "--output",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Tokens of each answer.",
)
@click.option("--may-stop", is_flag=True, help="Let answers be shorter than asked for.")
@click.option("--seed", type=int, help="Ask with the same prompts again.  [default: drawn]")
@click.option(
    "--timeout", type=float, default=300.0, show_default=True, help="Seconds for one answer."
)
@click.option("--json", "json_path", type=_FILE, callback=_check_folder, help="Write the result.")
@click.option("--html", "html_path", type=_FILE, callback=_check_folder, help="Write a report.")
def bench(
    url: str,
    key: str | None,
    model: str | None,
    dialect: str,
    clients: tuple[int, ...],
    requests: int,
    prompt: int,
    output: int,
    may_stop: bool,
    seed: int | None,
    timeout: float,
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Run the command."""
    plan = Plan(
        url=full_url(url),
        key=key,
        model=model,
        dialect=None if dialect == "auto" else Dialect(dialect),
        question=Question(
            num_prompt_words=prompt, num_output_tokens=output, ignore_eos=not may_stop
        ),
        num_clients=clients,
        num_requests=requests,
        seed=secrets.randbelow(_MAX_SEED) if seed is None else seed,
        timeout_s=timeout,
    )
    with leaving_in_words():
        result = _measure(plan)
        click.echo(_result_table(result.levels))
        for note in result.notes:
            say(note)
        if json_path is not None:
            json_path.write_text(to_json(result))
        if html_path is not None:
            html_path.write_text(render(result), encoding="utf-8")
        if not result.is_complete:
            sys.exit(ExitCode.INTERRUPTED)
        sys.exit(ExitCode.ANSWERED if result.is_answered else ExitCode.FAILED)


def _measure(plan: Plan) -> BenchResult:
    """Run the sweep; Ctrl-C keeps the levels that were measured, and is passed on without one."""
    import uvloop  # these take their time

    from server.bench.sweep import find_server, run_levels

    try:
        target = Target.parse(plan.url.removesuffix("/v1"), plan.key)
    except ValueError as error:
        raise click.UsageError(f"{error}. The load generator speaks plain HTTP") from error
    began_at = datetime.now(UTC)
    server, question = uvloop.run(find_server(plan))
    view = LiveView(sys.stderr, is_terminal=_can_redraw())
    levels: list[Level] = []

    def found(level: Level) -> None:
        levels.append(level)
        view.say(_level_line(level))

    is_complete = False
    try:
        uvloop.run(run_levels(target, plan, question, view, found))
        is_complete = True
    except KeyboardInterrupt:
        if not levels:
            raise
    machine = this_machine()
    return BenchResult(
        millrace=version("millrace"),
        command=_without_secrets(sys.argv[1:]),
        began_at=began_at.isoformat(timespec="seconds"),
        is_complete=is_complete,
        machine=machine,
        server=server,
        asked=asked_of(question, plan.seed),
        levels=tuple(levels),
        notes=notes_on(levels, machine, is_complete=is_complete),
    )


def _can_redraw() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _level_line(level: Level) -> str:
    run = level.figures
    return (
        f"{level.num_clients:>5} at a time: {run.tokens_per_s:.1f} tokens/s, "
        f"{run.num_answered} answered, {run.num_refused} refused, {run.num_failed} failed"
    )


def _result_table(levels: Sequence[Level]) -> str:
    head = (
        *("clients", "tokens/s", "answers/s", "answered", "short", "refused", "failed"),
        *("first token p50", "p99", "gap p50", "p99 ms", "client CPU"),
    )
    rows = []
    for level in levels:
        run = level.figures
        rows.append(
            [
                f"{level.num_clients}",
                f"{run.tokens_per_s:.1f}",
                f"{run.requests_per_s:.2f}",
                *(f"{n}" for n in (run.num_answered, level.num_short)),
                *(f"{n}" for n in (run.num_refused, run.num_failed)),
                *_delays(run.first_token_ms),
                *_delays(run.gap_ms),
                f"{100 * client_share(run.cpu):.0f} %",
            ]
        )
    return table(head, rows)


def _delays(delay: Percentiles | None) -> tuple[str, str]:
    return ("-", "-") if delay is None else (f"{delay.p50:.1f}", f"{delay.p99:.1f}")


def _without_secrets(words: Sequence[str]) -> str:
    """Write the command line without a key, and without a password in the address."""
    shown = [
        "***" if before == "--key" else re.sub(r"^--key=.*", "--key=***", word, flags=re.DOTALL)
        for before, word in pairwise(["millrace", *words])
    ]
    return re.sub(r"//[^/@\s]+@", "//", shlex.join(["millrace", *shown]))
