"""Calls that must be made, by real clients against a model that knows nothing of tools."""

import json

import jsonschema
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from served import serve

SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"$ref": "#/$defs/days"},
    },
    "required": ["days", "unit"],
    "additionalProperties": False,
    "$defs": {"days": {"type": "array", "items": {"enum": [1, 2, 3]}, "maxItems": 3}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
SCHEMAS = {"weather": SCHEMA, "now": {"type": "object", "maxProperties": 0}}
USER = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture(scope="module")
def started_pythonic():
    with serve("--tool-call-parser", "pythonic", "--num-threads", "1") as server:
        yield server


@pytest.fixture(params=["crowded", "started_pythonic"], ids=["hermes", "pythonic"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(server):
    with OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        yield client


def ask_chat(server, name, *, is_stream, is_single, seed):
    """Ask for a call of this name, or of any; return what is called."""
    choice = {"type": "function", "function": {"name": name}} if name else "required"
    request = {"model": "m", "messages": [USER], "tools": TOOLS, "max_tokens": 200, "seed": seed}
    request |= {"tool_choice": choice, "parallel_tool_calls": not is_single}
    with OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        if is_stream:
            with client.chat.completions.stream(**request) as stream:
                (choice,) = stream.get_final_completion().choices
        else:
            (choice,) = client.chat.completions.create(**request).choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls
    ]


def ask_responses(server, name, *, is_stream, is_single, seed):
    """Ask for the same by `/v1/responses`."""
    tools = [{"type": "function", "strict": None, "parameters": None, **tool["function"]}
             for tool in TOOLS]  # fmt: skip
    choice = {"type": "function", "name": name} if name else "required"
    request = {"model": "m", "input": [USER], "tools": tools, "max_output_tokens": 200}
    request |= {"tool_choice": choice, "parallel_tool_calls": not is_single}
    request["extra_body"] = {"seed": seed}
    with OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        if is_stream:
            with client.responses.stream(**request) as stream:
                answer = stream.get_final_response()
        else:
            answer = client.responses.create(**request)
    assert answer.status == "completed"
    assert {item.type for item in answer.output} == {"function_call"}
    return [(item.name, json.loads(item.arguments)) for item in answer.output]


def ask_messages(server, name, *, is_stream, is_single, seed):
    """Ask for the same by `/v1/messages`."""
    tools = [
        {"name": tool["function"]["name"], "input_schema": SCHEMAS[tool["function"]["name"]]}
        for tool in TOOLS
    ]
    choice = {"type": "tool", "name": name} if name else {"type": "any"}
    choice["disable_parallel_tool_use"] = is_single
    request = {"model": "m", "messages": [USER], "tools": tools, "max_tokens": 200}
    request |= {"tool_choice": choice, "extra_body": {"seed": seed}}
    with Anthropic(base_url=server.url, api_key="-", max_retries=0) as client:
        if is_stream:
            with client.messages.stream(**request) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**request)
    assert answer.stop_reason == "tool_use"
    assert {block.type for block in answer.content} == {"tool_use"}
    return [(block.name, block.input) for block in answer.content]


def names_called(ask, server, name=None, *, is_stream, is_single=False, seed=0):
    """See that all arguments match their schemas; return the tools' names."""
    called = ask(server, name, is_stream=is_stream, is_single=is_single, seed=seed)
    for tool, arguments in called:
        jsonschema.validate(arguments, SCHEMAS[tool])
    return [tool for tool, _ in called]


streamed_and_not = pytest.mark.parametrize("is_stream", [False, True])
everywhere = pytest.mark.parametrize("ask", [ask_chat, ask_responses, ask_messages])


@everywhere
@streamed_and_not
def test_a_call_that_must_be_made_is_made_and_matches_its_schema(server, ask, is_stream):
    names = [
        name
        for seed in range(6)
        for name in names_called(ask, server, is_stream=is_stream, is_single=True, seed=seed)
    ]
    assert len(names) == 6
    assert set(names) <= set(SCHEMAS)


@everywhere
@streamed_and_not
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_named_tool_is_called_and_no_other(server, ask, name, is_stream):
    assert names_called(ask, server, name, is_stream=is_stream) == [name]


def test_a_schema_that_cannot_be_kept_is_refused(client):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/nowhere"}}}]
    with pytest.raises(openai.UnprocessableEntityError, match="`tools`"):
        client.chat.completions.create(
            model="m", messages=[USER], tools=tools, tool_choice="required"
        )
