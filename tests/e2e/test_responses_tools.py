"""Calls, thoughts, forms and logprobs by the openai package's `responses`, over a socket.

What is asked is asked streamed and not, and must come out the same.
"""

import json

import openai
import pytest
from in_process import in_process
from openai import AsyncOpenAI
from openai.types import responses as types
from raw_http import call
from streams import check_responses
from tool_talk import CALLS, CITY, QWEN, SAYS, last_prompt, script

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Tell the weather.",
    "parameters": CITY,
    "strict": True,
}
TIME = {"type": "function", "name": "now", "parameters": None, "strict": None}
TOOLS = [WEATHER, TIME]
ASKED = {"model": "m", "input": "Weather?"}
TYPES = {
    "response.created": types.ResponseCreatedEvent,
    "response.in_progress": types.ResponseInProgressEvent,
    "response.output_item.added": types.ResponseOutputItemAddedEvent,
    "response.content_part.added": types.ResponseContentPartAddedEvent,
    "response.reasoning_text.delta": types.ResponseReasoningTextDeltaEvent,
    "response.reasoning_text.done": types.ResponseReasoningTextDoneEvent,
    "response.output_text.delta": types.ResponseTextDeltaEvent,
    "response.output_text.done": types.ResponseTextDoneEvent,
    "response.function_call_arguments.delta": types.ResponseFunctionCallArgumentsDeltaEvent,
    "response.function_call_arguments.done": types.ResponseFunctionCallArgumentsDoneEvent,
    "response.content_part.done": types.ResponseContentPartDoneEvent,
    "response.output_item.done": types.ResponseOutputItemDoneEvent,
    "response.completed": types.ResponseCompletedEvent,
}
ITEMS = [
    types.ResponseReasoningItem,
    types.ResponseOutputMessage,
    types.ResponseFunctionToolCall,
    types.ResponseFunctionToolCall,
]
streamed_and_not = pytest.mark.parametrize("is_stream", [False, True])


def connect(server):
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)


async def ask(client, *, is_stream=False, **fields):
    """Ask and return the answer, as the package puts it together."""
    request = {**ASKED, **fields}
    if not is_stream:
        return await client.responses.create(**request)
    async with client.responses.stream(**request) as stream:
        return await stream.get_final_response()


def called(answer):
    calls = [item for item in answer.output if item.type == "function_call"]
    assert len({each.call_id for each in calls}) == len(calls)
    assert all(len(each.call_id) == 9 and each.call_id.isalnum() for each in calls)
    return [(each.name, json.loads(each.arguments)) for each in calls]


@streamed_and_not
async def test_thoughts_text_and_parallel_calls_come_apart(is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        answer = await ask(client, tools=TOOLS, is_stream=is_stream)
    types.Response.model_validate(answer.to_dict(), strict=True)
    for item, kind in zip(answer.output, ITEMS, strict=True):
        kind.model_validate(item.to_dict(), strict=True)
        assert item.status == "completed"
    assert [part.text for part in answer.output[0].content] == ["I ask."]
    assert answer.output_text == "Let me see."
    assert called(answer) == CALLS
    assert answer.status == "completed"
    num_thought = len("I ask.</think>\n\n")
    assert answer.usage.output_tokens_details.reasoning_tokens == num_thought
    assert [tool.name for tool in answer.tools] == ["get_weather", "now"]
    assert (answer.tool_choice, answer.parallel_tool_calls) == ("auto", True)
    ids = [item.id for item in answer.output]
    assert len(set(ids)) == 4
    assert [each.split("_")[0] for each in ids] == ["rs", "msg", "fc", "fc"]


async def test_every_event_is_of_its_type_and_in_order():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        stream = await client.responses.create(**ASKED, tools=TOOLS, stream=True)
        events = [event async for event in stream]
        body = {**ASKED, "tools": TOOLS, "stream": True}
        answer = await call(server.url, "POST", "/v1/responses", body)
    for number, event in enumerate(events):
        assert type(event) is TYPES[event.type]
        type(event).model_validate(event.to_dict(), strict=True)
        assert event.sequence_number == number
    assert {event.type for event in events} == set(TYPES)
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    first = [event.delta for event in deltas if event.output_index == 2]
    assert len(first) > 10  # as the model writes them
    assert json.loads("".join(first)) == CALLS[0][1]
    added = [event.item for event in events if event.type == "response.output_item.added"]
    assert {item.status for item in added} == {"in_progress"}
    assert [getattr(item, "arguments", "") for item in added] == [""] * 4
    said = check_responses(answer.body)
    assert (said.text, said.texts[0], said.texts[3]) == ("Let me see.", "I ask.", "{}")


@streamed_and_not
@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"parallel_tool_calls": False}, CALLS[:1]),
        ({"parallel_tool_calls": True}, CALLS),
        ({"tool_choice": "none"}, []),
    ],
)
async def test_what_is_asked_says_how_many_calls_there_are(fields, calls, is_stream):
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        answer = await ask(client, tools=TOOLS, **fields, is_stream=is_stream)
        assert called(answer) == calls
        assert ("get_weather" in last_prompt(server)) == bool(calls)


