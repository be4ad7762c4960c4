"""What clients write for a grammar, in TGI's shape and in OpenAI's, comes to one Grammar."""

import json

import pytest
from dialect_config import dialect_config

from engine import Grammar, GrammarKind
from server.dialects.chat import ChatDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.tgi import GenerateDialect
from server.errors import Problem

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
JSON = Grammar(
    GrammarKind.JSON_SCHEMA,
    '{"type":"object","properties":{"b":{"type":"integer"},"a":{}}}',
)
ANY = Grammar(GrammarKind.JSON_OBJECT)
TGI = [
    ({"type": "json", "value": SCHEMA}, JSON),
    ({"type": "json", "value": json.dumps(SCHEMA)}, JSON),
    ({"type": "json", "value": {"properties": SCHEMA["properties"]}}, JSON),
    ({"type": "json_object", "value": SCHEMA}, JSON),
    ({"type": "json_object", "value": {}}, ANY),
    ({"type": "json_object"}, ANY),
    ({"type": "json"}, ANY),
    ({"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}}, JSON),
    ({"type": "json_schema", "value": json.dumps({"schema": SCHEMA})}, JSON),
    ({"type": "json_schema", "value": SCHEMA}, JSON),
    ({"type": "regex", "value": "[a-z]+"}, Grammar(GrammarKind.REGEX, "[a-z]+")),
    (
        {"type": "choice", "value": ["é", 'a"b']},
        Grammar(GrammarKind.CHOICE, '["\\u00e9", "a\\"b"]'),
    ),
    ({"type": "lark", "value": 'start: "a"'}, Grammar(GrammarKind.LARK, 'start: "a"')),
]
OPENAI = [
    ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}, JSON),
    ({"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": False}}, JSON),
    ({"type": "json_object", "schema": SCHEMA}, JSON),  # LangChain's shape
    ({"type": "json_schema", "schema": SCHEMA}, JSON),
    ({"type": "text"}, None),
]
WRONG = [
    ({"type": "ebnf"}, ".type", "must be one of json, json_object, json_schema, regex, choice, "),
    ({"type": "json", "value": "{"}, ".value", "must be JSON (Expecting property name"),
    ({"type": "json", "value": "[1]"}, ".value", "must be a JSON schema, an object. Given: [1]"),
    ({"type": "json", "value": "[" * 99_999}, ".value", "must be JSON (maximum recursion depth"),
    ({"type": "json_schema"}, ".value", "must be a JSON schema, an object. Given: None"),
    ({"type": "regex", "value": ["a"]}, ".value", "must be a text that is not empty. Given: ['a']"),
    ({"type": "regex", "value": ""}, ".value", "must be a text that is not empty. Given: "),
    ({"type": "choice", "value": []}, ".value", "must be a list of texts, at least one. Given: []"),
    ({"type": "choice", "value": "a"}, ".value", "must be a list of texts, at least one. Given: a"),
    ({"type": "lark"}, ".value", "must be a text that is not empty. Given: None"),
]
CONFIG = dialect_config()


def native(grammar):
    body = {"inputs": "A", "parameters": {"grammar": grammar}}
    return GenerateDialect(CONFIG).parse(json.dumps(body).encode()).generations()


def openai(route, **fields):
    dialect, own = {
        "chat": (ChatDialect, {"messages": [{"role": "user", "content": "A"}]}),
        "completions": (CompletionsDialect, {"prompt": "A"}),
    }[route]
    return dialect(CONFIG).parse(json.dumps({**own, **fields}).encode()).generations()


both = pytest.mark.parametrize("route", ["chat", "completions"])


@pytest.mark.parametrize(("given", "expected"), TGI)
def test_a_native_grammar_comes_to(given, expected):
    (generation,) = native(given)
    assert (generation.params.grammar, generation.grammar_field) == (expected, "grammar")


@both
@pytest.mark.parametrize(("given", "expected"), TGI)
def test_tgis_shape_is_taken_under_both_names(route, given, expected):
    (generation,) = openai(route, grammar=given)
    assert (generation.params.grammar, generation.grammar_field) == (expected, "grammar")
    (generation,) = openai(route, response_format=given)
    assert (generation.params.grammar, generation.grammar_field) == (expected, "response_format")


@both
@pytest.mark.parametrize(("given", "expected"), OPENAI)
def test_openais_shape_is_taken(route, given, expected):
    (generation,) = openai(route, response_format=given)
    assert generation.params.grammar == expected


@both
def test_every_choice_has_the_grammar(route):
    assert [g.params.grammar for g in openai(route, response_format={"type": "json_object"}, n=3)]
    assert {g.params.grammar for g in openai(route, grammar={"type": "json"}, n=3)} == {ANY}


def problem(ask):
    with pytest.raises(Problem) as caught:
        ask()
    assert caught.value.status == 422
    return caught.value


@pytest.mark.parametrize(("given", "where", "rule"), WRONG, ids=str)
def test_a_grammar_that_is_none_is_told_with_its_field(given, where, rule):
    for field, ask in (
        ("grammar", lambda: native(given)),
        ("grammar", lambda: openai("chat", grammar=given)),
        ("response_format", lambda: openai("completions", response_format=given)),
    ):
        if given == {"type": "json_schema"} and field == "response_format":
            continue  # there the schema may be elsewhere
        found = problem(ask)
        assert found.field == field + where
        assert found.message.startswith(f"Input validation error: `{field}{where}` {rule}")


@both
def test_a_format_without_its_schema_is_told_what_is_missing(route):
    found = problem(lambda: openai(route, response_format={"type": "json_schema"}))
    assert found.field == "response_format.json_schema"
    form = {"type": "json_schema", "json_schema": {"name": "n"}}
    found = problem(lambda: openai(route, response_format=form))
    assert found.field == "response_format.json_schema.schema"


@both
def test_two_grammars_exclude_each_other(route):
    form = {"type": "json_object"}
    assert problem(lambda: openai(route, response_format=form, grammar=form)).field == "grammar"
    assert openai(route, response_format={"type": "text"}, grammar=form)
