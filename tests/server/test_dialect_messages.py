import json

import pytest
from dialect_config import dialect_config

from server.dialects import messages_reply
from server.dialects.call import ChatPrompt
from server.dialects.messages import MessagesDialect, parse_count
from server.errors import ErrorType, Problem

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "S"}
DIALECT = MessagesDialect(dialect_config())


def part(text):
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


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
            for kind in ("image", "document", "tool_use", "tool_result")
        ),
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
        ({"tools": [{"name": "f", "input_schema": {}}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
    ],
)
def test_tools_are_refused_in_words(fields, field):
    for take in (parse, lambda **body: parse_count(dialect_config(), json.dumps(body).encode())):
        with pytest.raises(Problem) as caught:
            take(messages=[USER], max_tokens=9, **fields)
        assert (caught.value.error_type, caught.value.field) == (ErrorType.TOOL_ERROR, field)


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
