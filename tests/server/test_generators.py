"""Published generators over real sockets: their events, their ends, and what they hold."""

import asyncio
import gc
import json
import logging
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import some_generators
from in_process import in_process
from jsonschema import Draft202012Validator
from occupancy import wait_for
from openapi_spec_validator import validate
from raw_http import asking, call

import server as server_package
from server.examples.diffusion import fake_diffusion
from server.live.why import Outcome, Room, Story, why

ENDINGS = ("leave", "reset")
BOTH = ("", "_async")
TINY = 4096
"""Bytes the kernel may keep for a reader."""
ALL = (
    *("typed", "untyped", "three", "three_async", "nothing", "waits", "waits_async", "deaf_async"),
    *("endless", "eager", "stubborn", "picture", "picture_async", "raises", "raises_async"),
    *("unsendable", "unsendable_async", "returns_unsendable", "remembers", "remembers_async"),
    "fails_at_the_gate",
)


def serving(**config):
    return in_process(generators=tuple(f"some_generators:{name}" for name in ALL), **config)


@pytest.fixture
async def server():
    async with serving() as server:
        yield server
        await wait_for(lambda: not any(server.held().values()))


@pytest.fixture(autouse=True)
def log(caplog):
    """Clear what the generators have noted, and look at the log afterwards."""
    caplog.set_level(logging.INFO)
    some_generators.GATE.clear()
    some_generators.CLOSED_IN.clear()
    some_generators.ASKED.clear()
    return caplog


def lines(log):
    return [record for record in log.records if record.name == "server.requests"]


def others(log):
    """List what was logged beside the line of each request."""
    ours = [record for record in log.records if record.name.startswith("server")]
    return [record.getMessage() for record in ours if record.name != "server.requests"]


async def ask(server, name, body=None, *headers):
    return await call(server.url, "POST", f"/generators/{name}", body or {}, *headers)


