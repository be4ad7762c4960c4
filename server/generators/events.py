"""The events of a published generator, as types for the document and as bytes for the wire."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from server.dialects import wire
from server.dialects.answers import Count, ErrorBody, Sentence, Word
from server.errors import Problem


class ValueEvent(Struct):
    """What the generator has yielded."""

    index: Annotated[Count, Meta(description="Counts the values from 1.")]
    value: Annotated[
        Any, Meta(description="As it is in JSON; a picture is a data URL of type image/png.")
    ]


class EndEvent(Struct):
    """The last event of a generator that has come to its end."""

    end: bool
    num_values: Count
    result: Annotated[Any, Meta(description="What it returned, if anything.")] | UnsetType = UNSET


class GeneratorAnswer(Struct):
    """One published generator."""

    name: Word
    description: Annotated[Sentence, Meta(description="First line of its docstring.")]
    parameters: Annotated[dict[str, Any], Meta(description="JSON Schema of its bodies.")]


def value_event(index: int, value: bytes) -> bytes:
    """Write a ValueEvent around a value that is JSON already."""
    return b'data: {"index":%d,"value":%b}\n\n' % (index, value)


def end_event(num_values: int, result: bytes | None) -> bytes:
    """Write an EndEvent."""
    shown = b"" if result is None else b',"result":' + result
    return b'data: {"end":true,"num_values":%d%b}\n\n' % (num_values, shown)


def error_body(problem: Problem) -> bytes:
    """Phrase a problem as a whole body, in TGI's form."""
    return wire.dumps(ErrorBody(problem.message, problem.error_type.value))


def error_event(problem: Problem) -> bytes:
    """Phrase a problem as the last event of a stream."""
    return b"data: " + error_body(problem) + b"\n\n"
