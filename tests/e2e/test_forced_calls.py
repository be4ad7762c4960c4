"""Calls that must be made, by the openai package against a model that knows nothing of tools."""

import json

import jsonschema
import openai
import pytest
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


@pytest.fixture(scope="module", params=["hermes", "pythonic"])
def client(request):
    with (
        serve("--tool-call-parser", request.param, "--num-threads", "1") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
    ):
        yield client


def ask(client, choice, *, is_stream, **fields):
    request = {"model": "m", "messages": [USER], "tools": TOOLS, "max_tokens": 200, **fields}
    if is_stream:
        with client.chat.completions.stream(**request, tool_choice=choice) as stream:
            (choice,) = stream.get_final_completion().choices
    else:
        (choice,) = client.chat.completions.create(**request, tool_choice=choice).choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    called = [
        (call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls
    ]
    for name, arguments in called:
        jsonschema.validate(arguments, SCHEMAS[name])
    return [name for name, _ in called]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_that_must_be_made_is_made_and_matches_its_schema(client, is_stream):
    names = [
        name
        for seed in range(6)
        for name in ask(
            client, "required", is_stream=is_stream, seed=seed, parallel_tool_calls=False
        )
    ]
    assert len(names) == 6
    assert set(names) <= set(SCHEMAS)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_named_tool_is_called_and_no_other(client, name, is_stream):
    choice = {"type": "function", "function": {"name": name}}
    assert ask(client, choice, is_stream=is_stream) == [name]


def test_a_schema_that_cannot_be_kept_is_refused(client):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/nowhere"}}}]
    with pytest.raises(openai.UnprocessableEntityError, match="`tools`"):
        client.chat.completions.create(
            model="m", messages=[USER], tools=tools, tool_choice="required"
        )
