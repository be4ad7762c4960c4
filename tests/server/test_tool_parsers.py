"""What a turn holds, whatever the pieces it comes in: text, thoughts and calls."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_turns import NAMES, call, cut, turns

from engine import Token
from server.dialects.tools.formats import FORMATS, has_reasoning, tool_format
from server.dialects.tools.turn import Gain, Kind
from server.dialects.tools.turn_parser import TurnParser

untimed = settings(deadline=None)
every_format = pytest.mark.parametrize("name", FORMATS)


def parser(name=None, names=NAMES, **options):
    return TurnParser(FORMATS[name] if name else None, names, **options)


def joined(pieces, parser):
    """Feed the pieces; return what a client has in the end."""
    gains = [gain for piece in pieces for gain in parser.feed(piece)] + parser.end()
    return told(gains)


def told(gains):
    texts = {kind: "".join(g.text for g in gains if g.kind is kind) for kind in list(Kind)[:2]}
    calls = []
    for gain in gains:
        if gain.kind is Kind.CALL:
            assert gain.call == len(calls)
            calls.append((gain.text, ""))
        elif gain.kind is Kind.ARGUMENTS:
            assert gain.call == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + gain.text)
    return texts[Kind.CONTENT], texts[Kind.REASONING], calls


def content(text, **options):
    return joined([text], parser(**options))[0]


@every_format
@untimed
@given(data=st.data())
def test_the_joined_deltas_are_the_parse_of_the_whole(name, data):
    text = data.draw(turns(name))
    options = {
        "has_reasoning": data.draw(st.booleans()),
        "is_thinking": data.draw(st.booleans()),
        "max_calls": data.draw(st.sampled_from([None, 1])),
    }
    whole = joined([text], parser(name, **options))
    places = data.draw(st.lists(st.integers(0, 500), max_size=8))
    assert joined(cut(text, places), parser(name, **options)) == whole
    assert joined(list(text), parser(name, **options)) == whole


@every_format
@untimed
@given(data=st.data())
def test_where_nothing_can_be_called_all_of_it_is_text(name, data):
    text = data.draw(turns(name))
    pieces = cut(text, data.draw(st.lists(st.integers(0, 500), max_size=8)))
    assert joined(pieces, parser(name, names=frozenset({"other"}))) == (text, "", [])


@untimed
@given(data=st.data())
def test_thoughts_and_text_are_all_there_is(data):
    """What is thought and what is said, put together again, is what the model wrote."""
    text = data.draw(turns("hermes"))
    is_thinking = data.draw(st.booleans())
    parts = joined([text], parser(has_reasoning=True, is_thinking=is_thinking))
    said, thought, written = ("".join(part.split()) for part in (*parts[:2], text))
    opened = ("<think>" + thought, thought) if is_thinking else ("<think>" + thought,)
    assert written in {said, *opened, *(f"{each}</think>{said}" for each in opened)}


WORDS = st.text("ab {}[]()<>,:=/'\"\\é\n\u2028", max_size=8)
ARGUMENTS = st.dictionaries(
    st.text("abc", min_size=1),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 10**9) | WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@every_format
@untimed
@given(arguments=st.lists(ARGUMENTS, min_size=1, max_size=3), prose=st.text("ab c\n.", max_size=9))
def test_calls_come_out_as_they_were_written(name, arguments, prose):
    texts = [json.dumps(each, ensure_ascii=False) for each in arguments]
    match name:
        case "pythonic":
            calls = [f"f({', '.join(f'{k}={v!r}' for k, v in each.items())})" for each in arguments]
            text, prose = f"[{', '.join(calls)}]", ""
        case "llama3_json":
            calls = [f'{{"name": "f", "parameters": {each}}}' for each in texts]
            text = f"{prose}<|python_tag|>{'; '.join(calls)}"
        case "hermes":
            text = prose + "\n".join(call(name, "f", each) for each in texts)
        case "mistral":
            calls = [f'{{"name": "f", "arguments": {each}}}' for each in texts]
            text = f"{prose}[TOOL_CALLS] [{', '.join(calls)}]"
    said, _, calls = joined(list(text), parser(name))
    assert said == prose.rstrip()
    assert [(tool, json.loads(each)) for tool, each in calls] == [("f", each) for each in arguments]


HERMES = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
NAME_LAST = '"arguments": {"a": 1}, "id": [2], "name": "f"'
LLAMA = '{"name": "f", "parameters": {"a": 1}}'
F = [("f", '{"a": 1}')]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hermes", HERMES, ("", F)),
        ("hermes", f"Let me see.\n\n{HERMES}\n", ("Let me see.", F)),
        ("hermes", f"{HERMES}\n{HERMES}", ("", F * 2)),
        ("hermes", f"{HERMES}\nDone.", ("Done.", F)),
        ("hermes", HERMES.removesuffix("</tool_call>"), ("", F)),
        ("hermes", HERMES.removesuffix("ol_call>"), ("", F)),
        ("hermes", HERMES.removesuffix("}</tool_call>"), ("", F)),
        ("hermes", HERMES.replace('"name": "f", "arguments": {"a": 1}', NAME_LAST), ("", F)),
        ("hermes", HERMES.replace('"name"', '"x": 1.5e3, "name"'), ("", F)),
        ("hermes", HERMES.replace("}}", '}, "x": null}'), ("", F)),
        # cut by the end of the text: what came of the arguments is theirs
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x', ("", [("f", '{"a": "x')])),
        # not calls
        ("hermes", '<tool_call>{"name": "f"', None),
        ("hermes", '<tool_call>{"name": "g", "arguments": {}}', None),
        ("hermes", '<tool_call>{"name": "f", "arguments": 1}', None),
        ("hermes", '<tool_call>{"name": "f"}', None),
        ("hermes", "a <tool_call>b", None),
        ("hermes", f"<tool_call>\n{HERMES}", ("<tool_call>", F)),
        ("hermes", '{"name": "f", "arguments": {}}', None),
        # a second one that is none is text, also when it is cut
        ("hermes", HERMES + '<tool_call>{"na', ('<tool_call>{"na', F)),
        ("hermes", HERMES.replace("</", "oops</"), ("oops</tool_call>", F)),
        ("llama3_json", LLAMA, ("", F)),
        ("llama3_json", '{"type": "function", "name": "f", "parameters": {"a": 1}}', ("", F)),
        ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', ("", F)),
        ("llama3_json", f"{LLAMA}; {LLAMA}", ("", F * 2)),
        ("llama3_json", f"{LLAMA}; and", ("; and", F)),
        ("llama3_json", '{"temperature": 20}', None),
        ("llama3_json", '<|python_tag|>print(1)', ("<|python_tag|>print(1)", [])),
        ("llama3_json", f"Use {LLAMA}", None),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "abc"}]', ("", F)),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": 1}', ("", F)),
        ("mistral", '[TOOL_CALLS]f{"a": 1}', ("", F)),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}', ("", F)),
        ("mistral", 'Hm.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]f[ARGS]{"a": 1}', ("Hm.", F * 2)),
        ("mistral", "[TOOL_CALLS]g[ARGS]{}", None),
        ("mistral", "[TOOL_CALLS][]", None),
        ("mistral", "[1, 2] [TOOLS]", None),
        ("pythonic", "[f(a=1)]", ("", F)),
        ("pythonic", "[f(a=1), f(a=1)]", ("", F * 2)),
        ("pythonic", "[f()]", ("", [("f", "{}")])),
        ("pythonic", r"""[f(a='it\'s \x41\n', b=[True, -1.5], c={"k": null},)]""",
         ("", [("f", r"""{"a": "it's A\n", "b": [true, -1.5], "c": {"k": null}}""")])),
        ("pythonic", "[f(a=1), g(b=2)]", (", g(b=2)]", F)),
        ("pythonic", "[f(a=1", None),
        ("pythonic", "[f(1)]", None),
        ("pythonic", "[f(a=b)]", None),
        ("pythonic", "[f(a=007)]", None),
        ("pythonic", "[1, 2]", None),
        ("pythonic", "See [f(a=1)]", None),
        ("pythonic", f"[f(a={'[' * 99}1{']' * 99})]", None),
    ],
)  # fmt: skip
def test_what_is_a_call_and_what_is_text(name, text, expected):
    said, _, calls = joined([text], parser(name))
    assert (said, calls) == (expected or (text, []))


@pytest.mark.parametrize(
    ("text", "is_thinking", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nHi", False, ("Hi", "Hm.")),
        ("\n<think>Hm.</think>Hi", False, ("Hi", "Hm.")),
        ("Hm.\n</think>\n\nHi", True, ("Hi", "Hm.")),
        ("<think>\nHm.</think>Hi", True, ("Hi", "Hm.")),
        ("<think>\n\n</think>\n\nHi", False, ("Hi", "")),
        ("<think>Hm. \n", False, ("", "Hm. \n")),
        ("Hm.", True, ("", "Hm.")),
        ("Hm.</thi", True, ("", "Hm.</thi")),
        ("Hi <think>no</think>", False, ("Hi <think>no</think>", "")),
        ("<thi", False, ("<thi", "")),
        ("  Hi\n", False, ("  Hi\n", "")),
    ],
)
def test_what_is_thought_and_what_is_said(text, is_thinking, expected):
    said, thought, calls = joined([text], parser(has_reasoning=True, is_thinking=is_thinking))
    assert (said, thought, calls) == (*expected, [])


@every_format
def test_a_call_comes_after_the_thoughts_and_not_within_them(name):
    text = f"<think>{call(name, 'f', '{}')}</think>\n\n{call(name, 'f', '{}')}"
    said, thought, calls = joined(list(text), parser(name, has_reasoning=True))
    assert (said, thought, calls) == ("", call(name, "f", "{}"), [("f", "{}")])


@pytest.mark.parametrize("name", ["hermes", "llama3_json", "mistral"])
def test_arguments_are_handed_on_as_they_come(name):
    whole = call(name, "f", '{"text": "long text"}')
    start = whole.index("long ")
    one = parser(name)
    assert [gain.kind for gain in one.feed(whole[:start])] == [Kind.CALL, Kind.ARGUMENTS]
    assert one.feed("lo") == [Gain(Kind.ARGUMENTS, "lo", 0)]
    assert one.feed("ng ") == [Gain(Kind.ARGUMENTS, "ng ", 0)]


def test_text_is_held_back_only_while_it_may_be_a_mark():
    one = parser("hermes")
    assert one.feed("Hi <tool") == [Gain(Kind.CONTENT, "Hi")]
    assert one.feed("box") == [Gain(Kind.CONTENT, " <toolbox")]


def test_only_so_many_calls_are_told_as_are_wanted():
    text = f"{HERMES}\n{HERMES}\nDone."
    assert joined([text], parser("hermes", max_calls=1)) == ("Done.", "", F)


def test_special_tokens_count_only_as_marks_of_the_format():
    one = parser("mistral")
    mark, other = (Token(1, text, "", True) for text in ("[TOOL_CALLS]", "</s>"))
    assert (one.text(mark), one.text(other)) == ("[TOOL_CALLS]", "")
    assert one.text(mark, is_cut=True) == ""
    assert one.text(Token(2, "ab", "a", False)) == "a"
    tokens = [mark, Token(2, 'f[ARGS]{"a": 1}', 'f[ARGS]{"a": 1}', False), other]
    assert told(one.whole(tokens, is_cut=False)) == ("", "", F)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ '<tool_call>' }}{{ tool_call | tojson }}", "hermes"),
        ("<tool_call><function={{ name }}>", None),
        ("<tool_call>{{ name }}<arg_key>", None),
        ("[AVAILABLE_TOOLS][TOOL_CALLS]", "mistral"),
        ("<|python_tag|> Environment: ipython", "llama3_json"),
        ('{"name": function name, "parameters": dictionary of argument name', "llama3_json"),
        ("[func_name1(params_name1=params_value1)] <|python_tag|>", "pythonic"),
        ("{{ message.content }}", None),
    ],
)
def test_the_format_is_told_by_the_template(template, name):
    assert tool_format("auto", template) == name
    assert tool_format("none", template) is None
    assert tool_format("pythonic", template) == "pythonic"


def test_thoughts_are_told_by_the_template():
    qwen = "{% if '</think>' in content %}"
    assert [has_reasoning("auto", text) for text in (qwen, "")] == [True, False]
    assert [has_reasoning("think", text) for text in (qwen, "")] == [True, True]
    assert [has_reasoning("none", text) for text in (qwen, "")] == [False, False]
