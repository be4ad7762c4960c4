"""A click command made from a table of options; its help comes in the table's sections.

Knows how click takes and shows options, not what any of them means.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import click

from engine import EngineConfig
from server.cli.option import Group, Option, Plan
from server.config import ServerConfig

CONFIGS: dict[str, Any] = {"server": ServerConfig, "engine": EngineConfig}
"""The configurations an option may set fields of."""


class TableCommand(click.Command):
    """A command whose values reach the callback by `Option.key`; None or () is "not given"."""

    def __init__(
        self, name: str, table: Iterable[Option], callback: Callable[..., Any], help: str
    ) -> None:
        self.groups = {option.key: option.group for option in table}
        super().__init__(
            name,
            # People and TGI's own documents write --max_input_tokens as well.
            context_settings={"token_normalize_func": _hyphens, "max_content_width": 100},
            callback=callback,
            params=[click_option(option) for option in table],
            help=help,
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a group, and click's own options last."""
        for group in (*Group, None):
            params = [p for p in self.get_params(ctx) if self.groups.get(p.name or "") is group]
            records = [record for p in params if (record := p.get_help_record(ctx))]
            if records:
                with formatter.section(group or "Other"):
                    formatter.write_dl(records)


def click_option(option: Option) -> click.Option:
    """Build click's option of a row."""
    name = f"{option.name}/{option.off}" if option.off else option.name
    return click.Option(
        [option.key, name, *filter(None, [option.short])],
        type=click.BOOL if option.kind is bool else option.kind,
        is_flag=option.kind is bool,
        multiple=option.is_repeatable,
        default=None,
        envvar=option.env or None,
        help=help_of(option),
    )


def help_of(option: Option) -> str:
    """Say what it does, what it is without, and where else it is read from."""
    effect = {
        Plan.IMPLEMENTED: "",
        Plan.ACCEPTED: f" No effect: {option.because}.",
        Plan.REFUSED: f" Refused: {option.because}.",
    }[option.plan]
    default = option.default or default_of(option)
    notes = [f"default: {default}"] if default is not None else []
    notes += [f"env: {', '.join(option.env)}"] if option.env else []
    return f"{option.help}{effect}" + (f"  [{'; '.join(notes)}]" if notes else "")


def default_of(option: Option) -> str | None:
    """Give the default of the first field it sets, as the help shows it."""
    for config, name in option.fields:
        default = {field.name: field.default for field in dataclasses.fields(CONFIGS[config])}[name]
        if isinstance(default, bool):
            return "on" if default else None
        return None if default in (None, (), dataclasses.MISSING) else f"{default}"
    return None


def _hyphens(name: str) -> str:
    return name.replace("_", "-")
