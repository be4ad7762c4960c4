import json

import pytest
from dialect_config import dialect_config

from engine import GrammarKind
from server.dialects.call import ChatPrompt, EncodedPrompt
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


CALL = {"id": "a1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def test_calls_and_their_results_reach_the_template_with_arguments_as_objects():
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "content": "2", "tool_call_id": "a1"}
    (generation,) = parse(messages=[USER, called, result]).generations()
    function = {"name": "f", "arguments": {"x": 1}}
    call = {"id": "a1", "type": "function", "function": function}
    assert generation.prompt.messages == (
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {**result, "name": "f"},
    )
    assert generation.prompt.is_continued is False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ("{}", {}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ("\\", "\\"),
    ],
)
def test_arguments_that_are_no_object_stay_the_text_they_are(arguments, expected):
    call = {"function": {"name": "f", "arguments": arguments}}
    chat = parse(messages=[{"role": "assistant", "tool_calls": [call]}, USER])
    (shown,) = chat.prompt.messages[0]["tool_calls"]
    assert shown == {"type": "function", "function": {"name": "f", "arguments": expected}}


def test_a_call_that_was_made_ends_the_assistants_turn():
    called = {"role": "assistant", "content": "x", "tool_calls": [CALL]}
    assert parse(messages=[USER, called]).prompt.is_continued is False


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HERMES = {"tool_format": "hermes"}


def deep(depth):
    return {"a": deep(depth - 1)} if depth else {}


def parse_with(config, **fields):
    dialect = ChatDialect(dialect_config(**config))
    return dialect.parse(json.dumps({"messages": [USER], **fields}).encode())


def test_tools_reach_the_template_as_they_were_written():
    tools = [{"function": {**TOOL["function"], "strict": True, "description": None}}, TOOL]
    chat = parse_with(HERMES, tools=tools)
    assert chat.prompt.variables == {"tools": [TOOL, TOOL]}
    assert (chat.offer.names, chat.offer.max_calls) == ({"f"}, None)
    assert parse_with(HERMES, tools=[TOOL], parallel_tool_calls=False).offer.max_calls == 1


def test_tools_that_are_not_to_be_called_are_shown_to_nobody():
    chat = parse_with(HERMES, tools=[TOOL], tool_choice="none")
    assert (chat.prompt.variables, chat.offer, chat.parsers(())) == ({}, None, [])


NOW = {"type": "function", "function": {"name": "now"}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"f", "now"}),
        ("now", {"now"}),
        ({"type": "function", "function": {"name": "f"}}, {"f"}),
    ],
)
@pytest.mark.parametrize("form", ["hermes", "llama3_json", "mistral", "pythonic"])
def test_a_call_that_must_be_made_is_a_grammar_of_the_tools_that_may_be_called(form, choice, names):
    chat = parse_with({"tool_format": form}, tools=[TOOL, NOW], tool_choice=choice)
    (generation,) = chat.generations()
    assert generation.params.grammar.kind == GrammarKind.LARK
    assert generation.grammar_field == "tools"
    assert chat.prompt.variables == {"tools": [TOOL, NOW]}
    assert chat.offer.names == names
    assert {
        name for name in ("f", "now") if f'"{name}\\' in generation.params.grammar.source
    } == names


@pytest.mark.parametrize(
    ("config", "fields", "field", "message"),
    [
        ({}, {"tools": [TOOL]}, "tools",
         "`tools`: the model's chat template has no calls in a format that is known here; "
         "--tool-call-parser can name one"),
        (HERMES, {"tool_choice": "required"}, "tool_choice",
         "`tool_choice` must come with `tools`"),
        (HERMES, {"tools": [TOOL], "tool_choice": {"function": {"name": "g"}}}, "tool_choice",
         "Tool with name g not found"),
        (HERMES, {"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools",
         "Grammar and tools are mutually exclusive"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_had_are_a_tool_error(config, fields, field, message):
    with pytest.raises(Problem) as caught:
        parse_with(config, **fields)
    assert (caught.value.status, caught.value.error_type) == (422, ErrorType.TOOL_ERROR)
    assert (caught.value.message, caught.value.field) == (f"Tool error: {message}", field)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [TOOL] * 129}, "`tools`: expected `array` of length <= 128"),
        ({"tools": [{"type": "function"}]}, "`tools[0].function` is missing"),
        ({"tools": [{"function": {}}]}, "`tools[0].function.name` is missing"),
        ({"tools": [{"function": {"name": "a b"}}]},
         "`tools[0].function.name`: expected `str` matching regex '^[\\\\w.:/-]{1,128}$'"),
        ({"tools": [{**TOOL, "type": "web"}]},
         "`tools[0].type`: tools of type `web` are not supported by this version"),
        ({"tools": [TOOL, {"function": {"name": "g", "parameters": deep(33)}}]},
         "`tools[1].function.parameters` must be nested at most 32 deep. Given: more than 32"),
        ({"tools": [{"function": {"name": "f", "description": "x" * 600_000}}]},
         "`tools` must have at most 524288 bytes of JSON. Given: 600062"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 129}]},
         "`messages[0].tool_calls`: expected `array` of length <= 128"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]},
         "`messages[0].tool_calls[0].function` is missing"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": json.dumps(deep(33))}}]}]},
         "`messages[0].tool_calls[0].function.arguments` must be nested at most 32 deep. "
         "Given: more than 32"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a":' * 9_999}}]}]},
         "`messages[0].tool_calls[0].function.arguments` is nested too deeply"),
        ({"chat_template": "x"},
         "`chat_template`: templates other than the model's are not supported by this version"),
        ({"chat_template_kwargs": {"chat_template": "x"}},
         "`chat_template_kwargs`: object contains unknown field `chat_template`"),
        ({"chat_template_kwargs": {"enable_thinking": "x"}},
         "`chat_template_kwargs.enable_thinking`: expected `bool`, got `str`"),
    ],
)  # fmt: skip
def test_tools_and_template_options_have_limits(fields, message):
    with pytest.raises(Problem) as caught:
        parse_with(HERMES, **fields)
    assert caught.value.status == 422
    assert caught.value.message == f"Input validation error: {message}"


def test_a_client_may_tell_the_template_some_things():
    options = {"enable_thinking": False, "reasoning_effort": "high"}
    chat = parse_with({}, chat_template_kwargs=options, reasoning_effort="low")
    assert chat.prompt.variables == options
    assert parse_with({}, reasoning_effort="low").prompt.variables == {"reasoning_effort": "low"}
    assert parse_with({}).prompt.variables == {}


@pytest.mark.parametrize(
    ("ending", "turn", "is_thinking"),
    [
        ("assistant\n<think>\n", None, True),
        ("<think>\n\n</think>\n\n", None, False),
        ("", None, False),
        ("<think>", "No.", False),
        ("", "<think>Hm", True),
        ("", "<think>Hm</think>So", False),
    ],
)
def test_a_turn_begins_inside_a_thought_where_the_prompt_leaves_one_open(ending, turn, is_thinking):
    own = [{"role": "assistant", "content": turn}] if turn else []
    chat = parse_with({"has_reasoning": True}, messages=[USER, *own])
    assert chat.prompt.is_ending_wanted
    (parser,) = chat.parsers([EncodedPrompt(9, ending)])
    (gain,) = parser.feed("Hm") + parser.end()
    assert (gain.kind == "reasoning") is is_thinking


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
    chat = parse(messages=[USER], **fields)
    assert (chat.num_permits, chat.parsers(())) == (1, [])
