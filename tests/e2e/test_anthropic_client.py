"""The anthropic package, unchanged, sync and async, against a scripted model."""

import asyncio

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, types
from in_process import EOS, byte_tokenizer, in_process, repeat_prompt
from occupancy import wait_for
from raw_http import asking, call
from streams import check

PATH = "/v1/messages"
TYPES = {
    "message_start": types.RawMessageStartEvent,
    "content_block_start": types.RawContentBlockStartEvent,
    "content_block_delta": types.RawContentBlockDeltaEvent,
    "content_block_stop": types.RawContentBlockStopEvent,
    "message_delta": types.RawMessageDeltaEvent,
    "message_stop": types.RawMessageStopEvent,
}
"""The client drops pings."""
HI = {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
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
    options = {"base_url": url, "api_key": api_key, "max_retries": 0}
    if way == "async":
        async with AsyncAnthropic(**options) as client:
            answer = await client.messages.create(**asked)
            return [event async for event in answer] if asked.get("stream") else answer

    def ask():
        with Anthropic(**options) as client:
            answer = client.messages.create(**asked)
            return list(answer) if asked.get("stream") else answer

    return await asyncio.to_thread(ask)


def sound(value):
    """See that every field which the client's types require is there, and of its type."""
    type(value).model_validate(value.to_dict(), strict=True)
    return value


@WAYS
async def test_an_answer_has_text_reason_and_usage(way):
    async with in_process(saying("Hello")) as server:
        sampling = {"temperature": 0, "top_k": 5, "top_p": 1}  # no arguments since version 2
        answer = sound(await create(server.url, way, **HI, extra_body=sampling))
    (block,) = answer.content
    assert (block.type, block.text) == ("text", "Hello")
    assert (answer.role, answer.model) == ("assistant", "scripted")
    assert answer.id.startswith("msg_")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 6)


@WAYS
async def test_a_stream_has_every_event_in_order_one_a_token(way):
    async with in_process(saying("Hello")) as server:
        events = await create(server.url, way, **HI, stream=True)
    for event in events:
        assert type(event) is TYPES[event.type]
        sound(event)
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert deltas == [*"Hello", ""]
    order = [event.type for event in events if event.type != "content_block_delta"]
    assert order == [kind for kind in TYPES if kind != "content_block_delta"]
    assert events[-2].delta.stop_reason == "end_turn"
    assert (events[-2].usage.input_tokens, events[-2].usage.output_tokens) == (2, 6)


@WAYS
async def test_the_stream_helper_puts_the_message_together(way):
    async with in_process(saying("Hello")) as server:
        whole = await create(server.url, way, **HI)
        options = {"base_url": server.url, "api_key": "-"}
        if way == "async":
            async with AsyncAnthropic(**options) as client, client.messages.stream(**HI) as stream:
                texts = [text async for text in stream.text_stream]
                final = await stream.get_final_message()
        else:

            def ask():
                with Anthropic(**options) as client, client.messages.stream(**HI) as stream:
                    return list(stream.text_stream), stream.get_final_message()

            texts, final = await asyncio.to_thread(ask)
    assert "".join(texts) == final.content[0].text == "Hello"
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 6)
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == 2
    assert final.usage.to_dict().keys() == whole.usage.to_dict().keys()


@WAYS
async def test_a_stop_sequence_is_cut_away_and_named_and_a_length_is_told(way):
    async with in_process(saying("Hello END")) as server:
        stopped = await create(server.url, way, **HI, stop_sequences=["x", "lo"])
        events = await create(server.url, way, **HI, stop_sequences=["lo"], stream=True)
        cut = await create(server.url, way, **{**HI, "max_tokens": 2})
    assert stopped.content[0].text == "Hel"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "lo")
    texts = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "".join(texts) == "Hel"
    assert events[-2].delta.stop_sequence == "lo"
    assert (cut.content[0].text, cut.stop_reason) == ("He", "max_tokens")


async def test_system_and_turns_reach_the_model_and_a_last_turn_goes_on():
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        {"role": "assistant", "content": "C"},
    ]
    asked = {"model": "any", "max_tokens": 5, "messages": messages}
    async with in_process() as server:
        answer = await create(server.url, "async", **asked, system="S")
    assert answer.content[0].text == "SABCS"  # the model repeats what the template joined
    assert answer.usage.input_tokens == 4


async def test_the_usage_splits_the_prompt_into_known_and_new():
    text = "A prompt of its own, and long enough to fill some blocks of the cache. " * 4
    asked = {**HI, "messages": [{"role": "user", "content": text}]}
    async with in_process() as server:
        first = (await create(server.url, "async", **asked)).usage
        second = (await create(server.url, "async", **asked)).usage
    assert (first.input_tokens, first.cache_read_input_tokens) == (len(text), 0)
    assert second.input_tokens + second.cache_read_input_tokens == len(text)
    assert second.cache_read_input_tokens >= 32


