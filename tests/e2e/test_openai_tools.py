"""Calls of tools and thoughts, by the openai package over a socket; a scripted model says them."""

import json

import openai
import pytest
from huggingface_hub import AsyncInferenceClient
from in_process import in_process
from openai import AsyncOpenAI
from raw_http import call
from streams import check_chat
from tool_talk import CALLS, CITY, QWEN, SAYS, last_prompt, script

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": CITY,
    },
}
TIME = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, TIME]
USER = {"role": "user", "content": "Weather?"}


def connect(server):
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)


async def ask(client, **fields):
    """Ask and return the turn and the reason, streamed or not, as the package puts it together."""
    request = {"model": "m", "messages": [USER], **fields}
    if not fields.get("stream"):
        (choice,) = (await client.chat.completions.create(**request)).choices
        return choice.message, choice.finish_reason
    del request["stream"]
    async with client.chat.completions.stream(**request) as stream:
        async for event in stream:
            assert event.type != "error"
        (choice,) = (await stream.get_final_completion()).choices
    return choice.message, choice.finish_reason


def called(message):
    ids = [call.id for call in message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    assert {call.type for call in message.tool_calls} == {"function"}
    return [
        (call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls
    ]


streamed_and_not = pytest.mark.parametrize("is_stream", [False, True])


@streamed_and_not
async def test_thoughts_text_and_parallel_calls_come_apart(is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message, reason = await ask(client, tools=TOOLS, stream=is_stream)
        assert reason == "tool_calls"
        assert message.reasoning_content == "I ask."
        assert message.content == "Let me see."
        assert called(message) == CALLS


@streamed_and_not
async def test_of_several_calls_only_the_first_comes_where_they_may_not_be_parallel(is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message, _ = await ask(client, tools=TOOLS, parallel_tool_calls=False, stream=is_stream)
        assert called(message) == CALLS[:1]


@streamed_and_not
async def test_a_turn_that_only_calls_has_no_text(is_stream):
    says = '{"name": "now", "parameters": {}}'
    async with (
        in_process(script(says), tool_call_parser="llama3_json") as server,
        connect(server) as client,
    ):
        message, _ = await ask(client, tools=TOOLS, stream=is_stream)
        assert called(message) == [("now", {})]
        assert not message.content
        if not is_stream:
            assert message.content is None


async def test_each_choice_has_a_turn_of_its_own():
    says = {1: script("No</think>Hi"), 2: script(SAYS), 3: script("Hm")}
    async with in_process(says, template=QWEN) as server, connect(server) as client:
        answer = await client.chat.completions.create(
            model="m", messages=[USER], tools=TOOLS, n=3, logprobs=True
        )
        turns = [(c.message.reasoning_content, c.message.content) for c in answer.choices[:2]]
        assert turns == [("No", "Hi"), ("I ask.", "Let me see.")]
        assert answer.choices[2].message.reasoning_content == "Hm"
        reasons = [choice.finish_reason for choice in answer.choices]
        assert reasons == ["stop", "tool_calls", "stop"]
        assert answer.usage.completion_tokens == sum(map(len, says.values()))
        scored = [len(choice.logprobs.content) for choice in answer.choices]
        assert scored == [*map(len, says.values())]


async def test_a_stream_has_a_chunk_a_token_and_its_logprobs():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[USER], tools=TOOLS, stream=True, logprobs=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        choices = [choice for chunk in chunks for choice in chunk.choices]
        scored = [token for c in choices if c.logprobs for token in c.logprobs.content]
        assert b"".join(bytes(token.bytes) for token in scored).decode() == f"{SAYS}<|end|>"
        assert chunks[-1].usage.completion_tokens == len(scored)
        assert len({chunk.id for chunk in chunks}) == 1


@streamed_and_not
async def test_a_stop_string_within_a_call_cuts_its_arguments(is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message, _ = await ask(client, tools=TOOLS, stop=["Kö"], stream=is_stream)
        (call,) = message.tool_calls
        assert call.function.arguments == '{"city": "'


async def test_thinking_can_be_turned_off_by_the_template():
    async with in_process(script("Hi"), template=QWEN) as server, connect(server) as client:
        options = {"chat_template_kwargs": {"enable_thinking": False}}
        message, _ = await ask(client, extra_body=options)
        assert message.content == "Hi"
        message, _ = await ask(client)
        assert (message.content, message.reasoning_content) == ("", "Hi")


async def test_a_result_goes_back_to_the_model():
    """The second request of a client that runs tools."""
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message, _ = await ask(client, tools=TOOLS)
        turn = message.model_dump(exclude_none=True)
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
        server.runner.scripts = script("It </think>rains.")
        answer, reason = await ask(client, messages=[USER, turn, result], tools=TOOLS)
        assert (answer.content, reason) == ("rains.", "stop")
        prompt = last_prompt(server)
        assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Köln' in prompt
        assert prompt.endswith("tool:rain<think>")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "f not found"),
        ({"response_format": {"type": "json_object"}}, "mutually exclusive"),
        ({"extra_body": {"chat_template": "x"}}, "chat_template"),
    ],
)
@streamed_and_not
async def test_what_cannot_be_done_with_tools_is_the_clients_error(fields, message, is_stream):
    async with in_process(template=QWEN) as server, connect(server) as client:
        with pytest.raises(openai.UnprocessableEntityError, match=message):
            await client.chat.completions.create(
                model="m", messages=[USER], tools=TOOLS, stream=is_stream, **fields
            )
        assert set(server.held().values()) == {0.0}


async def test_the_hubs_client_reads_calls_streamed_and_not():
    async with in_process(script(SAYS), template=QWEN) as server:
        client = AsyncInferenceClient(base_url=server.url)
        answer = await client.chat_completion([USER], tools=TOOLS)
        (choice,) = answer.choices
        calls = choice.message.tool_calls
        told = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
        assert (choice.finish_reason, told) == ("tool_calls", CALLS)
        arguments = ["", ""]
        async for chunk in await client.chat_completion([USER], tools=TOOLS, stream=True):
            for call in chunk.choices[0].delta.tool_calls or ():
                arguments[call.index] += call.function.arguments
        assert [json.loads(each) for each in arguments] == [each for _, each in CALLS]


async def test_a_stream_of_calls_obeys_the_grammar_of_streams():
    async with in_process(script(SAYS), template=QWEN) as server:
        body = {"messages": [USER], "tools": TOOLS, "stream": True}
        answer = await call(server.url, "POST", "/v1/chat/completions", body)
        said = check_chat(answer.body)
        assert (said.text, said.finish_reason) == ("Let me see.", "tool_calls")
