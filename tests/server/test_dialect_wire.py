import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Delta, Token, TopToken
from server.dialects import wire
from server.dialects.answers import StreamEvent, TokenAnswer
from server.dialects.tgi_reply import GenerateStreamReply, Shape

untimed = settings(deadline=None)
LOGPROBS = st.none() | st.floats()
TEXTS = st.text()


def tops():
    return st.builds(TopToken, st.integers(0, 2**31), TEXTS, LOGPROBS, st.booleans())


def tokens():
    return st.builds(
        Token,
        st.integers(0, 2**31),
        TEXTS,
        TEXTS,
        st.booleans(),
        LOGPROBS,
        st.lists(tops(), max_size=2).map(tuple),
    )


def answered(token):
    return TokenAnswer(token.id, token.text, wire.finite(token.logprob), token.is_special)


@untimed
@given(TEXTS)
def test_a_quoted_text_is_ascii_and_reads_back(text):
    quoted = wire.text(text)
    assert quoted.isascii()
    assert json.loads(quoted) == text


@untimed
@given(st.floats())
def test_a_number_reads_back_or_is_null(value):
    expected = value if math.isfinite(value) else None
    assert json.loads(wire.number(value)) == expected == wire.finite(value)


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")]])
def test_what_json_cannot_say_is_never_sent(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.dumps(value)


@untimed
@given(TEXTS)
def test_a_template_filled_with_a_text_is_the_event_of_that_text(text):
    before, after = wire.template({"a": [wire.HOLE], "b": None})
    assert (before + wire.text(text) + after).encode() == wire.event({"a": [text], "b": None})


@untimed
@given(st.lists(tokens(), max_size=3))
def test_the_fast_path_writes_the_bytes_that_the_documented_type_has(tokens):
    shape = Shape(prefix="", seeds=(None,), has_details=False, has_top_tokens=True, is_list=False)
    expected = [
        StreamEvent(
            index=index,
            token=answered(token),
            generated_text=None,
            details=None,
            **({"top_tokens": list(map(answered, token.top))} if token.top else {}),
        )
        for index, token in enumerate(tokens, 1)
    ]
    written = GenerateStreamReply(shape).delta(0, Delta(tuple(tokens)))
    assert written == b"".join(map(wire.event, expected))
