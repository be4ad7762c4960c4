import json
from functools import partial

import pytest
from dialect_config import dialect_config

from server.dialects import messages_reply
from server.dialects.call import ChatPrompt
from server.dialects.messages import MessagesDialect, parse_count
from server.errors import ErrorType, Problem

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "S"}
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "R"}
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
DIALECT = MessagesDialect(dialect_config())


def part(text):
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def deep(number):
    """Nest so many objects within one."""
    return {} if number == 0 else {"a": deep(number - 1)}


def parse(**fields):
    return DIALECT.parse(json.dumps(fields).encode())


CHATS = [
    ({"messages": [USER]}, [USER]),
    ({"messages": [{"role": "user", "content": [part("H"), part("i")]}]}, [USER]),
    ({"messages": [USER], "system": "S"}, [SYSTEM, USER]),
    ({"messages": [USER], "system": [part("S")]}, [SYSTEM, USER]),
    ({"messages": [USER], "system": ""}, [USER]),
    ({"messages": [USER], "system": []}, [USER]),
    ({"messages": [USER], "system": None}, [USER]),
]


@pytest.mark.parametrize(("fields", "messages"), CHATS)
def test_turns_reach_the_template_as_messages(fields, messages):
    (generation,) = parse(max_tokens=9, **fields).generations()
    assert generation.prompt == ChatPrompt(tuple(messages))


@pytest.mark.parametrize(("fields", "messages"), CHATS)
def test_the_same_turns_are_counted(fields, messages):
    assert parse_count(dialect_config(), json.dumps(fields).encode()) == ChatPrompt(tuple(messages))
    assert messages_reply.count_body(7) == b'{"input_tokens":7}'


def test_turns_that_end_with_the_assistant_go_on_there():
    turn = {"role": "assistant", "content": "Once"}
    (generation,) = parse(max_tokens=9, messages=[USER, turn]).generations()
    assert generation.prompt == ChatPrompt((USER, turn), is_continued=True)


def test_the_parameters_are_those_of_a_chat():
    call = parse(
        messages=[USER],
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END", "."],
        seed=4,
        stream=True,
    )
    (generation,) = call.generations()
    params = generation.params
    assert generation.max_new_tokens == 7
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 3)
    assert (params.stop, params.seed) == (("END", "."), 4)
    assert (call.is_stream, call.num_permits) == (True, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"user_id": "u"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "auto"},
        {"tools": []},
        {"tools": [{"name": "f"}], "tool_choice": {"type": "none"}},
        {"tool_choice": {"type": "auto"}},
        {"stop_sequences": None},
        {"n": 1},
    ],
)
def test_what_changes_nothing_is_taken(fields):
    assert parse(messages=[USER], max_tokens=9, **fields).generations()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "`messages`: expected `array`, got `null`"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [{"content": "Hi"}]}, "`messages[0].role` is missing"),
        ({"messages": [{"role": "user", "content": None}]},
         "`messages[0].content`: expected `str | array`, got `null`"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
         "`messages[0].content[0].text` is missing"),
        *(
            ({"messages": [USER, {"role": "user", "content": [part("a"), {"type": kind}]}]},
             f"`messages[1].content[1].type`: parts of type `{kind}` are not supported "
             "by this version")
            for kind in ("image", "document", "tool_use", "thinking")
        ),
        ({"messages": [USER, {"role": "assistant", "content": [RESULT]}]},
         "`messages[1].content[0].type`: parts of type `tool_result` are not supported "
         "by this version"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
         "`messages[0].content[0].tool_use_id` is missing"),
        ({"messages": [{"role": "user", "content": [{**RESULT, "content": [{"type": "image"}]}]}]},
         "`messages[0].content[0].content[0].type`: parts of type `image` are not supported "
         "by this version"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
         "`messages[0].content[0].name` is missing"),
        ({"messages": [{"role": "assistant", "content": [{**CALL, "input": deep(33)}]}]},
         "`messages[0].content[0].input` must be nested at most 32 deep. Given: more than 32"),
        ({"messages": [{"role": "assistant", "content": [CALL] * 129}]},
         "`messages[0].content` must have at most 128 blocks of type `tool_use`. Given: 129"),
        ({"tools": [{"name": "f", "input_schema": deep(33)}]},
         "`tools[0].input_schema` must be nested at most 32 deep. Given: more than 32"),
        ({"tools": [TOOL] * 129}, "`tools`: expected `array` of length <= 128"),
        ({"tools": [{"name": "f g"}]},
         "`tools[0].name`: expected `str` matching regex '^[\\\\w.:/-]{1,128}$'"),
        ({"tools": [{"name": "bash", "type": "bash_20250124"}]},
         "`tools[0].type`: tools of type `bash_20250124` are not supported by this version"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "`tool_choice.name` is missing"),
        ({"tools": [TOOL], "tool_choice": {"type": "x"}},
         "`tool_choice.type` must be one of auto, any, tool, none. Given: x"),
        ({"output_config": {"format": {"type": "grammar"}}},
         "`output_config.format.type`: formats of type `grammar` are not supported "
         "by this version"),
        ({"output_config": {"format": {"type": "json_schema"}}},
         "`output_config.format.schema` is missing"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}},
          "grammar": {"type": "regex", "value": "a"}},
         "`grammar` and `output_config.format` exclude each other"),
        ({"system": [{"type": "image"}]},
         "`system[0].type`: parts of type `image` are not supported by this version"),
        ({"max_tokens": None}, "`max_tokens`: expected `int`, got `null`"),
        ({"max_tokens": 0}, "`max_tokens` must be strictly positive. Given: 0"),
        ({"stop_sequences": ["a"] * 5},
         "`stop_sequences` supports up to 4 stop sequences. Given: 5"),
        ({"stop_sequences": [""]}, "`stop_sequences` must not contain an empty string"),
        ({"top_k": -2}, "`top_k` must be >= -1. Given: -2"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and <= 1.0. Given: 0.0"),
        ({"n": 2}, "`n` must be 1. Given: 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_words(fields, message):
    with pytest.raises(Problem) as caught:
        parse(**{"messages": [USER], "max_tokens": 9, **fields}).generations()
    assert (caught.value.status, caught.value.message) == (
        422,
        f"Input validation error: {message}",
    )


def test_max_tokens_must_be_there():
    with pytest.raises(Problem, match="`max_tokens` is missing"):
        parse(messages=[USER])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ],
)
def test_tools_that_are_not_there_are_refused(fields, field):
    config = dialect_config(tool_format="hermes")
    body = json.dumps({"messages": [USER], "max_tokens": 9, **fields}).encode()
    for take in (MessagesDialect(config).parse, partial(parse_count, config)):
        with pytest.raises(Problem) as caught:
            take(body)
        assert (caught.value.error_type, caught.value.field) == (ErrorType.TOOL_ERROR, field)


