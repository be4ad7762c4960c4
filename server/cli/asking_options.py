"""The options that `generate`, `chat` and `bench` share; the names of sampling are TGI's."""

from collections.abc import Callable
from typing import Any

import click

from server.client.asking import Sampling

Command = Callable[..., None]

LOCAL_SERVER = "http://127.0.0.1:3000"
EXIT_CODES = """
\b
Exit codes: 0 whole answer, 1 refused or failed, 2 wrong command line, 3 no server
or connection cut, 4 no room (429), 130 Ctrl-C, 141 the output's reader has gone.
"""
_CONNECTION = (
    click.option(
        "--url",
        default=LOCAL_SERVER,
        show_default=True,
        help="The server; with /v1 at its end it speaks OpenAI.",
    ),
    click.option(
        "--key", envvar="MILLRACE_API_KEY", help="API key to send.  [env: MILLRACE_API_KEY]"
    ),
    click.option("--model", help="The model OpenAI's routes are asked for.  [default: the first]"),
)
_SAMPLING = (
    click.option("--max-new-tokens", type=click.IntRange(min=1), help="Most tokens to answer."),
    click.option("--temperature", type=float, help="How freely tokens are drawn."),
    click.option("--top-p", type=float, help="Draw from the likeliest, up to this share."),
    click.option("--top-k", type=int, help="Draw from so many of the likeliest."),
    click.option("--repetition-penalty", type=float, help="Above 1: repeat less."),
    click.option("--seed", type=int, help="Draw the same again."),
    click.option("--stop", multiple=True, help="Text that ends the answer; may be repeated."),
)


def connection_options(command: Command) -> Command:
    """Add `--url`, `--key` and `--model`."""
    return _add(_CONNECTION, command)


def sampling_options(command: Command) -> Command:
    """Add the options of `Sampling`."""
    return _add(_SAMPLING, command)


def read_sampling(values: dict[str, Any], max_new_tokens: int | None = None) -> Sampling:
    """Build `Sampling` from its options' values, with a default for the number of tokens."""
    most = values.pop("max_new_tokens")
    return Sampling(max_new_tokens=max_new_tokens if most is None else most, **values)


def _add(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
