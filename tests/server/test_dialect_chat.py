import json

import pytest
from dialect_config import dialect_config

from server.dialects.call import ChatPrompt
from server.dialects.chat import ChatDialect
from server.errors import ErrorType, Problem

USER = {"role": "user", "content": "Hi"}


def part(text):
    return {"type": "text", "text": text}


def parse(**fields):
    return ChatDialect(dialect_config()).parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], [USER]),
        ([{**USER, "name": None, "tool_calls": None, "refusal": None}], [USER]),
        ([{**USER, "name": "Bo"}], [{**USER, "name": "Bo"}]),
        ([{**USER, "tool_calls": []}], [USER]),
        ([{"role": "user", "content": ""}], [{"role": "user", "content": ""}]),
        ([{"role": "user", "content": []}], [{"role": "user", "content": ""}]),
        (
            [{"role": "user", "content": [part("a"), part("b")]}],
            [{"role": "user", "content": "ab"}],
        ),
        (
            [{"role": "system", "content": "S"}, USER, {"role": "tool", "content": "T"}],
            [{"role": "system", "content": "S"}, USER, {"role": "tool", "content": "T"}],
        ),
    ],
)  # fmt: skip
def test_messages_reach_the_template_with_plain_contents(messages, expected):
    (generation,) = parse(messages=messages).generations()
    assert generation.prompt == ChatPrompt(tuple(expected))


def test_a_chat_that_ends_with_the_assistant_goes_on_there():
    turn = {"role": "assistant", "content": "Once upon"}
    (generation,) = parse(messages=[USER, turn]).generations()
    assert generation.prompt == ChatPrompt((USER, turn), is_continued=True)
    (generation,) = parse(messages=[turn, USER]).generations()
    assert generation.prompt.is_continued is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`messages` is missing"),
        ({"messages": None}, "`messages`: expected `array`, got `null`"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [{}]}, "`messages[0].role` is missing"),
        ({"messages": ["hi"]}, "`messages[0]`: expected `object`, got `str`"),
        ({"messages": [USER, {"role": "user"}]}, "`messages[1].content` is missing"),
        ({"messages": [{"role": "user", "content": None}]}, "`messages[0].content` is missing"),
        (
            {"messages": [{"role": "user", "content": 1}]},
            "`messages[0].content`: expected `str | array | null`, got `int`",
        ),
        ({"messages": [{"role": "r" * 65, "content": ""}]},
         "`messages[0].role`: expected `str` of length <= 64"),
        ({"messages": [{**USER, "name": "n" * 2049}]},
         "`messages[0].name`: expected `str` of length <= 2048"),
        ({"messages": [USER] * 10_001}, "`messages`: expected `array` of length <= 10000"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "`messages[0].content[0].text` is missing",
        ),
        (
            {"messages": [{"role": "user", "content": [part("a"), {"type": "image_url"}]}]},
            "`messages[0].content[1].type`: parts of type `image_url` are not supported "
            "by this version",
        ),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_are_refused(fields, message):
    with pytest.raises(Problem) as caught:
        parse(**fields)
    assert caught.value.status == 422
    assert caught.value.message == f"Input validation error: {message}"


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": [USER], "tools": [TOOL]}, "tools"),
        ({"messages": [USER], "tools": [TOOL], "tool_choice": "auto"}, "tools"),
        ({"messages": [USER], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [USER], "tool_choice": TOOL}, "tool_choice"),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [TOOL]}]},
            "messages[1].tool_calls",
        ),
    ],
)
def test_tools_that_would_be_used_are_refused_by_name(fields, field):
    with pytest.raises(Problem) as caught:
        parse(**fields)
    assert (caught.value.status, caught.value.error_type) == (422, ErrorType.TOOL_ERROR)
    message = f"Tool error: `{field}`: tools are not supported by this version"
    assert (caught.value.message, caught.value.field) == (message, field)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": []},
        {"tools": None, "tool_choice": None},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [], "response_format": {"type": "text"}},
    ],
)
def test_tools_that_change_nothing_are_not_refused(fields):
    assert parse(messages=[USER], **fields).num_permits == 1
