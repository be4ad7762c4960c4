"""LiteLLM, by each of the three ways in which it speaks to servers such as this."""

import asyncio
import json

import pytest
from in_process import EOS, byte_tokenizer, in_process

CHAT = [{"role": "user", "content": "What is the capital of France?"}]
WAYS = pytest.mark.parametrize("way", ["openai", "hosted_vllm", "huggingface"])
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SAYS = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
SCHEMA = {
    "type": "object",
    "properties": {"is_known": {"type": "boolean"}, "digit": {"enum": [1, 2, 3]}},
    "required": ["is_known", "digit"],
    "additionalProperties": False,
}


@WAYS
@pytest.mark.parametrize("is_async", [False, True])
def test_a_streamed_answer_joins_to_the_whole_one_and_has_its_usage(
    server, ask_litellm, way, is_async
):
    asked = {"messages": CHAT, "max_tokens": 6, "temperature": 0, "is_async": is_async}
    whole = ask_litellm(server.url, way, **asked)["value"]
    (choice,) = whole["choices"]
    assert choice["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 6
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = ask_litellm(server.url, way, **asked, **options)["value"]
    parts = [chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks]
    assert "".join(parts) == choice["message"]["content"]
    assert chunks[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


@WAYS
async def test_calls_of_tools_are_read(ask_litellm, way):
    script = [*byte_tokenizer().encode(SAYS), EOS]
    async with in_process(script, tool_call_parser="hermes") as server:
        asked = {"messages": CHAT, "tools": [TOOL], "max_tokens": 200}
        whole = (await asyncio.to_thread(ask_litellm, server.url, way, **asked))["value"]
        (call,) = whole["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
        asked["stream"] = True
        chunks = (await asyncio.to_thread(ask_litellm, server.url, way, **asked))["value"]
    deltas = [d for c in chunks for d in c["choices"][0]["delta"]["tool_calls"] or ()]
    assert deltas[0]["function"]["name"] == "get_weather"
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert json.loads(arguments) == {"city": "Rome"}


@pytest.mark.parametrize("way", ["openai", "hosted_vllm"])
def test_an_answer_by_a_schema_is_of_its_type(server, ask_litellm, way):
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    options = {"messages": CHAT, "response_format": form, "max_tokens": 200}
    answer = ask_litellm(server.url, way, **options)["value"]
    found = json.loads(answer["choices"][0]["message"]["content"])
    assert set(found) == {"is_known", "digit"}
    assert found["digit"] in (1, 2, 3)
