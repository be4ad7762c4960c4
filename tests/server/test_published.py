"""What a generator function takes, and which functions are refused at start, by a sentence."""

import json
import sys

import pytest
from jsonschema import Draft202012Validator

import engine
import server
from server.config import ConfigError
from server.errors import Problem
from server.generators.published import load_published

REFUSED = {
    "some_generators": "write it as package.module:function",
    "": "write it as package.module:function",
    ":": "ValueError: invalid format",
    "some generators:three": "ValueError: invalid format",
    "nowhere.at.all:three": "ModuleNotFoundError: No module named 'nowhere'",
    "some_generators.deeper:three": "some_generators",
    "some_generators:four": "AttributeError: module 'some_generators' has no attribute 'four'",
    "some_generators:NUMBER": "it is of type int, and no function",
    "some_generators:no_generator": "it is not a generator function, one with a yield in it",
    "some_generators:Point": "it is not a generator function, one with a yield in it",
    "some_generators:with_args": "*args has no name in a JSON object; use named parameters",
    "some_generators:with_kwargs": "**kwargs has no name in a JSON object; use named parameters",
    "some_generators:positional": "the positional-only value has no name in a JSON object",
    "some_generators:wrong_annotation": "its parameter value cannot be validated: ",
    "some_generators:two_lists": "its parameter value cannot be validated: Type unions may not",
    "some_generators:unknown_annotation": "not understood: name 'Nowhere' is not defined",
    "some_generators:größe": "its name is part of a path and must be ASCII. Given: größe",
    "some_generators:nameless": "must be ASCII. Given: <lambda>",
}
BROKEN = {
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "leaves": ("raise SystemExit(4)", "SystemExit: 4"),
    "not_python": ("def", "SyntaxError: "),
    "needs": ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
}


def publish(*references):
    return load_published(f"some_generators:{reference}" for reference in references)


def asked(reference, body):
    (published,) = publish(reference).values()
    return published.arguments(json.dumps(body).encode())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("reference", REFUSED)
def test_what_cannot_be_published_is_refused_in_one_sentence(reference):
    with pytest.raises(ConfigError) as refusal:
        load_published([reference])
    sentence = str(refusal.value)
    assert sentence.startswith(f"--generator {reference} cannot be published: ")
    assert REFUSED[reference] in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_fails_at_its_import_is_told_in_one_sentence(here, name):
    code, why = BROKEN[name]
    (here / f"{name}.py").write_text(code)
    with pytest.raises(ConfigError) as refusal:
        load_published([f"{name}:three"])
    assert f"--generator {name}:three cannot be published: {why}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_functions_of_one_name_are_refused_and_both_named(here):
    (here / "other.py").write_text("def three(): yield 3")
    with pytest.raises(ConfigError) as refusal:
        load_published(["some_generators:three", "other:three"])
    assert (
        "--generator some_generators:three and --generator other:three are both called three"
        in str(refusal.value)
    )


def test_the_same_function_twice_is_refused_too():
    with pytest.raises(ConfigError, match="are both called three"):
        publish("three", "three")


def test_a_module_of_the_current_directory_is_found_and_may_import_its_neighbours(here):
    (here / "mine.py").write_text("import beside\ndef count(): yield beside.NUMBER")
    (here / "beside.py").write_text("NUMBER = 7")
    published = load_published(["mine:count"])["count"]
    assert list(published.function()) == [7]


def test_the_current_directory_comes_last_once_the_modules_are_there(here):
    (here / "mine.py").write_text("def count():\n    import beside\n    yield beside.NUMBER")
    (here / "beside.py").write_text("NUMBER = 7")
    published = load_published(["mine:count"])["count"]
    assert sys.path[-1] == str(here)
    assert str(here) not in sys.path[:-1]
    assert list(published.function()) == [7]


