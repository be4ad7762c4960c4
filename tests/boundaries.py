"""The table of boundary values, and every place in a route's bodies where one can stand.

Places are read from the OpenAPI document that a server gives of itself, so that a new route or a
new field is tried without a word here. Rows 1 to 9 of what breaks such servers: counts without a
cap, ids outside of the vocabulary, floats that break samplers, and all that against every route.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

MAX_DEPTH = 7
"""Keys and indices on the way to a place: schemas do not end where they hold any JSON."""
VALUES = {
    "text": '"x"',
    "empty text": '""',
    "number as text": '"5"',
    "nul": '"\\u0000"',
    "lone surrogate": '"\\ud83d"',
    "lone low surrogate": '"a\\udc00b"',
    "long text": json.dumps("long " * 20_000),
    "zero": "0",
    "minus one": "-1",
    "one and a half": "1.5",
    "minus zero": "-0.0",
    "tiny": "1e-320",
    "1e9": "1000000000",
    "1e308": "1e308",
    "-1e308": "-1e308",
    "1e400": "1e400",
    "2^31": str(2**31),
    "2^32": str(2**32),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "-2^63-1": str(-(2**63) - 1),
    "10^400": "1" + 400 * "0",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "true": "true",
    "null": "null",
    "empty list": "[]",
    "list": '["a",-1,null]',
    "many stops": json.dumps(["stop"] * 2_000),
    "ids too low": "[-1,1]",
    "ids too high": "[1,2147483648]",
    "nested": "[" * 50 + "]" * 50,
    "nested schema": '{"type":"json","value":' + '{"items":' * 600 + "{}" + "}" * 601,
    "empty object": "{}",
    "object": '{"a":1}',
    "bias of no token": '{"-1":1,"2147483648":1,"x":1}',
    "image": '[{"type":"image_url","image_url":{"url":"http://127.0.0.1/"}}]',
}
"""As they are written in a body; the bounds of each field come on top."""
NOT_JSON = {"NaN", "Infinity"}
_SOUND = {"role": "user", "content": "Hi", "text": "Hi"}
"""What no schema asks for, and a message or a part of one needs."""
_MARK = "\x01"


@dataclass(frozen=True, eq=False)
class Place:
    """A field somewhere in a body of a route."""

    path: str
    kind: str
    """The schema of the body."""
    where: tuple[str | int, ...]
    body: Any
    """A good body that has the way to the field."""
    schema: Any
    """What the field may hold, as the document says: its bounds, if there is a choice the first."""
    validator: Draft202012Validator
    """The same, whole."""

    @property
    def name(self) -> str:
        """The field with what it is in, the same on every route that takes it."""
        return ".".join(str(key) for key in self.where).removeprefix("instances.0.")

    @property
    def declared(self) -> str:
        """Its name and bounds: where both are the same, the answer should be."""
        return f"{self.name} {json.dumps(self.schema, sort_keys=True)}"

    def values(self) -> dict[str, str]:
        """Name the values to try, as they are written in a body."""
        return VALUES | {name: json.dumps(value) for name, value in _bounds(self.schema)}

    def is_declared(self, value: str) -> bool:
        """Tell whether the document lets the field hold a value."""
        return self.validator.is_valid(json.loads(value))

    def with_value(self, value: str) -> bytes:
        """Write the body with a value, which may be no JSON, in this place."""
        return self.with_values({self.where: value})

    def with_values(self, values: dict[tuple[str | int, ...], str]) -> bytes:
        """Write the body with values in several places."""
        body = copy.deepcopy(self.body)
        for number, where in enumerate(values):
            _put(body, where, f"{_MARK}{number}{_MARK}")
        text = json.dumps(body)
        for number, value in enumerate(values.values()):
            text = text.replace(json.dumps(f"{_MARK}{number}{_MARK}"), value)
        return text.encode()


class Document:
    """An OpenAPI document, read for the places in its bodies."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        self._schemas = self._components["schemas"]
        self._bodies = {
            path: _brief(methods["post"]["requestBody"]["content"]["application/json"])
            for path, methods in document["paths"].items()
            if "post" in methods
        }

    def places(self, path: str) -> Iterator[Place]:
        """List every place in every kind of body that a route takes."""
        for kind, body in self.examples(path):
            for where, filled, schema in self._walk(self._schemas[kind], (), body):
                bounds = _bare(self._spelled(schema))
                validator = Draft202012Validator({**schema, "components": self._components})
                yield Place(path, kind, where, filled, bounds, validator)

    def examples(self, path: str) -> Iterator[tuple[str, Any]]:
        """Give a good body of each kind that a route takes."""
        content = self._bodies[path]
        for schema in content["schema"].get("anyOf", [content["schema"]]):
            kind = _name(schema)
            yield kind, self._example(kind, content["example"])

    def _example(self, kind: str, otherwise: Any) -> Any:
        own = [c["example"] for c in self._bodies.values() if c["schema"] == {"$ref": _ref(kind)}]
        return own[0] if own else otherwise

    def _walk(
        self, schema: Any, where: tuple[str | int, ...], body: Any
    ) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
        """Go down into objects and into the first of lists; `body` is filled on the way."""
        if len(where) > MAX_DEPTH:
            return
        for part in self._parts(schema):
            fields = part.get("properties", {})
            filled = _with(body, where, self._minimal(part)) if fields else body
            for name, field in fields.items():
                yield (*where, name), filled, field
                yield from self._walk(field, (*where, name), filled)
            if "items" in part and any("properties" in i for i in self._parts(part["items"])):
                for item, filled in self._items(part["items"], (*where, 0), body):
                    yield from self._walk(item, (*where, 0), filled)

    def _items(
        self, schema: Any, where: tuple[str | int, ...], body: Any
    ) -> Iterator[tuple[Any, Any]]:
        """Give each kind that an item may be of, with a body that has one."""
        for option in schema.get("anyOf", [schema]):
            if "$ref" in option:
                example = self._example(_name(option), None) or self._minimal(option)
                yield option, _with(_with(body, where, None), where, example)

    def _parts(self, schema: Any) -> list[Any]:
        """List what a schema may mean, without references and null."""
        if "$ref" in schema:
            return self._parts(self._schemas[_name(schema)])
        options = [o for o in schema.get("anyOf", ()) if o != {"type": "null"}]
        return [part for option in options for part in self._parts(option)] or [schema]

    def _spelled(self, schema: Any) -> Any:
        parts = self._parts(schema)
        return parts[0] | {k: v for k, v in schema.items() if k != "anyOf"} if parts else schema

    def _minimal(self, schema: Any) -> Any:
        """Make the least value that a schema takes."""
        schema = self._parts(schema)[0]
        kinds = schema.get("type", "object")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if "enum" in schema:
            return schema["enum"][0]
        simple = {"string": "a", "integer": 1, "number": 0.5, "boolean": False, "null": None}
        if kind == "array":
            return [self._minimal(schema["items"])] if schema.get("minItems") else []
        if kind != "object":
            return simple[kind]
        fields = schema.get("properties", {})
        needed = {name: self._minimal(fields[name]) for name in schema.get("required", ())}
        return needed | {name: _SOUND[name] for name in fields if name in _SOUND}


