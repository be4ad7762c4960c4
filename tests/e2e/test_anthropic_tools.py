"""Calls of tools and thoughts, by the anthropic package over a socket; a scripted model says them.

What is asked is asked streamed and not, and must come out the same.
"""

import json

import anthropic
import pytest
from anthropic import AsyncAnthropic, types
from in_process import in_process, repeat_prompt
from raw_http import call
from streams import check_messages
from tool_talk import CALLS, CITY, QWEN, SAYS, last_prompt, script

WEATHER = {"name": "get_weather", "description": "Tell the weather.", "input_schema": CITY}
TIME = {"name": "now", "input_schema": {"type": "object"}, "type": "custom"}
TOOLS = [WEATHER, TIME]
USER = {"role": "user", "content": "Weather?"}
ASKED = {"model": "m", "max_tokens": 500, "messages": [USER]}
streamed_and_not = pytest.mark.parametrize("is_stream", [False, True])


def connect(server):
    return AsyncAnthropic(base_url=server.url, api_key="-", max_retries=0)


async def ask(client, *, is_stream=False, **fields):
    """Ask and return the turn, as the package puts it together."""
    request = {**ASKED, **fields}
    if not is_stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as stream:
        return await stream.get_final_message()


def called(message):
    calls = [block for block in message.content if block.type == "tool_use"]
    ids = [each.id for each in calls]
    assert len(set(ids)) == len(ids)
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    return [(each.name, each.input) for each in calls]


def without_ids(message):
    return [
        {key: value for key, value in block.to_dict().items() if key != "id"}
        for block in message.content
    ]