def test_blocks_are_messages_of_a_chat():
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    assistant = {"role": "assistant", "content": [thought, hidden, part("A"), CALL]}
    results = {"role": "user", "content": [RESULT, {**RESULT, "is_error": True}, part("Go")]}
    call = parse(max_tokens=9, messages=[USER, assistant, results])
    (generation,) = call.generations()
    function = {"name": "f", "arguments": {"a": 1}}
    told = {"role": "tool", "tool_call_id": "c1", "name": "f"}
    assert generation.prompt.messages == (
        USER,
        {
            "role": "assistant",
            "content": "A",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {**told, "content": "R"},
        {**told, "content": "Error: R"},
        {"role": "user", "content": "Go"},
    )


@pytest.mark.parametrize(
    ("choice", "is_forced", "most"),
    [
        (None, False, None),
        ({"type": "auto"}, False, None),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, 1),
        ({"type": "any"}, True, None),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": True}, True, 1),
    ],
)
def test_tools_are_offered_as_in_a_chat(choice, is_forced, most):
    dialect = MessagesDialect(dialect_config(tool_format="hermes"))
    fields = {"messages": [USER], "max_tokens": 9, "tools": [TOOL], "tool_choice": choice}
    call = dialect.parse(json.dumps(fields).encode())
    (generation,) = call.generations()
    (shown,) = generation.prompt.variables["tools"]
    parameters = {"type": "object", "properties": {}}
    assert shown == {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert (generation.params.grammar is not None) == is_forced
    assert generation.grammar_field == ("tools" if is_forced else "grammar")
    assert call.chat.offer.max_calls == most


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Problem(ErrorType.VALIDATION, "no"), "invalid_request_error"),
        (Problem(ErrorType.VALIDATION, "no", status_override=400), "invalid_request_error"),
        (Problem(ErrorType.VALIDATION, "no", status_override=413), "request_too_large"),
        (Problem(ErrorType.TOOL_ERROR, "no"), "invalid_request_error"),
        (Problem(ErrorType.AUTHENTICATION, "no"), "authentication_error"),
        (Problem(ErrorType.NOT_FOUND, "no"), "not_found_error"),
        (Problem(ErrorType.OVERLOADED, "no"), "rate_limit_error"),
        (Problem(ErrorType.GENERATION, "no"), "api_error"),
        (Problem(ErrorType.INTERNAL, "no"), "api_error"),
    ],
)
def test_a_problem_has_anthropics_type_and_ours(problem, kind):
    assert json.loads(DIALECT.problem(problem)) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "error_type": problem.error_type.value,
    }
