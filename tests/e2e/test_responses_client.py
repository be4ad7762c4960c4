"""The openai package's `responses`, unchanged, sync and async, against a scripted model."""

import asyncio

import openai
import pytest
from in_process import EOS, byte_tokenizer, in_process, repeat_prompt
from occupancy import wait_for
from openai import AsyncOpenAI, OpenAI
from openai.types import responses as types
from raw_http import asking, call
from streams import check

PATH = "/v1/responses"
STAGES = {
    "response.created": types.ResponseCreatedEvent,
    "response.in_progress": types.ResponseInProgressEvent,
    "response.output_item.added": types.ResponseOutputItemAddedEvent,
    "response.content_part.added": types.ResponseContentPartAddedEvent,
    "response.output_text.delta": types.ResponseTextDeltaEvent,
    "response.output_text.done": types.ResponseTextDoneEvent,
    "response.content_part.done": types.ResponseContentPartDoneEvent,
    "response.output_item.done": types.ResponseOutputItemDoneEvent,
    "response.completed": types.ResponseCompletedEvent,
    "response.incomplete": types.ResponseIncompleteEvent,
    "response.failed": types.ResponseFailedEvent,
}
HI = {"model": "any", "input": "Hi"}
WAYS = pytest.mark.parametrize("way", ["sync", "async"])


def saying(text):
    """Let the model say a text and end."""
    return [*byte_tokenizer().encode(text), EOS]


def failing_at(number):
    def script(row):
        if row.num_output == number:
            raise RuntimeError("out of luck")
        return repeat_prompt(row)

    return script


async def create(url, way, *, api_key="-", **asked):
    """Ask by one of the two clients; give the answer, or all events."""
    options = {"base_url": url + "/v1", "api_key": api_key, "max_retries": 0}
    if way == "async":
        async with AsyncOpenAI(**options) as client:
            answer = await client.responses.create(**asked)
            return [event async for event in answer] if asked.get("stream") else answer

    def ask():
        with OpenAI(**options) as client:
            answer = client.responses.create(**asked)
            return list(answer) if asked.get("stream") else answer

    return await asyncio.to_thread(ask)


def sound(value):
    """See that every field which the client's types require is there, and of its type."""
    type(value).model_validate(value.to_dict(), strict=True)
    return value


@WAYS
async def test_an_answer_has_text_status_and_usage(way):
    async with in_process(saying("Hello")) as server:
        answer = sound(await create(server.url, way, **HI, metadata={"k": "v"}, store=True))
    assert answer.output_text == "Hello"
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    assert (answer.model, answer.metadata) == ("scripted", {"k": "v"})
    assert (answer.to_dict()["store"], answer.error) == (False, None)
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (2, 6, 8)


@WAYS
async def test_a_stream_has_every_event_in_order_one_a_token(way):
    async with in_process(saying("Hello")) as server:
        whole = await create(server.url, way, **HI)
        events = await create(server.url, way, **HI, stream=True)
    for number, event in enumerate(events):
        assert event.sequence_number == number
        assert type(event) is STAGES[event.type]
        sound(event)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == [*"Hello", ""]
    assert [event.type for event in events if "delta" not in event.type] == [
        stage for stage in STAGES if "delta" not in stage
    ][:-2]
    last = events[-1].response
    assert last.output_text == whole.output_text == "Hello"
    assert (last.status, last.usage) == ("completed", whole.usage)


@WAYS
async def test_the_stream_helper_puts_the_answer_together(way):
    async with in_process(saying("Hello")) as server:
        options = {"base_url": server.url + "/v1", "api_key": "-"}
        if way == "async":
            async with AsyncOpenAI(**options) as client, client.responses.stream(**HI) as stream:
                snapshots = [e.snapshot async for e in stream if hasattr(e, "snapshot")]
                final = await stream.get_final_response()
        else:

            def ask():
                with OpenAI(**options) as client, client.responses.stream(**HI) as stream:
                    snapshots = [event.snapshot for event in stream if hasattr(event, "snapshot")]
                    return snapshots, stream.get_final_response()

            snapshots, final = await asyncio.to_thread(ask)
    assert snapshots == ["H", "He", "Hel", "Hell", "Hello", "Hello"]
    assert final.output_text == "Hello"


