"""Grammars of calls that must be made: whatever they let a model say is such a call."""

import json
import random

import jsonschema
import pytest
from in_process import EOS, byte_tokenizer
from llguidance import LLMatcher, LLTokenizer

from server.dialects.tools.formats import FORMATS
from server.dialects.tools.schema import call_grammar
from server.dialects.tools.turn import Kind
from server.dialects.tools.turn_parser import TurnParser

PARAMETERS = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", 'F"'], "type": "string"},
        "days": {"$ref": "#/$defs/day"},
        "nested": {"type": "object", "properties": {"is": {"type": "boolean"}}},
    },
    "required": ["days", "unit"],
    "additionalProperties": False,
    "$defs": {"day": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]
SCHEMAS = {"weather": PARAMETERS, "now": {"type": "object", "maxProperties": 0}}
TOKENIZER = byte_tokenizer()
VOCABULARY = LLTokenizer(TOKENIZER._backend.to_str(), eos_token=EOS)
READERS = {name: "llama3_json" if name == "pythonic" else name for name in FORMATS}
"""Which format reads what the grammar of each lets through."""

every_format = pytest.mark.parametrize("form", FORMATS)


def matcher(form, **options):
    asked = {"special_ids": {}, "has_reasoning": False, "is_one": False, **options}
    source = LLMatcher.grammar_from_lark(call_grammar(form, TOOLS, **asked))
    assert not LLMatcher.validate_grammar(source)
    return LLMatcher(VOCABULARY, source)


def say(matcher, dice, max_tokens=600):
    """Say anything that is allowed, a byte at a time; None if that comes to no end."""
    ids = []
    for _ in range(max_tokens):
        if matcher.is_accepting() and dice.random() < 0.7:
            return TOKENIZER.decode(ids)
        bias = matcher.compute_logit_bias()
        allowed = [token for token, value in enumerate(bias) if value and token != EOS]
        if not allowed:
            return TOKENIZER.decode(ids)
        ids.append(dice.choice(allowed))
        matcher.consume_token(ids[-1])
    return None


def calls_in(text, form, **options):
    parser = TurnParser(FORMATS[READERS[form]], frozenset(SCHEMAS), **options)
    gains = parser.feed(text) + parser.end()
    assert not [gain for gain in gains if gain.kind is Kind.CONTENT], text
    names = [gain.text for gain in gains if gain.kind is Kind.CALL]
    arguments = [gain.text for gain in gains if gain.kind is Kind.ARGUMENTS]
    return list(zip(names, map(json.loads, arguments), strict=True))


@every_format
@pytest.mark.parametrize("is_one", [False, True])
def test_whatever_the_grammar_lets_through_is_calls_that_match_their_schemas(form, is_one):
    dice = random.Random(0)
    texts = [say(matcher(form, is_one=is_one), dice) for _ in range(30)]
    ended = [text for text in texts if text is not None]
    assert len(ended) > 20
    called = [calls_in(text, form) for text in ended]
    assert {len(calls) for calls in called} == {1} if is_one else max(map(len, called)) > 1
    assert {name for calls in called for name, _ in calls} == set(SCHEMAS)
    for name, arguments in (call for calls in called for call in calls):
        jsonschema.validate(arguments, SCHEMAS[name])


CALL = '{"name": "now", "arguments": {}}'
WRITTEN = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "mistral": f"[TOOL_CALLS][{CALL}]",
    "llama3_json": CALL,
    "pythonic": CALL,
}


def is_allowed(matcher, text):
    ids = TOKENIZER.encode(text)
    if matcher.validate_tokens(ids) < len(ids):
        return False
    matcher.consume_tokens(ids)
    return matcher.is_accepting()


@every_format
def test_nothing_else_is_let_through(form):
    call = WRITTEN[form]
    assert is_allowed(matcher(form), call)
    for text in ("", "Hi", f"Hi {call}", f"{call} Hi", call.replace("now", "then"), call[:-1]):
        assert not is_allowed(matcher(form), text)
    assert not is_allowed(matcher(form), call.replace("{}", '{"a": 1}'))


@every_format
def test_a_thought_may_come_before_where_the_model_thinks(form):
    text = f"<think>\nHm, <b>.\n</think>\n\n{WRITTEN[form]}"
    assert is_allowed(matcher(form, has_reasoning=True), text)
    assert is_allowed(matcher(form, has_reasoning=True), WRITTEN[form])
    assert not is_allowed(matcher(form), text)
    assert calls_in(text, form, has_reasoning=True) == [("now", {})]


def test_marks_that_are_special_tokens_are_written_as_such():
    ids = {"[TOOL_CALLS]": 5, "[ARGS]": 9}
    options = {"has_reasoning": True, "is_one": True}
    start, call, *_ = call_grammar("mistral", TOOLS, ids, **options).splitlines()
    assert start == 'start: ("<think>" thought /\\n{0,2}/)? <[5]> call'
    assert call == 'call: "weather" <[9]> args0 | "now" <[9]> args1'
    start, *_ = call_grammar("hermes", TOOLS, {"<think>": 7}, **options).splitlines()
    assert start.startswith("start: (<[7]> thought ")