@pytest.mark.parametrize("ours", [server, engine])
def test_a_users_module_of_our_name_is_found_and_ours_is_not_hidden(here, ours):
    name = ours.__name__
    (here / f"{name}.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "def count(at: Point): yield at.x\n"
        "def again(): yield 1\n"
    )
    found = load_published([f"{name}:count", f"{name}:again"])
    assert found["count"].arguments(b'{"at":{"x":3}}')["at"].x == 3
    assert found["count"].function.__globals__ is found["again"].function.__globals__
    assert sys.modules[name] is ours
    examples = load_published(["server.examples.count:count"])
    assert examples["count"].function.__module__ == "server.examples.count"


def test_a_users_package_of_our_name_is_found_and_ours_is_not_hidden(here):
    (here / "server").mkdir()
    (here / "server" / "__init__.py").write_text("")
    (here / "server" / "counting.py").write_text("from . import step\ndef count(): yield step.BY")
    (here / "server" / "step.py").write_text("BY = 2")
    published = load_published(["server.counting:count"])["count"]
    assert list(published.function()) == [2]
    assert sys.modules["server"] is server


def test_the_schema_says_what_a_body_may_be():
    published = publish("typed")["typed"]
    schema = published.parameters()
    Draft202012Validator.check_schema(schema)
    assert published.description == "Say what it was given."
    assert schema["required"] == ["steps"]
    properties = schema["properties"]
    assert properties["steps"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert properties["kind"] == {"enum": ["a", "b"], "default": "a"}
    assert properties["names"]["default"] == []
    assert properties["at"]["default"] is None
    assert schema["$defs"]["Point"]["required"] == ["x"]
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"steps": 3, "at": {"x": 1}})
    assert not validator.is_valid({"steps": 3, "at": {"y": 1}})
    assert not validator.is_valid({"steps": 3, "stps": 3})


def test_a_body_becomes_arguments_and_the_function_keeps_its_own_defaults():
    assert asked("typed", {"steps": 2}) == {"steps": 2}
    given = asked("typed", {"steps": 2, "at": {"x": 1}, "names": ["n"], "is_loud": True})
    assert (given["at"].x, given["at"].y, given["names"]) == (1, 0.5, ["n"])
    assert asked("picture", {}) == {}
    assert asked("three", {}) == {}


@pytest.mark.parametrize("value", [3, 1.5, "text", None, True, [1, {"a": None}], {"b": []}])
def test_a_parameter_without_annotation_takes_any_json(value):
    assert asked("untyped", {"value": value}) == {"value": value}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "`steps` is missing"),
        ({"steps": 0}, "`steps`: expected `int` >= 1"),
        ({"steps": "3"}, "`steps`: expected `int`, got `str`"),
        ({"steps": 1.5}, "`steps`: expected `int`, got `float`"),
        ({"steps": 3, "stps": 3}, "object contains unknown field `stps`"),
        ({"steps": 3, "kind": "c"}, "`kind`: invalid enum value 'c'"),
        ({"steps": 3, "at": {"y": 1}}, "`at.x` is missing"),
        ({"steps": 3, "names": ["a", 1]}, "`names[1]`: expected `str`, got `int`"),
        ([3], "the body: expected `object`, got `array`"),
    ],
)
def test_a_wrong_body_is_refused_by_the_name_of_its_field(body, sentence):
    with pytest.raises(Problem) as refusal:
        asked("typed", body)
    assert refusal.value.status == 422
    assert sentence in refusal.value.message


def test_a_default_that_json_cannot_say_is_left_out_of_the_schema(here):
    (here / "mine.py").write_text("def count(a=object(), b=float('nan'), c=2):\n    yield c")
    published = load_published(["mine:count"])["count"]
    assert published.defaults == {"c": 2}
    assert published.parameters()["required"] == []


def test_the_example_of_each_is_a_body_that_it_takes():
    for name in ("typed", "untyped", "three", "picture", "raises", "nested"):
        (published,) = publish(name).values()
        example = published.example()
        assert published.arguments(json.dumps(example).encode()).keys() == example.keys()
        Draft202012Validator(published.parameters()).validate(example)
