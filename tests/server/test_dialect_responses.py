import json

import pytest
from dialect_config import dialect_config

from engine import Grammar, GrammarKind
from server.dialects.call import ChatPrompt
from server.dialects.responses import ResponsesDialect
from server.errors import ErrorType, Problem

USER = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Lo"}
OUTPUT = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Lo", "annotations": [], "logprobs": []}],
}
"""An item of an answer, as clients send it back."""


TOOL = {"type": "function", "name": "f", "description": "F.", "strict": True}
CALL = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}


def deep(number):
    """Nest so many objects within one."""
    return {} if number == 0 else {"a": deep(number - 1)}


def parse(**fields):
    return ResponsesDialect(dialect_config()).parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"input": "Hi"}, [USER]),
        ({"input": [USER]}, [USER]),
        ({"input": [{**USER, "type": "message", "id": "x"}]}, [USER]),
        ({"input": [USER, OUTPUT, USER]}, [USER, SAID, USER]),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "H"},
                                                    {"type": "text", "text": "i"}]}]},
            [USER],
        ),
        ({"input": "Hi", "instructions": "S"}, [{"role": "system", "content": "S"}, USER]),
        (
            {"input": [{"role": "developer", "content": "D"}, USER]},
            [{"role": "system", "content": "D"}, USER],
        ),
    ],
)  # fmt: skip
def test_input_reaches_the_template_as_messages(fields, messages):
    (generation,) = parse(**fields).generations()
    assert generation.prompt == ChatPrompt(tuple(messages))


def test_an_input_that_ends_with_the_assistant_goes_on_there():
    (generation,) = parse(input=[USER, OUTPUT]).generations()
    assert generation.prompt == ChatPrompt((USER, SAID), is_continued=True)