@WAYS
async def test_an_answer_cut_by_its_length_is_incomplete(way):
    async with in_process() as server:
        answer = sound(await create(server.url, way, **HI, max_output_tokens=3))
        *_, last = await create(server.url, way, **HI, max_output_tokens=3, stream=True)
    for found in (answer, last.response):
        assert (found.status, found.output_text) == ("incomplete", "HiH")
        assert found.incomplete_details.reason == "max_output_tokens"
        assert found.output[0].status == "incomplete"
    assert sound(last).type == "response.incomplete"


async def test_an_answer_is_input_of_the_next_request():
    async with in_process() as server:
        first = await create(server.url, "async", **HI, max_output_tokens=2)
        turns = [{"role": "user", "content": "A"}, *first.output, {"role": "user", "content": "B"}]
        asked = {"model": "any", "input": turns, "instructions": "S"}
        second = await create(server.url, "async", **asked, max_output_tokens=5)
    assert first.output_text == "Hi"
    assert second.output_text == "SAHiB"  # the model repeats what the template joined


@pytest.mark.parametrize("at", [0, 3])
@WAYS
async def test_a_fault_raises_its_message_whole_and_in_mid_stream(way, at):
    async with in_process(failing_at(at)) as server:
        with pytest.raises(openai.APIStatusError, match="out of luck") as raised:
            await create(server.url, way, **HI)
        assert raised.value.status_code == 424
        with pytest.raises(openai.APIError, match="out of luck") as raised:
            await create(server.url, way, **HI, stream=True)
        assert raised.value.code == "generation"
        assert server.held() == dict.fromkeys(server.held(), 0)


async def test_a_fault_in_mid_stream_is_one_event_and_the_only_end():
    async with in_process(failing_at(3)) as server:
        answer = await call(server.url, "POST", PATH, {**HI, "stream": True})
    said = check(PATH, answer.body)
    assert said.text == "HiH"
    assert said.error["response"]["status"] == "failed"
    assert said.error["error_type"] == "generation"
    assert sound(types.ResponseFailedEvent(**said.error))


@WAYS
async def test_bad_input_is_unprocessable_and_names_its_field(way):
    async with in_process() as server:
        for fields, field, says in (
            ({"temperature": -1}, "temperature", "Given: -1"),
            ({"previous_response_id": "resp_1"}, "previous_response_id", "stored responses"),
            ({"tools": [{"type": "web_search"}]}, "tools[0].type", "`web_search` are not"),
        ):
            with pytest.raises(openai.UnprocessableEntityError, match=says) as raised:
                await create(server.url, way, **HI, **fields)
            assert raised.value.param == field


@WAYS
async def test_no_room_is_a_rate_limit_and_a_wrong_key_an_authentication_error(way):
    async with (
        in_process(max_concurrent_requests=1, api_keys=("open-sesame",)) as server,
        asking(
            server.url, PATH, {**HI, "stream": True}, "Authorization: Bearer open-sesame"
        ) as holder,
    ):
        with pytest.raises(openai.AuthenticationError, match="API key"):
            await create(server.url, way, **HI)
        server.runner.gate.clear()
        await wait_for(lambda: server.held()["millrace_permits_held"] == 1)
        with pytest.raises(openai.RateLimitError, match="Model is overloaded") as raised:
            await create(server.url, way, **HI, api_key="open-sesame")
        assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60
        holder.leave()
        server.runner.gate.set()


async def test_nothing_is_stored_so_nothing_is_found():
    async with (
        in_process() as server,
        AsyncOpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0) as client,
    ):
        with pytest.raises(openai.NotFoundError, match="There is no route"):
            await client.responses.retrieve("resp_1")