@streamed_and_not
async def test_thoughts_text_and_parallel_calls_come_apart(is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message = await ask(client, tools=TOOLS, is_stream=is_stream)
    kinds = [types.ThinkingBlock, types.TextBlock, types.ToolUseBlock, types.ToolUseBlock]
    for block, kind in zip(message.content, kinds, strict=True):
        kind.model_validate(block.to_dict(), strict=True)
    thought, text, *_ = message.content
    assert (thought.thinking, thought.signature) == ("I ask.", "")
    assert text.text == "Let me see."
    assert called(message) == CALLS
    assert message.stop_reason == "tool_use"


async def test_every_event_is_of_its_type_and_each_block_ends_before_the_next():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        stream = await client.messages.create(**ASKED, tools=TOOLS, stream=True)
        events = [event async for event in stream]
    for event in events:
        type(event).model_validate(event.to_dict(), strict=True)
    starts = [event for event in events if event.type == "content_block_start"]
    assert [event.index for event in starts] == [0, 1, 2, 3]
    kinds = [event.content_block.type for event in starts]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert [event.content_block.input for event in starts[2:]] == [{}, {}]
    deltas = [event for event in events if event.type == "content_block_delta"]
    found = {(event.index, event.delta.type) for event in deltas}
    assert found == {
        (0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta"),
        (2, "input_json_delta"), (3, "input_json_delta"),
    }  # fmt: skip
    pieces = [event.delta.partial_json for event in deltas if event.index == 2]
    assert len(pieces) > 10  # as the model writes them
    assert json.loads("".join(pieces)) == CALLS[0][1]


async def test_a_stream_begins_with_the_length_of_its_prompt():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        stream = await client.messages.create(**ASKED, tools=TOOLS, stream=True)
        events = [event async for event in stream]
        counted = await client.messages.count_tokens(model="m", messages=[USER], tools=TOOLS)
        fewer = await client.messages.count_tokens(model="m", messages=[USER])
    start, usage = events[0].message.usage, events[-2].usage
    assert start.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    assert start.input_tokens == counted.input_tokens > fewer.input_tokens > 0


@streamed_and_not
@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ({"type": "auto", "disable_parallel_tool_use": True}, CALLS[:1]),
        ({"type": "auto", "disable_parallel_tool_use": False}, CALLS),
        ({"type": "none"}, []),
    ],
)
async def test_tool_choice_says_how_many_calls_there_are(choice, calls, is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message = await ask(client, tools=TOOLS, tool_choice=choice, is_stream=is_stream)
        assert called(message) == calls
        assert message.stop_reason == ("tool_use" if calls else "end_turn")
        assert ("get_weather" in last_prompt(server)) == (choice["type"] != "none")


@streamed_and_not
async def test_a_turn_that_only_calls_has_no_text(is_stream):
    says = '{"name": "now", "parameters": {}}'
    async with (
        in_process(script(says), tool_call_parser="llama3_json") as server,
        connect(server) as client,
    ):
        message = await ask(client, tools=TOOLS, is_stream=is_stream)
    assert [block.type for block in message.content] == ["tool_use"]


@streamed_and_not
async def test_an_empty_turn_is_an_empty_text(is_stream):
    async with in_process(script(""), template=QWEN) as server, connect(server) as client:
        message = await ask(client, tools=TOOLS, is_stream=is_stream)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": ""}]
    assert message.stop_reason == "end_turn"


async def test_what_was_cut_or_is_no_json_comes_as_it_was_written():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message = await ask(client, tools=TOOLS, stop_sequences=["Kö"])
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Kö")
        assert called(message) == [("get_weather", {"INVALID_JSON": '{"city": "'})]
        server.runner.scripts = script('</think><tool_call>{"name": "now", "arguments": {1}}')
        message = await ask(client, tools=TOOLS)
        assert called(message) == [("now", {"INVALID_JSON": "{1}"})]
        server.runner.scripts = script(
            '</think><tool_call>{"name": "now", "arguments": {"n": 1e999}}'
        )
        message = await ask(client, tools=TOOLS)
        assert called(message) == [("now", {"INVALID_JSON": '{"n": 1e999}'})]


@pytest.mark.parametrize("is_error", [False, True])
async def test_results_go_back_to_the_model(is_error):
    """The second request of an agent: its first answer whole, and what its tools said."""
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        message = await ask(client, tools=TOOLS)
        first, second = (block.id for block in message.content if block.type == "tool_use")
        results = [
            {"type": "tool_result", "tool_use_id": first, "content": "rain", "is_error": is_error},
            {
                "type": "tool_result",
                "tool_use_id": second,
                "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "on"}],
            },
            {"type": "text", "text": "Well?"},
        ]
        turns = [USER, message.to_param(), {"role": "user", "content": results}]
        server.runner.scripts = script("It </think>rains.")
        answer = await ask(client, messages=turns, tools=TOOLS)
        assert [getattr(block, "text", None) for block in answer.content] == [None, "rains."]
        prompt = last_prompt(server)
    assert '<tool_call>{"name": "get_weather", "arguments": {"city": "Köln' in prompt
    error = "Error: " if is_error else ""
    assert prompt.endswith(f"tool:{error}raintool:noonuser:Well?<think>")


@pytest.mark.parametrize(("kind", "text"), [("enabled", "<think>\n"), ("disabled", "</think>\n")])
async def test_the_template_is_told_whether_to_think(kind, text):
    thinking = {"type": kind, **({"budget_tokens": 1024} if kind == "enabled" else {})}
    async with in_process(script("Hi"), template=QWEN) as server, connect(server) as client:
        await ask(client, thinking=thinking)
        assert last_prompt(server).endswith(text.removesuffix("\n"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": {"type": "tool", "name": "f"}}, "f not found"),
        ({"tool_choice": {"type": "sometimes"}}, "`tool_choice.type` must be one of"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         r"`tools\[0\].type`: tools of type `web_search_20250305` are not supported"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}},
         "mutually exclusive"),
    ],
)  # fmt: skip
@streamed_and_not
async def test_what_cannot_be_done_with_tools_is_the_clients_error(fields, message, is_stream):
    async with in_process(template=QWEN) as server, connect(server) as client:
        with pytest.raises(anthropic.UnprocessableEntityError, match=message):
            await ask(client, **{"tools": TOOLS, **fields}, is_stream=is_stream)
        assert set(server.held().values()) == {0.0}


async def test_a_stream_of_calls_obeys_the_grammar_of_streams():
    async with in_process(script(SAYS), template=QWEN) as server:
        body = {**ASKED, "tools": TOOLS, "stream": True}
        answer = await call(server.url, "POST", "/v1/messages", body)
    said = check_messages(answer.body)
    assert (said.text, said.finish_reason) == ("Let me see.", "tool_use")


async def test_streamed_and_whole_are_the_same_turn():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        whole, streamed = [await ask(client, tools=TOOLS, is_stream=way) for way in (False, True)]
    assert without_ids(whole) == without_ids(streamed)
    assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_a_model_without_a_known_format_is_offered_no_tools():
    async with in_process(repeat_prompt) as server, connect(server) as client:
        with pytest.raises(anthropic.UnprocessableEntityError, match="--tool-call-parser"):
            await ask(client, tools=TOOLS)
