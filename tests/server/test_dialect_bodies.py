"""Whatever bytes come, a dialect parses them or raises a Problem."""

import json
from functools import partial

import pytest
from dialect_config import dialect_config
from hypothesis import given, settings
from hypothesis import strategies as st

from server.dialects import bodies, tokenize
from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.errors import ErrorType, Problem

CONFIG = dialect_config()
PARSERS = {
    "generate": GenerateDialect(CONFIG).parse,
    "generate_stream": GenerateStreamDialect(CONFIG).parse,
    "compat": CompatDialect(CONFIG).parse,
    "completions": CompletionsDialect(CONFIG).parse,
    "chat": ChatDialect(CONFIG).parse,
    "invocations": InvocationsDialect(CONFIG).parse,
    "vertex": VertexDialect(CONFIG).parse,
    "tokenize": partial(tokenize.parse, CONFIG),
    "chat_tokenize": tokenize.parse_chat,
}
often = settings(max_examples=40, deadline=None)
everywhere = pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)

NEEDED = (
    b'"inputs":"A","messages":[{"role":"user","content":"A"}],"prompt":"A",'
    b'"instances":[{"inputs":"A"}]'
)
MALFORMED = {
    "empty": b"",
    "space": b"  ",
    "cut": b"{%b",
    "text after": b"{%b} x",
    "two documents": b"{%b}{}",
    "NaN": b'{%b,"x":NaN}',
    "Infinity": b'{%b,"x":-Infinity}',
    "single quotes": b"{%b,'x':1}",
    "byte order mark": b"\xef\xbb\xbf{%b}",
    "control character": b'{%b,"x":"a\nb"}',
    "deep": b'{%b,"x":' + b"[" * 100_000,
    "deep and closed": b'{%b,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{%b,"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
}


@everywhere
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json_is_400_and_says_so(parse, body):
    with pytest.raises(Problem) as caught:
        parse(body.replace(b"%b", NEEDED))
    assert (caught.value.status, caught.value.error_type) == (400, ErrorType.VALIDATION)
    assert caught.value.message.startswith("Input validation error: the body is not JSON: ")


@everywhere
@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true", b"[" * 100_000])
def test_what_is_no_object_is_422(parse, body):
    with pytest.raises(Problem, match="the body: expected `object`, got") as caught:
        parse(body)
    assert caught.value.status == 422


@everywhere
def test_what_is_not_utf_8_is_400(parse):
    with pytest.raises(Problem, match="it is not UTF-8") as caught:
        parse(b"{%b}" % NEEDED.replace(b"A", b"\xff"))
    assert caught.value.status == 400


@everywhere
@pytest.mark.parametrize(
    ("escape", "told"),
    [
        (rb"\ud83d", r"\ud83d"),
        (rb"\uDE00", r"\uDE00"),
        (rb"x\ud83dx" + b"x" * 100, r"\ud83d"),
        (rb"\ud83d\ud83d\ude00", r"\ud83d"),
        (rb"\ud83d\ude00\ude00", r"\ude00"),
        (rb"\ud83d\n", r"\ud83d"),
    ],
)
def test_half_of_a_character_is_422_and_named(parse, escape, told):
    with pytest.raises(Problem) as caught:
        parse(b'{"x":"' + escape + b'",' + NEEDED + b"}")
    assert caught.value.status == 422
    expected = f"{told} is half of a character; text must be valid Unicode"
    assert caught.value.message == f"Input validation error: {expected}"


def test_whole_characters_are_texts():
    call = GenerateDialect(CONFIG).parse(rb'{"inputs":"\ud83d\ude00 \\ud83d \u0000"}')
    assert call.inputs == "\U0001f600 \\ud83d \0"


@pytest.mark.parametrize("digits", [5_000, 1_000_000])
def test_a_number_of_a_million_digits_is_refused(digits):
    body = b'{"inputs":"A","parameters":{"seed":' + b"9" * digits + b"}}"
    with pytest.raises(Problem, match=r"`parameters\.seed`: integer value out of range") as caught:
        GenerateDialect(CONFIG).parse(body)
    assert caught.value.status == 422
    body = b'{"inputs":"A","parameters":{"temperature":' + b"9" * digits + b"}}"
    with pytest.raises(Problem, match=r"`parameters\.temperature`: number out of range"):
        GenerateDialect(CONFIG).parse(body)


def test_a_huge_number_in_an_unknown_field_is_ignored():
    assert GenerateDialect(CONFIG).parse(b'{"inputs":"A","x":' + b"9" * 1_000_000 + b"}")


FIELDS = sorted(
    {
        name
        for body in (
            bodies.CompatBody,
            bodies.Parameters,
            bodies.CompletionBody,
            bodies.ChatBody,
            bodies.TokenizeBody,
            bodies.VertexBody,
            bodies.ChatMessageBody,
            bodies.ContentPart,
            bodies.StreamOptions,
            bodies.ResponseFormat,
        )
        for name in body.__struct_fields__
    }
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.sampled_from(["text", "user", "assistant", "none", "1", "adapter:a"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=2), inner, max_size=6)
    ),
    max_leaves=20,
)
SOUND = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.text(max_size=3) | JSON,
        "prompt": st.just("A") | JSON,
        "messages": st.just([{"role": "user", "content": "A"}]) | JSON,
        "parameters": st.dictionaries(st.sampled_from(FIELDS), LEAVES, max_size=4),
        "instances": st.lists(st.just({"inputs": "A"}) | JSON, max_size=3),
    },
)
BODIES = st.builds(
    lambda sound, more: {**more, **sound},
    SOUND,
    st.dictionaries(st.sampled_from(FIELDS), LEAVES, max_size=4),
)


def check(parse, body):
    """Parse and check ranges as the handler does; a Problem is an answer, all else a bug."""
    problem = None
    try:
        call = parse(body)
        if hasattr(call, "generations"):
            assert len(call.generations()) == call.num_permits
    except Problem as raised:
        problem = raised
    assert problem is None or (problem.status in (400, 422) and problem.message)


@everywhere
@often
@given(value=BODIES | JSON)
def test_any_json_parses_or_is_a_problem(parse, value):
    check(parse, json.dumps(value).encode())


@everywhere
@often
@given(body=st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode()))
def test_any_bytes_parse_or_are_a_problem(parse, body):
    check(parse, body)


@everywhere
@often
@given(value=BODIES, cut=st.integers(0, 200), put=st.binary(max_size=3))
def test_a_damaged_body_parses_or_is_a_problem(parse, value, cut, put):
    body = json.dumps(value).encode()
    check(parse, body[:cut] + put + body[cut + len(put) :])
