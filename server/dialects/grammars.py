"""Grammars as clients write them, in TGI's words and in OpenAI's; compiles nothing.

TGI's `value` is a schema, as an object or as JSON text, or what the type says. Its schemas often
have `properties` and no `type`, and mean an object.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from engine import Grammar, GrammarKind
from server.dialects import ranges
from server.dialects.bodies import GrammarBody, ResponseFormat
from server.errors import Problem, invalid


class Form(NamedTuple):
    """What an answer must be, and what the client called it."""

    field: str
    grammar: Grammar


def read_grammar(field: str, asked: GrammarBody) -> Grammar:
    """Read a grammar in TGI's words; raises Problem."""
    read = _READERS.get(asked.type)
    if read is None:
        raise invalid(
            f"`{field}.type` must be one of {', '.join(_READERS)}. "
            f"Given: {ranges.shown(asked.type)}",
            f"{field}.type",
        )
    return read(f"{field}.value", asked.value)


def read_format(field: str, asked: ResponseFormat) -> Grammar | None:
    """Read a response format in OpenAI's words or in TGI's; raises Problem. None for plain text."""
    if asked.type == "text":
        return None
    if asked.schema is not None and asked.value is None and asked.type in _JSON:
        return read_schema_of(f"{field}.schema", asked.schema)
    if asked.type == "json_schema" and asked.value is None:
        given = asked.json_schema
        if given is None or given.schema is None:
            missing = f"{field}.json_schema" if given is None else f"{field}.json_schema.schema"
            raise invalid(f"`{missing}` is missing", missing)
        return read_schema_of(f"{field}.json_schema.schema", given.schema)
    return read_grammar(field, asked)


def _read_json(field: str, value: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_OBJECT) if not value else read_schema_of(field, value)


def _read_schema(field: str, value: Any) -> Grammar:
    """Read `{"name": ..., "schema": ...}`, or the schema itself."""
    value = _parsed(field, value)
    if isinstance(value, dict) and "schema" in value:
        return read_schema_of(f"{field}.schema", value["schema"])
    return read_schema_of(field, value)


def read_schema_of(field: str, value: Any) -> Grammar:
    """Read a JSON schema, as an object or as text; raises Problem."""
    schema = _parsed(field, value)
    if not isinstance(schema, dict):
        raise _must(field, "be a JSON schema, an object", value)
    if "properties" in schema and "type" not in schema:
        schema = {"type": "object", **schema}
    try:
        source = json.dumps(schema, separators=(",", ":"))
    except RecursionError:
        raise invalid(f"`{field}` is nested too deeply", field) from None
    return Grammar(GrammarKind.JSON_SCHEMA, source)


def _parsed(field: str, value: Any) -> Any:
    """Read JSON text; what is no text is taken as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _must(field, f"be JSON ({error})", value) from None


def _read_choice(field: str, value: Any) -> Grammar:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or not value:
        raise _must(field, "be a list of texts, at least one", value)
    return Grammar(GrammarKind.CHOICE, json.dumps(value))


def _text_of(kind: GrammarKind) -> Callable[[str, Any], Grammar]:
    def read(field: str, value: Any) -> Grammar:
        if not isinstance(value, str) or not value:
            raise _must(field, "be a text that is not empty", value)
        return Grammar(kind, value)

    return read


def _must(field: str, rule: str, value: Any) -> Problem:
    return invalid(f"`{field}` must {rule}. Given: {ranges.shown(value)}", field)


_JSON = ("json", "json_object", "json_schema")
_READERS: dict[str, Callable[[str, Any], Grammar]] = {
    "json": _read_json,
    "json_object": _read_json,
    "json_schema": _read_schema,
    "regex": _text_of(GrammarKind.REGEX),
    "choice": _read_choice,
    "lark": _text_of(GrammarKind.LARK),
}
