"""Step: what a generator has come to when it was asked once more. Knows neither thread nor loop."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from server.generators.value import encode_value


@dataclass(frozen=True, slots=True)
class Value:
    """It has yielded."""

    json: bytes


@dataclass(frozen=True, slots=True)
class End:
    """It has returned."""

    result: bytes | None = None
    """What it returned, as JSON, if that was anything."""


@dataclass(frozen=True, slots=True)
class Failure:
    """It cannot go on: it raised, or yielded what cannot be sent, or the server stops."""

    error: BaseException


Step = Value | End | Failure


def take_step(generator: Generator[Any, None, Any]) -> Step:
    """Ask a plain generator once more; whatever its code raises is a Failure, SystemExit too."""
    try:
        try:
            value = next(generator)
        except StopIteration as end:
            return End(None if end.value is None else encode_value(end.value))
        return Value(encode_value(value))
    except BaseException as error:
        return Failure(error)


def close(generator: Generator[Any, None, Any]) -> BaseException | None:
    """Close a plain generator; give back what its own code raised at that."""
    try:
        generator.close()
    except BaseException as error:
        return error
    return None
