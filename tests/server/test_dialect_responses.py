import json

import pytest
from dialect_config import dialect_config

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
        {"tools": [{"type": "function"}], "tool_choice": "none"},
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
        ({"input": "Hi", "text": {"format": {"type": "json_object"}}},
         "`text.format`: grammars are not supported by this version"),
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
        ({"tools": [{"type": "function", "name": "f"}]}, "tools"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "auto"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
         "input[0].type"),
        ({"input": [USER, {"type": "function_call_output", "call_id": "c", "output": "1"}]},
         "input[1].type"),
    ],
)  # fmt: skip
def test_tools_are_refused_in_words(fields, field):
    with pytest.raises(Problem) as caught:
        parse(**{"input": "Hi", **fields})
    assert (caught.value.error_type, caught.value.field) == (ErrorType.TOOL_ERROR, field)
    assert caught.value.message == (
        f"Tool error: `{field}`: tools are supported on /v1/chat/completions only"
    )
