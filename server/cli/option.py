"""Option: one row of the table of options; Plan, Group and the kinds that click lacks.

Knows how an option is named and what it sets, not which options there are.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import click

from engine import AdapterSource


class Plan(StrEnum):
    """What we do with an option."""

    IMPLEMENTED = "implemented"
    ACCEPTED = "accepted"
    """Without effect, said in one line: it changes neither text, memory nor devices."""
    REFUSED = "refused"
    """In a sentence, but at values that ask for what is so anyway."""


class Group(StrEnum):
    """A section of the help."""

    MODEL = "Model"
    LIMITS = "Limits"
    BATCHING = "Batching and memory"
    NETWORK = "Network"
    SECURITY = "Security"
    LOGS = "Logs and shutdown"
    TGI = "TGI compatibility"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str
    kind: Any
    """A click type; `bool` is a flag without a value, `click.BOOL` takes true or false."""
    sets: str
    """The fields it sets, as `server.port` or `engine.model`; their default is its default."""
    help: str
    group: Group = Group.TGI
    plan: Plan = Plan.IMPLEMENTED
    because: str = ""
    """Accepted: why it has no effect. Refused: why, and what to do instead."""
    harmless: tuple[Any, ...] = ()
    """Values of an accepted or refused option that are taken in silence."""
    default: str | None = None
    """How the help puts the default where the fields have none."""
    short: str | None = None
    off: str | None = None
    """The name that says no to a flag."""
    is_repeatable: bool = False
    has_env: bool = True
    more_env: tuple[str, ...] = ()
    """Further environment names; the first name that is set counts."""

    @property
    def key(self) -> str:
        """The name under which its value is handed on."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def env(self) -> tuple[str, ...]:
        """The environment names it reads."""
        return (self.key.upper(), *self.more_env) if self.has_env else ()

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """What it sets, as pairs of configuration (`server` or `engine`) and field."""
        pairs = (path.split(".") for path in self.sets.split())
        return tuple((config, field) for config, field in pairs)


class LogLevel(click.ParamType[str]):
    """A level's name; of a Rust filter such as `info,hyper=warn` the first level counts."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Spell the level as `ServerConfig.log_level` does."""
        ours = {"trace": "debug", "warn": "warning", "off": "critical"}
        word = str(value).split(",")[0].split("=")[-1].strip().lower()
        return ours.get(word, word)


class Adapters(click.ParamType[tuple[AdapterSource, ...]]):
    """Adapters as TGI's launcher takes them: `NAME=PATH@REVISION,PATH`."""

    name = "adapters"
    _one = re.compile(r"(?P<name>[^=@]+)(?:=(?P<path>[^=@]+))?(?:@(?P<revision>[^=@]+))?")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[AdapterSource, ...]:
        """Take the list apart."""
        return tuple(self._read(part.strip()) for part in str(value).split(",") if part.strip())

    def _read(self, part: str) -> AdapterSource:
        found = self._one.fullmatch(part)
        if found is None:
            self.fail(f"{part!r} is not of the form NAME=PATH or PATH, @REVISION behind it")
        name = found["name"].strip()
        return AdapterSource(name, (found["path"] or name).strip(), found["revision"])
