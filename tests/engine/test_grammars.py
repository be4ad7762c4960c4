"""Grammars are tried in a process of their own: whatever they do there, nobody else notices."""

import json
import os
import signal

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from engine.errors import GenerationFailed, InvalidGrammar
from engine.grammar import Grammar, GrammarKind
from engine.grammars import Grammars
from engine.matchers import MAX_SOURCE, LruCache, Matchers, Vocabulary

GOOD = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "object"}')


def nested(depth):
    return '{"items":' * depth + "{}" + "}" * depth


def circle(num_rules):
    rules = (f'r{i}: "a"? | r{(i + 1) % num_rules}' for i in range(num_rules))
    return "\n".join(("start: " + " ".join(f"r{i}" for i in range(num_rules)), *rules))


BAD = {
    "no JSON": (GrammarKind.JSON_SCHEMA, "{", "EOF while parsing"),
    "an unknown keyword": (GrammarKind.JSON_SCHEMA, '{"not": {}}', "Unimplemented keys"),
    "leniency asked for": (
        GrammarKind.JSON_SCHEMA,
        '{"x-guidance": {"lenient": true}, "not": {}}',
        "Unimplemented keys",
    ),
    "a type that is none": (GrammarKind.JSON_SCHEMA, '{"type": "nope"}', "Invalid type"),
    "a circle": (GrammarKind.JSON_SCHEMA, '{"$ref": "#"}', "NoExtension"),
    "another document": (GrammarKind.JSON_SCHEMA, '{"$ref": "http://x.y/z"}', "not present"),
    "deep": (GrammarKind.JSON_SCHEMA, nested(5000), "recursion limit"),
    "deep, as Lark": (GrammarKind.LARK, f"start: {'(' * 5000}'a'{')' * 5000}", "followed"),
    "deep, as a regular expression": (GrammarKind.REGEX, f"{'(' * 999}a{')' * 999}", "invalid"),
    "a regular expression that is none": (GrammarKind.REGEX, "(", "unclosed group"),
    "looking ahead": (GrammarKind.REGEX, "(?=a)b", "look-ahead"),
    "a rule that is missing": (GrammarKind.LARK, "start: x", "unknown name"),
    "empty": (GrammarKind.LARK, "", "Empty grammar"),
    "enormous": (GrammarKind.LARK, "#" * (MAX_SOURCE + 1), f"at most {MAX_SOURCE} characters"),
    "too many states": (GrammarKind.REGEX, "(a?){500}a{500}", "too many expressions"),
    "slow at every token": (
        GrammarKind.LARK,
        f'start: "{"a" * 95_000}"',
        "a token takes|takes more than",
    ),
    "a stack that overflows": (GrammarKind.LARK, circle(3000), "too large or too deep"),
    "many numbers": (
        GrammarKind.JSON_SCHEMA,
        json.dumps({"allOf": [{"multipleOf": p} for p in (7, 11, 13, 17, 19, 23, 29, 31, 37)]}),
        "takes more than|too large",
    ),
    "a million": (GrammarKind.REGEX, "(a{1000}){1000}", "takes more than|too large"),
}


@pytest.fixture(scope="module")
def vocabulary():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>"])
    return Vocabulary(backend.to_str(), 300, (256,))


@pytest.fixture(scope="module")
def grammars(vocabulary):
    grammars = Grammars(vocabulary, Matchers(vocabulary))
    grammars.start()
    yield grammars
    grammars.close()


@pytest.mark.parametrize("name", BAD)
def test_a_grammar_that_cannot_be_followed_is_refused_and_the_next_is_not(grammars, name):
    kind, source, reason = BAD[name]
    bad = Grammar(kind, source)
    process = grammars._helper._process
    for _ in range(2):  # the second answer is remembered
        with pytest.raises(InvalidGrammar, match=reason):
            grammars.let_in(bad)
        assert bad not in grammars
    assert grammars._helper._process is process
    assert process.poll() is None
    grammars.let_in(Grammar(GrammarKind.CHOICE, json.dumps([f"after {name}"])))


def test_what_was_let_in_is_known_and_not_tried_again(vocabulary):
    grammars = Grammars(vocabulary, Matchers(vocabulary))
    grammars.let_in(GOOD)
    grammars.close()
    assert GOOD in grammars
    grammars.let_in(GOOD)
    assert grammars._helper._process is None


def test_a_refusal_is_remembered_without_the_helper(vocabulary):
    grammars = Grammars(vocabulary, Matchers(vocabulary))
    bad = Grammar(GrammarKind.REGEX, "(")
    with pytest.raises(InvalidGrammar):
        grammars.let_in(bad)
    grammars.close()
    with pytest.raises(InvalidGrammar, match="unclosed group"):
        grammars.let_in(bad)
    assert grammars._helper._process is None


def test_a_helper_that_has_died_is_started_again(vocabulary):
    grammars = Grammars(vocabulary, Matchers(vocabulary))
    grammars.start()
    dead = grammars._helper._process
    os.kill(dead.pid, signal.SIGKILL)
    dead.wait()
    with pytest.raises(GenerationFailed, match="cannot be tried just now"):
        grammars.let_in(GOOD)
    assert GOOD not in grammars
    grammars.let_in(GOOD)
    assert GOOD in grammars
    grammars.close()


def test_the_helper_ends_with_the_server(vocabulary):
    grammars = Grammars(vocabulary, Matchers(vocabulary))
    grammars.start()
    process = grammars._helper._process
    process.stdin.close()  # as it is when we are killed
    assert process.wait(30) == 0
    process.stdout.close()


def test_without_an_end_token_there_are_no_grammars(vocabulary):
    with pytest.raises(ValueError, match="no end token"):
        Matchers(Vocabulary(vocabulary.tokenizer, vocabulary.size, ()))


def test_what_was_used_last_is_kept():
    kept = LruCache(max_cost=100)
    named = {name: Grammar(GrammarKind.REGEX, name) for name in "abcd"}
    for name in "abc":
        kept.put(named[name], name, 29)
    assert kept.get(named["a"]) == "a"
    kept.put(named["d"], "d", 29)
    assert [name for name in "abcd" if named[name] in kept] == ["a", "c", "d"]
    kept.put(named["b"], "b", 1000)
    assert [name for name in "abcd" if named[name] in kept] == ["b"]
    assert kept.get(named["a"]) is None
    kept.put(named["b"], "again", 1)
    kept.put(named["a"], "a", 90)
    assert len(kept) == 2