def _bounds(schema: Any) -> Iterator[tuple[str, Any]]:
    """Name each bound of a number or of a short list, and what lies just past it."""
    step = 1 if "integer" in str(schema.get("type")) else 0.001
    for bound, beyond in (
        ("minimum", -step),
        ("exclusiveMinimum", 0),
        ("maximum", step),
        ("exclusiveMaximum", 0),
    ):
        if bound in schema:
            yield f"{bound}", schema[bound]
            yield f"past the {bound}", schema[bound] + beyond
    if schema.get("maxItems", 1_000) < 1_000:
        yield "past the maxItems", ["a"] * (schema["maxItems"] + 1)


def _brief(content: Any) -> Any:
    """Ask for fewer tokens than the document's examples do."""
    example = json.dumps(content["example"]).replace(": 16", ": 3")
    return {**content, "example": json.loads(example)}


def _bare(schema: Any) -> Any:
    return {key: value for key, value in schema.items() if key not in ("description", "title")}


def _ref(kind: str) -> str:
    return f"#/components/schemas/{kind}"


def _name(schema: Any) -> str:
    return schema["$ref"].rsplit("/", 1)[1]


def _put(body: Any, where: tuple[str | int, ...], value: Any) -> None:
    for key in where[:-1]:
        body = body[key]
    body[where[-1]] = value


def _with(body: Any, where: tuple[str | int, ...], filler: Any) -> Any:
    """Return a body in which there is something at this place."""
    body = here = copy.deepcopy(body)
    for depth, key in enumerate(where):
        last = depth == len(where) - 1
        empty = filler if last else [] if isinstance(where[depth + 1], int) else {}
        if isinstance(key, int) and len(here) <= key:
            here.append(empty)
        elif type(here[key] if isinstance(key, int) else here.get(key)) is not type(empty):
            here[key] = empty
        if last and filler is None:
            here[key] = None
        if last and isinstance(filler, dict) and isinstance(here[key], dict):
            here[key] = {**filler, **here[key]}
        here = here[key]
    return body