def check(answer, *, is_whole=True):
    """Check a stream by its grammar: values counted from 1, and then exactly one end."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.is_whole is is_whole
    assert answer.body.isascii()
    blocks = [block for block in answer.body.split(b"\n\n") if block not in (b"", b":")]
    events = [json.loads(block.removeprefix(b"data: ")) for block in blocks]
    values = [event["value"] for event in events if "value" in event]
    assert [event["index"] for event in events if "value" in event] == [*range(1, len(values) + 1)]
    assert all("value" in event for event in events[:-1])
    last = events[-1]
    assert last.get("end") is True or set(last) == {"error", "error_type"}
    if "end" in last:
        assert last["num_values"] == len(values)
    return values, last


async def failed(server, name, **body):
    """Ask for what fails before its first value: a real status."""
    answer = await ask(server, name, body)
    assert answer.status == 424
    assert answer.json()["error_type"] == "generation"
    return answer.json()["error"]


# Values


@pytest.mark.parametrize("kind", BOTH)
async def test_each_value_is_an_event_and_the_end_is_one_of_its_own(server, kind):
    answer = await ask(server, f"three{kind}")
    assert answer.body.split(b"\n\n") == [
        b'data: {"index":1,"value":"one"}',
        b'data: {"index":2,"value":"two"}',
        b'data: {"index":3,"value":"three"}',
        b'data: {"end":true,"num_values":3}',
        b"",
    ]
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.is_whole


async def test_what_it_returns_is_in_the_last_event(server):
    values, last = check(await ask(server, "typed", {"steps": 2, "at": {"x": 3}}))
    assert values == [[2, "a", {"x": 3, "y": 0.5}, [], False]]
    assert last["result"] == "done"


async def test_a_generator_without_values_has_an_end(server):
    values, last = check(await ask(server, "nothing"))
    assert (values, last) == ([], {"end": True, "num_values": 0})


@pytest.mark.parametrize("kind", BOTH)
async def test_context_variables_stay_from_value_to_value_and_within_one_run(server, kind):
    for _ in range(2):
        values, _ = check(await ask(server, f"remembers{kind}"))
        assert values == ([1, 2, 3] if kind else [[1, 1], [2, 2], [3, 3]])
    assert some_generators.VAR.get() == 0


async def test_large_pictures_arrive_whole(server):
    ((url,), _) = check(await ask(server, "picture", {"size": 1200}))
    assert len(url) > 5_000_000
    ((value,), _) = check(await ask(server, "picture_async"))
    assert value["step"] == 1
    assert value["image"].startswith("data:image/png;base64,")


async def test_values_go_out_as_they_come(server):
    async with asking(server.url, "/generators/waits", {}) as client:
        for number in range(3):
            body = await client.read_until(b'"index":%d,' % (number + 1))
            assert b'"index":%d,' % (number + 2) not in body
            some_generators.GATE.set()
        client.leave()
        some_generators.GATE.set()
        await wait_for(lambda: not any(server.held().values()))


# The door


async def test_the_list_says_what_there_is_and_needs_no_key():
    async with in_process(
        generators=("some_generators:typed", "some_generators:three_async"), api_keys=("sesame",)
    ) as server:
        answer = await call(server.url, "GET", "/generators")
        assert [(item["name"], item["description"]) for item in answer.json()] == [
            ("typed", "Say what it was given."),
            ("three_async", ""),
        ]
        assert answer.json()[0]["parameters"]["properties"]["steps"]["maximum"] == 9
        refused = await ask(server, "three_async")
        assert refused.status == 401
        taken = await ask(server, "three_async", {}, "Authorization: Bearer sesame")
        assert check(taken)[0] == ["one", "two", "three"]


async def test_without_generators_the_list_is_empty_and_every_name_unknown():
    async with in_process() as server:
        assert (await call(server.url, "GET", "/generators")).json() == []
        answer = await ask(server, "three")
        assert (answer.status, answer.json()["error_type"]) == (404, "not_found")
        assert server.metric("millrace_requests_total") == 0


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 422, "`steps` is missing"),
        ({"steps": 10}, 422, "`steps`: expected `int` <= 9"),
        ({"steps": 1, "stps": 1}, 422, "unknown field `stps`"),
        (b"{", 400, "the body is not JSON"),
        (b'{"steps":1,"names":["\\ud83d"]}', 422, "half of a character"),
        (b"x" * 3_000_000, 413, "at most 2000000 bytes"),
    ],
)
async def test_a_wrong_body_is_a_status_and_takes_no_permit(server, log, body, status, sentence):
    answer = await ask(server, "typed", body)
    assert answer.status == status
    assert answer.json()["error_type"] == "validation"
    assert sentence in answer.json()["error"]
    (line,) = lines(log)
    assert line.fields["status"] == status
    assert server.metric("millrace_requests_ended_total", outcome="validation") == 1


async def test_another_type_of_body_is_refused(server):
    answer = await ask(server, "three", b"{}", "Content-Type: text/plain")
    assert answer.status == 415


async def test_generators_and_the_model_share_the_permits():
    async with serving(max_concurrent_requests=2) as server:
        prompt = {"inputs": "abc", "parameters": {"max_new_tokens": 90_000, "ignore_eos": True}}
        async with (
            asking(server.url, "/generate_stream", prompt) as model,
            asking(server.url, "/generators/waits", {}) as generator,
        ):
            await model.read_until(b"\n\n")
            await generator.read_until(b"\n\n")
            for path, body in (("/generators/three", {}), ("/generate", prompt)):
                refused = await call(server.url, "POST", path, body)
                assert refused.status == 429
                assert refused.json() == {
                    "error": "Model is overloaded",
                    "error_type": "overloaded",
                }
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert server.metric("millrace_requests_refused_total", reason="no_permit") == 2
        some_generators.GATE.set()
        await wait_for(lambda: not any(server.held().values()))
        check(await ask(server, "three"))


async def test_requests_are_counted_under_their_route_and_logged_by_their_name(server, log):
    await ask(server, "three")
    await ask(server, "nothing")
    assert server.metric("millrace_requests_total", route="/generators/{name}") == 2
    assert server.metric("millrace_requests_ended_total", outcome="finished") == 2
    assert server.metric("millrace_streams_ended_total", reason="finished") == 2
    assert server.metric("millrace_sent_bytes_total") > 100
    assert [
        (line.fields["route"], line.fields["status"], line.fields["num_values"])
        for line in lines(log)
    ] == [("/generators/three", 200, 3), ("/generators/nothing", 200, 0)]
    assert not others(log)


# Faults


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("what", some_generators.FAULTS)
async def test_whatever_it_raises_is_a_typed_error_and_harms_nobody(server, log, kind, what):
    async with asking(server.url, "/generators/waits", {}) as neighbour:
        await neighbour.read_until(b'"index":1')
        sentence = await failed(server, f"raises{kind}", what=what)
        values, last = check(await ask(server, f"raises{kind}", {"what": what, "num_values": 2}))
        assert values == [0, 1]
        assert last == {"error": sentence, "error_type": "generation"}
        assert sentence.startswith("Request failed during generation: ")
        # PEP 479: a StopIteration inside a generator becomes a RuntimeError
        named = {"surrogate": "ValueError: \\ud83d", "StopIteration": "RuntimeError: "}
        assert named.get(what, what) in sentence
        some_generators.GATE.set()
        await neighbour.read_until(b'"index":2')
    some_generators.GATE.set()
    await wait_for(lambda: len(lines(log)) == 3)
    before, after, _ = lines(log)
    assert (before.fields["status"], after.fields["status"]) == (424, 200)
    assert (before.fields["reasons"], after.fields["num_values"]) == ("generation", 2)
    assert before.levelno == after.levelno == logging.WARNING
    assert before.exc_info[2] is not None  # the operator's traceback goes with the line
    assert not others(log)
    assert server.metric("millrace_requests_ended_total", outcome="generation") == 2
    assert server.metric("millrace_streams_ended_total", reason="error") == 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("what", some_generators.UNSENDABLE)
async def test_what_cannot_be_sent_is_a_typed_error_that_counts_to_it(server, log, kind, what):
    sentence = await failed(server, f"unsendable{kind}", what=what)
    assert "value 1 cannot be sent: " in sentence
    values, last = check(await ask(server, f"unsendable{kind}", {"what": what, "num_values": 1}))
    assert values == [0]
    assert "value 2 cannot be sent: " in last["error"]
    assert len(lines(log)) == 2
    assert not others(log)


async def test_a_result_that_cannot_be_sent_is_an_error(server):
    values, last = check(await ask(server, "returns_unsendable"))
    assert values == [1]
    assert "value 2 cannot be sent: a set has no order" in last["error"]


async def test_a_generator_that_will_not_be_closed_is_told_in_the_log(server, log):
    async with asking(server.url, "/generators/stubborn", {}) as client:
        await client.read_until(b'"index":3')
        client.leave()
    await wait_for(lambda: not any(server.held().values()))
    assert others(log) == ["generator stubborn failed as it was closed"]


# Leaving


@pytest.mark.parametrize("how", ENDINGS)
async def test_leaving_closes_a_plain_generator_in_its_own_thread(server, log, how):
    async with asking(server.url, "/generators/endless", {}) as client:
        await client.read_until(b'"index":3')
        getattr(client, how)()
        await wait_for(lambda: not any(server.held().values()))
    assert some_generators.CLOSED_IN == ["generator endless"]
    await wait_for(lambda: len(lines(log)) == 1)
    (line,) = lines(log)
    assert line.fields["is_client_gone"]
    assert line.levelno == logging.INFO
    assert server.metric("millrace_streams_ended_total", reason="client_gone") == 1
    assert server.metric("tgi_request_failure", err="dropped") == 1
    assert not others(log)


@pytest.mark.parametrize("how", ENDINGS)
async def test_leaving_closes_an_asynchronous_generator_that_waits(server, how):
    async with asking(server.url, "/generators/waits_async", {}) as client:
        await client.read_until(b'"index":1')
        getattr(client, how)()
        await wait_for(lambda: not any(server.held().values()))
    assert some_generators.CLOSED_IN == ["generator waits_async"]


async def test_an_asynchronous_generator_that_swallows_its_cancellation_is_closed_too(server):
    async with asking(server.url, "/generators/deaf_async", {}) as client:
        await client.read_until(b'"index":1')
        client.leave()
        await wait_for(lambda: not any(server.held().values()))
    assert some_generators.CLOSED_IN == ["deaf"]


async def test_a_generator_that_does_not_yield_keeps_its_permit_until_it_does(log):
    async with serving(max_stall_s=0.2, max_concurrent_requests=1) as server:
        async with asking(server.url, "/generators/waits", {}) as client:
            await client.read_until(b'"index":1')
            assert server.metric("millrace_generators_running") == 1
            assert server.metric("millrace_generators_abandoned") == 0
            client.leave()
        await wait_for(lambda: server.metric("millrace_generators_abandoned") == 1)
        await wait_for(lambda: len(others(log)) == 1)
        assert others(log) == [
            "generator waits has not yielded for 0.2 s; it keeps its permit until it does"
        ]
        assert server.metric("millrace_streams_open") == 0
        assert (await ask(server, "three")).status == 429
        some_generators.GATE.set()
        await wait_for(lambda: not any(server.held().values()))
        assert server.metric("millrace_generators_abandoned") == 0
        check(await ask(server, "three"))
        assert len(others(log)) == 1


async def test_a_storm_of_leaves_leaves_nothing_behind(server):
    num_threads = threading.active_count()

    async def leave(number):
        name = ("endless", "waits_async", "three", "picture")[number % 4]
        async with asking(server.url, f"/generators/{name}", {}) as client:
            if number % 3:
                await client.read_some()
            getattr(client, ENDINGS[number % 2])()

    for start in range(0, 60, 12):
        async with asyncio.TaskGroup() as group:
            for number in range(start, start + 12):
                group.create_task(leave(number))
    await wait_for(lambda: not any(server.held().values()))
    await wait_for(lambda: threading.active_count() <= num_threads)
    gc.collect()  # a coroutine or a generator that nobody has closed would warn here


# Back-pressure and silence


@pytest.fixture
def ticks_often(monkeypatch):
    """Let the server look at its clock ten times a second."""
    monkeypatch.setattr("server.sse._TICK_S", 0.1)


async def test_the_next_value_is_asked_for_only_after_the_last_was_written(server):
    ahead = 8
    """Values of 100 kB that the buffers of the transport and of the kernel may hold."""
    async with asking(server.url, "/generators/eager", {}, receive_buffer=TINY) as client:
        for index in range(1, 60):
            await client.read_until(b'"index":%d,' % index)
            client.response.body = b""
            assert len(some_generators.ASKED) <= index + ahead
    await wait_for(lambda: not any(server.held().values()))
    assert len(some_generators.ASKED) <= 60 + ahead


async def test_silence_is_filled_with_comments(ticks_often):
    async with serving(keep_alive_s=0.1) as server:
        async with asking(server.url, "/generators/waits_async", {}) as client:
            await client.read_until(b'"index":1')
            await client.read_until(b"\n\n:\n\n")
        await wait_for(lambda: not any(server.held().values()))
        assert server.metric("millrace_keep_alives_total") >= 1


async def test_a_fault_after_a_comment_is_an_event(ticks_often):
    async with serving(keep_alive_s=0.1) as server:
        async with asking(server.url, "/generators/fails_at_the_gate", {}) as client:
            await client.read_until(b":\n\n")
            some_generators.GATE.set()
            values, last = check(await client.read())
        assert (values, last["error_type"]) == ([], "generation")
        assert "ValueError: boom" in last["error"]


@pytest.mark.parametrize("name", ["endless", "picture_forever"])
async def test_a_reader_that_takes_nothing_is_cut_off(name, monkeypatch, ticks_often):
    monkeypatch.setattr(
        some_generators, "picture_forever", picture_forever, raising=False
    )  # only here: it is large
    async with in_process(
        generators=("some_generators:endless", "some_generators:picture_forever"), max_stall_s=0.3
    ) as server:
        path = f"/generators/{name}"
        async with asking(server.url, path, {}, receive_buffer=TINY) as silent:
            await wait_for(
                lambda: server.metric("millrace_streams_ended_total", reason="reader_stalled") == 1
            )
            await wait_for(lambda: not any(server.held().values()))
            assert not (await silent.read()).is_whole


def picture_forever():
    while True:
        yield np.random.default_rng().random(size=(900, 900, 3))


async def test_a_reader_that_takes_its_time_over_a_large_picture_gets_all_of_it(ticks_often):
    async with serving(max_backlog_bytes=200_000) as server:
        body = {"size": 900}
        async with asking(server.url, "/generators/picture", body, receive_buffer=TINY) as slow:
            await slow.read_head()
            await asyncio.sleep(0.22)  # the server looks at its clock twice
            ((url,), _) = check(await slow.read())
        assert len(url) > 1_000_000
        await wait_for(lambda: not any(server.held().values()))


# The examples


async def test_gradios_examples_run_as_they_are_printed(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    references = ("server.examples.count:count", "server.examples.diffusion:fake_diffusion")
    async with in_process(generators=references) as server:
        values, _ = check(await ask(server, "count", {"n": 4}))
        assert values == [0, 1, 2, 3]
        values, _ = check(await ask(server, "fake_diffusion", {"steps": 2}))
        assert len(values) == 3
        assert all(value.startswith("data:image/png;base64,") for value in values)
        _, last = check(await ask(server, "count", {"n": 1.5}))
        assert last["num_values"] == 1
        answer = await ask(server, "fake_diffusion", {"steps": "three"})
        assert answer.status == 424
        assert "TypeError" in answer.json()["error"]
    *noise, picture = fake_diffusion(2)
    assert [array.shape for array in noise] == [(600, 600, 3)] * 2
    assert (picture == [255, 124, 0]).all()


async def test_the_document_describes_each_published_generator():
    references = ("some_generators:typed", "some_generators:three")
    async with in_process(generators=references) as server:
        document = (await call(server.url, "GET", "/api-doc/openapi.json")).json()
        validate(document)
        post = document["paths"]["/generators/typed"]["post"]
        assert post["summary"] == "Say what it was given."
        content = post["requestBody"]["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/generators.typed"}
        assert (await ask(server, "typed", content["example"])).status == 200
        schemas = document["components"]["schemas"]
        body = schemas["generators.typed"]
        assert body["properties"]["steps"]["maximum"] == 9
        assert body["properties"]["at"]["anyOf"][0] == {
            "$ref": "#/components/schemas/generators.typed.Point"
        }
        assert schemas["generators.typed.Point"]["required"] == ["x"]
        schema = post["responses"]["200"]["content"]["text/event-stream"]["schema"]
        validator = Draft202012Validator({**schema, "components": document["components"]})
        answer = await ask(server, "typed", {"steps": 2})
        failed = await ask(server, "typed", {"steps": 22})
        for line in [*answer.body.split(b"\n\n")[:-1], b"data: " + failed.body]:
            validator.validate(json.loads(line.removeprefix(b"data: ")))
        assert not validator.is_valid({"index": 1})


async def test_the_example_of_the_readme_says_what_the_readme_prints(tmp_path, monkeypatch):
    text = (Path(server_package.__file__).parent / "README.md").read_text()
    section = text.partition("\n## Generators\n")[2].partition("\n## ")[0]
    code, session = re.findall(r"^```\w*\n(.*?)^```", section, re.M | re.S)
    (tmp_path / "steps.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    async with in_process(generators=("steps:countdown",)) as server:
        answer = await ask(server, "countdown", {"start": 2})
        assert answer.body.decode().strip() == session.partition("\n")[2].strip()


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (Outcome.ANSWERED, "It took 1.50 s, all of it spent by its generator on 3 values."),
        (Outcome.FAILED, "Its generator failed after 1.50 s and 3 values."),
        (Outcome.SHUTDOWN, "It was ended after 1.50 s and 3 values: the server stopped."),
        (Outcome.CLIENT_GONE, "The client left after 1.50 s and 3 values."),
        (
            Outcome.READER_STALLED,
            "It was cut off after 1.50 s and 3 values: its reader took nothing more.",
        ),
    ],
)
def test_the_live_feed_tells_of_a_generator_in_a_sentence_of_its_own(outcome, sentence):
    story = Story(outcome=outcome, status=200, reasons=(), num_values=3, total_s=1.5)
    assert why(story, Room(max_rows=1, max_permits=1)) == sentence