@WAYS
async def test_tokens_are_counted_as_they_are_read(way):
    asked = {**HI, "system": [{"type": "text", "text": "Be brief."}]}
    counted = {key: value for key, value in asked.items() if key != "max_tokens"}
    async with in_process() as server:
        usage = (await create(server.url, way, **asked)).usage
        if way == "async":
            async with AsyncAnthropic(base_url=server.url, api_key="-") as client:
                count = await client.messages.count_tokens(**counted)
        else:
            client = Anthropic(base_url=server.url, api_key="-")
            count = await asyncio.to_thread(client.messages.count_tokens, **counted)
            client.close()
        assert server.metric("millrace_sequences_ended_total") == 1  # counting generates nothing
    assert sound(count).input_tokens == usage.input_tokens == 11


@pytest.mark.parametrize("at", [0, 3])
@WAYS
async def test_a_fault_raises_its_message_whole_and_in_mid_stream(way, at):
    async with in_process(failing_at(at)) as server:
        with pytest.raises(anthropic.APIStatusError, match="out of luck") as raised:
            await create(server.url, way, **HI)
        assert raised.value.status_code == 424
        with pytest.raises(anthropic.APIStatusError, match="out of luck") as raised:
            await create(server.url, way, **HI, stream=True)
        assert raised.value.body["error"]["type"] == "api_error"
        assert raised.value.body["error_type"] == "generation"
        assert server.held() == dict.fromkeys(server.held(), 0)


async def test_a_fault_in_mid_stream_is_one_event_and_the_only_end():
    async with in_process(failing_at(3)) as server:
        answer = await call(server.url, "POST", PATH, {**HI, "stream": True})
    said = check(PATH, answer.body)
    assert (said.text, said.error["error_type"]) == ("HiH", "generation")


@WAYS
async def test_bad_input_is_unprocessable_and_names_its_field(way):
    image = {"type": "image", "source": {"type": "url", "url": "x"}}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    async with in_process() as server:
        for fields, says in (
            ({"extra_body": {"temperature": -1}}, "`temperature`.*Given: -1"),
            ({"max_tokens": 0}, "`max_tokens`.*Given: 0"),
            ({"messages": [{"role": "user", "content": [image]}]}, "`image` are not supported"),
            ({"tools": [tool]}, "`tools`: the model's chat template has no calls"),
        ):
            with pytest.raises(anthropic.UnprocessableEntityError, match=says) as raised:
                await create(server.url, way, **{**HI, **fields})
            assert raised.value.body["type"] == "error"
            assert raised.value.body["error"]["type"] == "invalid_request_error"


@WAYS
async def test_no_room_is_a_rate_limit(way):
    async with (
        in_process(max_concurrent_requests=1) as server,
        asking(server.url, PATH, {**HI, "stream": True}) as holder,
    ):
        server.runner.gate.clear()
        await wait_for(lambda: server.held()["millrace_permits_held"] == 1)
        with pytest.raises(anthropic.RateLimitError, match="Model is overloaded") as raised:
            await create(server.url, way, **HI)
        assert raised.value.body["error"]["type"] == "rate_limit_error"
        assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60
        holder.leave()
        server.runner.gate.set()


@WAYS
async def test_a_wrong_key_is_an_authentication_error(way):
    async with in_process(saying("Hello"), api_keys=("open-sesame",)) as server:
        assert (await create(server.url, way, **HI, api_key="open-sesame")).content
        with pytest.raises(anthropic.AuthenticationError, match="x-api-key") as raised:
            await create(server.url, way, **HI)
        assert raised.value.body["type"] == "error"
        assert raised.value.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("path", [PATH, PATH + "/count_tokens"])
async def test_the_header_of_older_clients_opens_its_routes(path):
    async with in_process(api_keys=("open-sesame", "another")) as server:
        for headers, status in (
            (("x-api-key: open-sesame",), 200),
            (("X-Api-Key: another", "anthropic-version: 2023-06-01"), 200),
            (("Authorization: Bearer wrong", "x-api-key: another"), 200),
            (("Authorization: Bearer another", "x-api-key: wrong"), 200),
            (("x-api-key: wrong",), 401),
            (("x-api-key: ",), 401),
            (("x-api-key: Bearer another",), 401),
        ):
            answer = await call(server.url, "POST", path, HI, *headers)
            assert answer.status == status, headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/generate", "/events"])
async def test_its_key_header_opens_no_other_route(path):
    async with in_process(api_keys=("open-sesame",)) as server:
        method = "GET" if path == "/events" else "POST"
        body = None if path == "/events" else HI
        answer = await call(server.url, method, path, body, "x-api-key: open-sesame")
    assert answer.status == 401


async def test_a_route_that_is_not_there_is_not_found_in_its_words():
    async with (
        in_process() as server,
        AsyncAnthropic(base_url=server.url, api_key="-", max_retries=0) as client,
    ):
        with pytest.raises(anthropic.NotFoundError, match="There is no route") as raised:
            await client.messages.batches.retrieve("x")
        assert raised.value.body["type"] == "error"
        assert raised.value.body["error"]["type"] == "not_found_error"