def test_the_parameters_are_those_of_a_chat():
    call = parse(
        input="Hi",
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=4,
        stop="END",
        ignore_eos=True,
        truncate=5,
        stream=True,
    )
    (generation,) = call.generations()
    params = generation.params
    assert (generation.max_new_tokens, generation.truncate) == (7, 5)
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 3)
    assert (params.seed, params.stop, params.ignore_eos) == (4, ("END",), True)
    assert (call.is_stream, call.num_permits) == (True, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True},
        {"store": False},
        {"background": False},
        {"previous_response_id": None},
        {"conversation": None},
        {"tools": []},
        {"tools": [TOOL], "tool_choice": "none"},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 20},
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"text": None},
        {"n": 1},
        {"max_output_tokens": 9, "max_tokens": 9},
        {"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}},
        {"truncation": "auto", "parallel_tool_calls": True, "service_tier": "auto"},
    ],
)
def test_what_changes_nothing_is_taken(fields):
    assert parse(input="Hi", **fields).generations()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`input` is missing"),
        ({"input": ""}, "`input` cannot be empty"),
        ({"input": []}, "`input` cannot be empty"),
        ({"input": 5}, "`input`: expected `str | array`, got `int`"),
        ({"input": ["Hi"]}, "`input[0]`: expected `object`, got `str`"),
        ({"input": [{"content": "Hi"}]}, "`input[0].role` is missing"),
        ({"input": [USER, {"role": "user"}]}, "`input[1].content` is missing"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
         "`input[0].content[0].text` is missing"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "`input[0].content[0].type`: parts of type `input_image` are not supported "
         "by this version"),
        ({"input": [{"type": "item_reference", "id": "x"}]},
         "`input[0].type`: items of type `item_reference` are not supported by this version"),
        ({"input": "Hi", "previous_response_id": "resp_1"},
         "`previous_response_id`: stored responses are not supported by this version"),
        ({"input": "Hi", "conversation": {"id": "c"}},
         "`conversation`: stored responses are not supported by this version"),
        ({"input": "Hi", "background": True},
         "`background`: background responses are not supported by this version"),
        ({"input": "Hi", "text": {"format": {"type": "grammar"}}},
         "`text.format.type`: formats of type `grammar` are not supported by this version"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema"}}},
         "`text.format.schema` is missing"),
        ({"input": "Hi", "text": {"format": {"type": "json_object"}},
          "response_format": {"type": "json_object"}},
         "`response_format` and `text.format` exclude each other"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "`input` cannot be empty"),
        ({"input": [{"type": "reasoning", "content": [{"type": "output_text", "text": "x"}]}]},
         "`input[0].content[0].type`: parts of type `output_text` are not supported "
         "by this version"),
        ({"input": [{"type": "function_call", "arguments": "{}"}]}, "`input[0].name` is missing"),
        ({"input": [{**CALL, "arguments": json.dumps(deep(33))}]},
         "`input[0].arguments` must be nested at most 32 deep. Given: more than 32"),
        ({"input": [CALL] * 129},
         "`input[128].type` must be one of at most 128 calls in a row. Given: 129"),
        ({"input": [{"type": "function_call_output", "output": "x"}]},
         "`input[0].call_id` is missing"),
        ({"input": [{"type": "function_call_output", "call_id": "c1"}]},
         "`input[0].output` is missing"),
        ({"input": "Hi", "tools": [{"type": "web_search"}]},
         "`tools[0].type`: tools of type `web_search` are not supported by this version"),
        ({"input": "Hi", "tools": [{"type": "function"}]}, "`tools[0].name` is missing"),
        ({"input": "Hi", "tools": [{**TOOL, "parameters": deep(33)}]},
         "`tools[0].parameters` must be nested at most 32 deep. Given: more than 32"),
        ({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": "allowed_tools"}},
         "`tool_choice.type`: choices of type `allowed_tools` are not supported "
         "by this version"),
        ({"input": "Hi", "tools": [TOOL], "tool_choice": {"type": "function"}},
         "`tool_choice.name` is missing"),
        ({"input": "Hi", "top_logprobs": 1},
         "`top_logprobs` needs `include` to hold `message.output_text.logprobs`"),
        ({"input": "Hi", "top_logprobs": 21}, "`top_logprobs` must be >= 0 and <= 20. Given: 21"),
        ({"input": "Hi", "max_output_tokens": 0}, "`max_output_tokens` must be >= 1. Given: 0"),
        ({"input": "Hi", "max_output_tokens": 9, "max_tokens": 8},
         "`max_tokens` must equal `max_output_tokens` (9). Given: 8"),
        ({"input": "Hi", "n": 2}, "`n` must be 1. Given: 2"),
        ({"input": "Hi", "temperature": -1},
         "`temperature` must be >= 0.0 and <= 1000.0. Given: -1.0"),
        ({"input": "Hi", "metadata": {"k" * 65: "v"}},
         "`metadata`: expected `str` of length <= 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_words(fields, message):
    with pytest.raises(Problem) as caught:
        parse(**fields).generations()
    assert (caught.value.status, caught.value.message) == (
        422,
        f"Input validation error: {message}",
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tools": [TOOL], "text": {"format": {"type": "json_object"}}}, "tools"),
    ],
)
def test_tools_that_cannot_be_offered_are_refused(fields, field):
    with pytest.raises(Problem) as caught:
        parse(**{"input": "Hi", **fields})
    assert (caught.value.error_type, caught.value.field) == (ErrorType.TOOL_ERROR, field)


THOUGHT = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "R"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALLED]}
TOLD = {"role": "tool", "content": "R", "tool_call_id": "c1", "name": "f"}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([USER, CALL, RESULT],
         [USER, CALLING, TOLD]),
        ([USER, OUTPUT, CALL, CALL, RESULT],
         [USER, {**SAID, "tool_calls": [CALLED, CALLED]}, TOLD]),
        ([USER, THOUGHT, OUTPUT, CALL, RESULT],
         [USER, {**SAID, "reasoning_content": "Hm.", "tool_calls": [CALLED]}, TOLD]),
        ([USER, THOUGHT, CALL, RESULT, THOUGHT],
         [USER, {"role": "assistant", "content": "", "reasoning_content": "Hm.",
                 "tool_calls": [CALLED]}, TOLD]),
        ([USER, CALL, RESULT, CALL, {**RESULT, "output": [{"type": "input_text", "text": "R"}]}],
         [USER, CALLING, TOLD, CALLING, TOLD]),
    ],
)  # fmt: skip
def test_what_the_assistant_does_in_a_row_is_one_turn(items, messages):
    (generation,) = parse(input=items).generations()
    assert generation.prompt == ChatPrompt(tuple(messages))


@pytest.mark.parametrize(
    ("choice", "is_forced"),
    [
        (None, False),
        ("auto", False),
        ("required", True),
        ("f", True),
        ({"type": "function", "name": "f"}, True),
    ],
)
def test_tools_are_offered_as_in_a_chat(choice, is_forced):
    dialect = ResponsesDialect(dialect_config(tool_format="hermes"))
    fields = {"input": "Hi", "tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": False}
    call = dialect.parse(json.dumps(fields).encode())
    (generation,) = call.generations()
    (shown,) = generation.prompt.variables["tools"]
    assert shown == {"type": "function", "function": {"name": "f", "description": "F."}}
    assert (generation.params.grammar is not None) == is_forced
    assert call.chat.offer.max_calls == 1


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"type": "json_object"}, Grammar(GrammarKind.JSON_OBJECT)),
        ({"type": "json_schema", "name": "x", "strict": True, "schema": {"type": "integer"}},
         Grammar(GrammarKind.JSON_SCHEMA, '{"type":"integer"}')),
    ],
)  # fmt: skip
def test_a_format_is_kept_and_named_as_it_was_written(form, grammar):
    (generation,) = parse(input="Hi", text={"format": form}).generations()
    assert generation.params.grammar == grammar
    assert generation.grammar_field == "text.format"
