import json

import pytest
from dialect_config import dialect_config

from engine import TextSpan
from server.dialects import tokenize
from server.dialects.call import ChatPrompt
from server.errors import Problem

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
SPANS = [TextSpan(1, "", 0, 0), TextSpan(70, "\u00e9", 0, 2), TextSpan(2, " x", 2, 4)]


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (
            {"inputs": "A", "parameters": {"truncate": 1}},
            tokenize.TokenizeCall("A", has_spans=True),
        ),
        ({"inputs": "A", "prompt": None}, tokenize.TokenizeCall("A", has_spans=True)),
        ({"prompt": "A"}, tokenize.TokenizeCall("A", has_spans=False)),
        ({"messages": [USER]}, tokenize.TokenizeCall(ChatPrompt((USER,)), has_spans=False)),
    ],
)
def test_what_to_tokenize_and_how_to_answer(body, call):
    assert tokenize.parse(dialect_config(), json.dumps(body).encode()) == call


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "one of `inputs`, `prompt` and `messages` is missing"),
        (
            {"inputs": "A", "messages": [USER]},
            "only one of `inputs`, `prompt` and `messages` may be given. "
            "Given: `inputs` and `messages`",
        ),
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"prompt": ""}, "`prompt` cannot be empty"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"inputs": "A", "tools": [TOOL]}, "`tools` must come with `messages`"),
        ({"inputs": ["A"]}, "`inputs`: expected `str | null`, got `array`"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(body, message):
    with pytest.raises(Problem) as caught:
        tokenize.parse(dialect_config(), json.dumps(body).encode())
    assert (caught.value.status, caught.value.message) == (
        422,
        f"Input validation error: {message}",
    )


def test_tools_are_tokenized_with_the_messages():
    config = dialect_config(tool_format="hermes")
    call = tokenize.parse(config, json.dumps({"messages": [USER], "tools": [TOOL]}).encode())
    assert call.prompt == ChatPrompt((USER,), variables={"tools": [TOOL]})


def test_inputs_are_answered_with_tgis_array():
    assert tokenize.spans_body(SPANS) == (
        b'[{"id":1,"text":"","start":0,"stop":0},{"id":70,"text":"\\u00e9","start":0,"stop":2},'
        b'{"id":2,"text":" x","start":2,"stop":4}]'
    )


def test_prompts_are_answered_with_a_list_of_ids():
    assert tokenize.ids_body([1, 70, 2]) == b"[1,70,2]"


def test_a_chat_is_answered_with_its_tokens_and_its_text():
    body = b'{"messages":[{"role":"user","content":"Hi"}],"tools":[1]}'
    assert tokenize.parse_chat(body) == ChatPrompt((USER,))
    assert tokenize.chat_body(SPANS[2:], "<x>\u2028") == (
        b'{"tokenize_response":[{"id":2,"text":" x","start":2,"stop":4}],'
        b'"templated_text":"<x>\\u2028"}'
    )


def test_a_chat_without_messages_is_refused():
    with pytest.raises(Problem, match="`messages` cannot be empty"):
        tokenize.parse_chat(b'{"messages":[]}')


def ids(tokens):
    return tokenize.parse_ids(dialect_config(), json.dumps({"tokens": tokens}).encode())


def test_ids_are_decoded_as_they_are_and_answered_with_their_text():
    assert ids([0, 31_999, 5]) == [0, 31_999, 5]
    assert ids([]) == []
    assert tokenize.text_body("a\u2028") == b'{"prompt":"a\\u2028"}'


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, 32_000], "`tokens` must hold token ids >= 0 and < 32000. Given: 32000"),
        ([-1], "`tokens[0]`: expected `int` >= 0"),
        (["a"], "`tokens[0]`: expected `int`, got `str`"),
        (None, "`tokens`: expected `array`, got `null`"),
        ([0] * 2_000_001, "`tokens`: expected `array` of length <= 2000000"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(tokens, message):
    with pytest.raises(Problem) as caught:
        ids(tokens)
    assert caught.value.message == f"Input validation error: {message}"