@pytest.mark.parametrize("is_typed_back", [False, True])
async def test_results_go_back_to_the_model(is_typed_back):
    """The second request of an agent: what the first was answered with, and what its tools said."""
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        first = await ask(client, tools=TOOLS)
        items = first.output if is_typed_back else [item.to_dict() for item in first.output]
        ids = [item.call_id for item in first.output if item.type == "function_call"]
        parts = [{"type": "input_text", "text": "no"}, {"type": "input_text", "text": "on"}]
        turns = [
            {"role": "user", "content": "Weather?"},
            *items,
            {"type": "function_call_output", "call_id": ids[0], "output": "rain"},
            {"type": "function_call_output", "call_id": ids[1], "output": parts},
        ]
        server.runner.scripts = script("It </think>rains.")
        answer = await ask(client, input=turns, tools=TOOLS)
        assert answer.output_text == "rains."
        prompt = last_prompt(server)
    assert 'assistant:Let me see.<tool_call>{"name": "get_weather", "arguments": {' in prompt
    assert prompt.endswith("</tool_call>tool:raintool:noon<think>")


@streamed_and_not
async def test_logprobs_are_those_of_the_texts_tokens(is_stream):
    fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    async with in_process(script("Hello")) as server, connect(server) as client:
        answer = await ask(client, **fields, is_stream=is_stream)
        plain = await ask(client)
    (part,) = answer.output[0].content
    types.ResponseOutputText.model_validate(part.to_dict(), strict=True)
    assert b"".join(bytes(each.bytes) for each in part.logprobs) == b"Hello<|end|>"
    assert plain.output[0].content[0].logprobs == []


async def test_each_event_has_the_logprobs_of_its_tokens():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        stream = await client.responses.create(
            **ASKED, tools=TOOLS, stream=True, include=["message.output_text.logprobs"]
        )
        events = [event async for event in stream]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    said = [[each.token for each in event.logprobs] for event in deltas]
    assert said[0] == ["L"]
    assert "".join(token for tokens in said for token in tokens) == "Let me see."
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert [[each.token] for each in done.logprobs] == [[c] for c in "Let me see."]


async def test_the_template_is_told_the_effort():
    template = QWEN.replace("{% if tools %}", "{{ reasoning_effort }}{% if tools %}")
    async with in_process(script("Hi"), template=template) as server, connect(server) as client:
        await ask(client, reasoning={"effort": "low"})
        assert last_prompt(server).startswith("lowuser:")


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "f not found"),
        ({"text": {"format": {"type": "json_object"}}}, "tools", "mutually exclusive"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "`web_search` are not supported"),
        ({"top_logprobs": 1}, "top_logprobs", "needs `include` to hold"),
    ],
)
@streamed_and_not
async def test_what_cannot_be_done_is_the_clients_error(fields, field, message, is_stream):
    async with in_process(template=QWEN) as server, connect(server) as client:
        with pytest.raises(openai.UnprocessableEntityError, match=message) as raised:
            await client.responses.create(**{**ASKED, "tools": TOOLS, **fields}, stream=is_stream)
        assert raised.value.param == field
        assert set(server.held().values()) == {0.0}


async def test_streamed_and_whole_are_the_same_answer():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        whole, streamed = [await ask(client, tools=TOOLS, is_stream=way) for way in (False, True)]
    told = [
        [{k: v for k, v in item.to_dict().items() if "id" not in k} for item in answer.output]
        for answer in (whole, streamed)
    ]
    for item in told[1]:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    assert told[0] == told[1]
    assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_an_answer_cut_within_a_call_is_incomplete_in_that_item_only():
    async with in_process(script(SAYS), template=QWEN) as server, connect(server) as client:
        asked = {**ASKED, "tools": TOOLS, "max_output_tokens": 85}
        whole = await client.responses.create(**asked)
        events = [e async for e in await client.responses.create(**asked, stream=True)]
    assert events[-1].type == "response.incomplete"
    for answer in (whole, events[-1].response):
        assert [item.status for item in answer.output] == ["completed"] * 2 + ["incomplete"]
        assert answer.output[-1].arguments.startswith('{"ci')
    done = [event.item.status for event in events if event.type == "response.output_item.done"]
    assert done == ["completed"] * 2 + ["incomplete"]
