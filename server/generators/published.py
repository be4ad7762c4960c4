"""Published: a user's generator function, what it takes, and how a body becomes its arguments.

Knows no HTTP and runs nothing.
"""

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from server.config import ConfigError
from server.dialects import wire
from server.dialects.decode import decode
from server.generators.reference import find_function

Json = dict[str, Any]

_NAME = re.compile(r"\w+", re.ASCII)
_UNNAMED = {
    inspect.Parameter.VAR_POSITIONAL: "*{}",
    inspect.Parameter.VAR_KEYWORD: "**{}",
    inspect.Parameter.POSITIONAL_ONLY: "the positional-only {}",
}


@dataclass(frozen=True, slots=True)
class Published:
    """One generator function with its name on the wire and the type of its bodies."""

    name: str
    reference: str
    function: Callable[..., Generator[Any, None, Any] | AsyncGenerator[Any, None]]
    body: type[msgspec.Struct]
    defaults: Json
    """Defaults that JSON can say; they are shown, the function itself applies them."""

    @property
    def description(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def is_async(self) -> bool:
        """Tell whether it runs on the event loop."""
        return inspect.isasyncgenfunction(self.function)

    def arguments(self, body: bytes) -> Json:
        """Check a body against the annotations; raises Problem, naming the field."""
        fields = msgspec.structs.asdict(decode(body, self.body))
        return {name: value for name, value in fields.items() if value is not UNSET}

    def schemas(self, prefix: str) -> tuple[Json, dict[str, Json]]:
        """Give the JSON Schema of a body, and the types that it refers to behind the prefix."""
        refs, types = msgspec.json.schema_components([self.body], ref_template=prefix + "{name}")
        schema = types.pop(refs[0]["$ref"].removeprefix(prefix))
        for name, default in self.defaults.items():
            schema["properties"][name]["default"] = default
        return schema, types

    def parameters(self) -> Json:
        """Give the JSON Schema of a body as one document."""
        schema, types = self.schemas("#/$defs/")
        return {**schema, "$defs": types} if types else schema

    def example(self) -> Json:
        """Give a body that has the right types, to begin with."""
        schema, types = self.schemas("")
        body: Json = _sample(schema, types)
        return body


def load_published(references: Iterable[str]) -> dict[str, Published]:
    """Import and check every `package.module:function`, by name; raises ConfigError."""
    found: dict[str, Published] = {}
    for reference in references:
        published = _publish(reference, find_function(reference))
        other = found.setdefault(published.name, published)
        if other is not published:
            raise ConfigError(
                f"--generator {other.reference} and --generator {reference} are both called "
                f"{published.name}; rename one of the functions"
            )
    return found


def _publish(reference: str, function: Callable[..., Any]) -> Published:
    def wrong(why: str) -> ConfigError:
        return ConfigError(f"--generator {reference} cannot be published: {why}")

    if not (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise wrong("it is not a generator function, one with a yield in it")
    name = function.__name__
    if not _NAME.fullmatch(name):
        raise wrong(f"its name is part of a path and must be ASCII. Given: {name}")
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.kind in _UNNAMED:
            shown = _UNNAMED[parameter.kind].format(parameter.name)
            raise wrong(f"{shown} has no name in a JSON object; use named parameters")
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise wrong(f"an annotation is not understood: {error}") from error
    fields = [_field(parameter, hints.get(parameter.name, Any), wrong) for parameter in parameters]
    body = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    defaults = {p.name: p.default for p in parameters if _is_json(p.default)}
    return Published(name, reference, function, body, defaults)


def _field(
    parameter: inspect.Parameter, annotation: Any, wrong: Callable[[str], ConfigError]
) -> tuple[Any, ...]:
    """Describe a parameter to msgspec, if it can check values of this annotation.

    What a body leaves out is UNSET, and left to the function's own default.
    """
    field: tuple[Any, ...] = (parameter.name, annotation)
    try:
        if parameter.default is not inspect.Parameter.empty:
            field = (parameter.name, annotation | UnsetType, UNSET)
        alone = msgspec.defstruct("Alone", [field])
        msgspec.json.schema(alone)
        msgspec.json.Decoder(alone)
    except (TypeError, ValueError, AttributeError) as error:
        why = str(error).partition("\n")[0]
        raise wrong(f"its parameter {parameter.name} cannot be validated: {why}") from error
    return field


def _sample(schema: Json, types: Mapping[str, Json]) -> Any:
    """Make up a value of a schema whose references are the bare names of types."""
    match schema:
        case {"default": value} | {"minimum": value} | {"enum": [value, *_]}:
            return value
        case {"$ref": name}:
            return _sample(types[name], types)
        case {"anyOf": [part, *_]}:
            return _sample(part, types)
        case {"type": "object"}:
            parts = schema.get("properties", {})
            return {name: _sample(parts[name], types) for name in schema.get("required", ())}
        case {"type": kind}:
            return {"string": "text", "array": [], "boolean": True, "null": None}.get(kind, 1)
        case _:
            return 3


def _is_json(default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return False
    try:
        wire.dumps(default)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
