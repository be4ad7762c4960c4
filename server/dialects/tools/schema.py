"""Writes the grammar of a turn that must call a tool, so that its arguments match their schema.

In Lark as llguidance reads it, where the schema of each tool stands whole, with its own `$defs`.
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.dialects.tools import hermes, mistral, think

_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_COMPACT = {
    "x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
}
"""Without it a model may spend all its tokens on white space."""
_LINE = '"\\n"'

Write = Callable[[str], str]


def call_grammar(
    form: str,
    tools: Sequence[Mapping[str, Any]],
    special_ids: Mapping[str, int],
    *,
    has_reasoning: bool,
    is_one: bool,
) -> str:
    """Write the grammar of one call of one of the tools, or of several unless `is_one`.

    `special_ids` are those of the special tokens that are marks. With reasoning a thought may come
    before. The pythonic format has no JSON, so that JSON is asked for as Llama 3 writes it.
    """

    def mark(text: str) -> str:
        return f"<[{special_ids[text]}]>" if text in special_ids else _text(text)

    functions = [tool["function"] for tool in tools]
    has_names_first = form == "mistral" and mistral.ARGS in special_ids
    write_call = _named if has_names_first else _object
    calls = [write_call(mark, f["name"], f"args{n}") for n, f in enumerate(functions)]
    thought = f"({mark(think.OPEN)} thought /\\n{{0,2}}/)? " if has_reasoning else ""
    rules = [
        f"start: {thought}{_turn(form, mark, has_names_first, is_one)}",
        f"call: {' | '.join(calls)}",
        *(f"args{n}: %json {_schema(f)}" for n, f in enumerate(functions)),
    ]
    if has_reasoning:
        rules += _thought(special_ids)
    return "\n".join(rules)


def read_as(form: str) -> str:
    """Name the format of what the grammar for a format lets through."""
    return "llama3_json" if form == "pythonic" else form


def _turn(form: str, mark: Write, has_names_first: bool, is_one: bool) -> str:
    """Write how calls follow one another in a format."""
    if form == "hermes":
        call = f"{mark(hermes.OPEN)} {_LINE} call {_LINE} {mark(hermes.CLOSE)}"
        return call if is_one else f"{call} ({_LINE} {call})*"
    if form == "mistral":
        call = f"{mark(mistral.OPEN)} call"
        if has_names_first:
            return call if is_one else f"({call})+"
        more = "" if is_one else '(", " call)*'
        return f'{mark(mistral.OPEN)} "[" call {more} "]"'
    return "call" if is_one else 'call ("; " call)*'


def _object(mark: Write, name: str, arguments: str) -> str:
    begin = f'{{"name": {json.dumps(name)}, "arguments": '
    return f'{_text(begin)} {arguments} "}}"'


def _named(mark: Write, name: str, arguments: str) -> str:
    return f"{_text(name)} {mark(mistral.ARGS)} {arguments}"


def _schema(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters") or _NO_PARAMETERS
    return json.dumps({**_COMPACT, **parameters, "type": "object"})


def _thought(special_ids: Mapping[str, int]) -> list[str]:
    if think.CLOSE in special_ids:
        return [f"thought: /(.|\\n)*/ <[{special_ids[think.CLOSE]}]>"]
    return [f"thought[suffix={_text(think.CLOSE)}]: /(.|\\n)*/"]


def _text(text: str) -> str:
    return json.dumps(text)
