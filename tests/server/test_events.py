"""The live feed: what runs, what waits, what ended and why; and what a watcher may not do."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from in_process import in_process
from occupancy import wait_for
from raw_http import asking, call, connect, request_bytes

from server.live.journal import MAX_ENDED, MAX_REFUSED, Journal
from server.live.why import Outcome, Story
from server.millrace_metrics import Refusal

SECRET = "Rosebud-4711-Schluessel"
README = (Path(__file__).parents[2] / "server" / "README.md").read_text("utf-8")


class Feed:
    """The events of a feed as they come."""

    def __init__(self, connection):
        self.connection = connection
        self.text = b""
        self._rest = b""
        self._events = []

    async def next(self):
        """Give the next event; None at the feed's end, whole or cut."""
        while not self._events:
            data = await self.connection.read_some()
            if not data:
                return None
            self.text += data
            *blocks, self._rest = (self._rest + data).split(b"\n\n")
            self._events += [
                json.loads(block.removeprefix(b"data: ")) for block in blocks if block != b":"
            ]
        return self._events.pop(0)

    async def until(self, is_it):
        """Skip to the first event of which this is true."""
        while not is_it(event := await self.next()):
            assert event is not None, f"the feed ended: {self.text[-2000:]}"
        return event

    async def frame(self, is_it=lambda frame: True):
        """Skip to the first such frame."""
        return await self.until(lambda event: event["type"] == "frame" and is_it(event))

    async def ended(self, request):
        """Skip to the end of a request."""
        return await self.until(lambda e: e["type"] == "ended" and e["request"] == request)


@asynccontextmanager
async def watching(url, *headers, **options):
    async with connect(url, **options) as connection:
        await connection.send(request_bytes("GET", "/events", None, *headers))
        yield Feed(connection)


def body(text="abc", num_tokens=3, **more):
    return {"inputs": text, "parameters": {"max_new_tokens": num_tokens}, **more}


def is_running(num_running, num_waiting):
    return lambda f: (f["num_running"], f["num_waiting"]) == (num_running, num_waiting)


async def test_the_feed_says_hello_with_the_limits_and_then_how_things_are():
    async with in_process(max_concurrent_requests=7) as server, watching(server.url) as feed:
        hello, frame = await feed.next(), await feed.next()
        response = feed.connection.response
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert (hello["type"], hello["schema"], hello["model_id"]) == ("hello", 1, "scripted")
        assert (hello["max_rows"], hello["max_permits"], hello["num_blocks"]) == (4, 7, 8192)
        assert frame["type"] == "frame"
        assert (frame["num_open"], frame["requests"], frame["step"]) == (0, [], None)
        assert set(frame["num_refused"]) == {str(reason) for reason in Refusal}


async def test_a_frame_shows_a_request_that_runs_and_one_that_waits():
    async with in_process(limits={"max_batch_size": 1}) as server, watching(server.url) as feed:
        server.runner.gate.clear()
        async with (
            asking(server.url, "/generate_stream", body("abcde", 40)),
            asking(server.url, "/generate", body("fgh", 40)),
        ):
            frame = await feed.frame(is_running(1, 1))
            first, second = frame["requests"]
            assert (first["request"], first["route"]) == (1, "/generate_stream")
            assert (first["is_stream"], second["is_stream"]) == (True, False)
            (running,), (waiting,) = first["sequences"], second["sequences"]
            assert (running["state"], running["num_prompt_tokens"]) == ("running", 5)
            assert (waiting["state"], waiting["num_prompt_tokens"]) == ("waiting", 3)
            assert waiting["started_ms"] is None
            assert first["arrived_ms"] <= running["submitted_ms"] <= running["started_ms"]
            assert running["started_ms"] <= frame["now_ms"]
            assert (frame["num_permits_held"], frame["num_open"]) == (2, 2)
            assert frame["num_blocks_used"] == 1
            server.runner.gate.set()
            told = [await feed.ended(1), await feed.ended(2)]
        assert [e["outcome"] for e in told] == ["answered", "answered"]
        assert [e["num_generated_tokens"] for e in told] == [40, 40]
        assert "waiting while the only row of the batch was taken" in told[1]["why"]
        after = await feed.frame(is_running(0, 0))
        assert (after["num_generated_tokens"], after["num_blocks_used"]) == (80, 0)
        assert after["step"]["num_decode_tokens"] == 1


async def test_tokens_grow_from_frame_to_frame_and_their_sum_is_the_servers():
    async with in_process() as server, watching(server.url) as feed:
        async with asking(server.url, "/generate_stream", body("abc", 50_000)):
            seen = [await feed.frame(is_running(1, 0)) for _ in range(3)]
            counts = [f["requests"][0]["sequences"][0]["num_output_tokens"] for f in seen]
            assert counts == sorted(set(counts))
            assert counts == [f["num_generated_tokens"] for f in seen]
        gone = await feed.ended(1)
        assert (gone["outcome"], gone["reasons"]) == ("client_gone", ["abort"])
        assert gone["num_generated_tokens"] >= counts[-1]
        assert gone["why"].startswith("The client left after ")


async def test_the_spans_of_an_ended_request_add_up_to_the_whole():
    async with in_process() as server, watching(server.url) as feed:
        await call(server.url, "POST", "/generate", body("abc", 20))
        told = await feed.ended(1)
        spans = ("validation_ms", "queue_ms", "prefill_ms", "decode_ms", "sending_ms")
        assert sum(told[span] for span in spans) == pytest.approx(told["total_ms"], abs=0.5)
        assert told["tokens_per_s"] > 0


async def test_a_request_of_several_sequences_is_one_line_with_all_of_them():
    async with in_process() as server, watching(server.url) as feed:
        server.runner.gate.clear()
        completion = {"prompt": ["ab", "cdef"], "max_tokens": 3}
        async with asking(server.url, "/v1/completions", completion):
            frame = await feed.frame(is_running(2, 0))
            (request,) = frame["requests"]
            assert [s["num_prompt_tokens"] for s in request["sequences"]] == [2, 4]
            server.runner.gate.set()
            told = await feed.ended(1)
        assert (told["num_sequences"], told["num_prompt_tokens"]) == (2, 6)


async def test_a_published_generators_requests_are_in_the_feed_too():
    published = ("server.examples.count:count",)
    async with in_process(generators=published) as server, watching(server.url) as feed:
        answer = await call(server.url, "POST", "/generators/count", {"n": 2})
        assert answer.status == 200
        told = await feed.ended(1)
        assert (told["route"], told["outcome"]) == ("/generators/count", "answered")
        assert told["num_values"] == 2
        assert told["why"].endswith("all of it spent by its generator on 2 values.")


async def test_refusals_are_told_one_by_one_and_counted():
    async with in_process(max_concurrent_requests=1) as server, watching(server.url) as feed:
        server.runner.gate.clear()
        async with asking(server.url, "/generate", body()):
            await feed.frame(is_running(1, 0))
            assert (await call(server.url, "POST", "/generate", body())).status == 429
            told = await feed.ended(2)
            assert (told["outcome"], told["status"]) == ("refused", 429)
            assert told["refusal"] == "no_permit"
            assert told["why"] == (
                "It was refused at once: the only permit was held by requests that came before."
            )
            frame = await feed.frame()
            assert frame["num_refused"] == {
                **dict.fromkeys(map(str, Refusal), 0),
                "no_permit": 1,
            }
            server.runner.gate.set()


async def test_a_bad_request_and_a_failed_one_are_told_by_their_type():
    async with in_process() as server, watching(server.url) as feed:
        await call(server.url, "POST", "/generate", {"inputs": 1})
        assert (await feed.ended(1))["why"].endswith("422, validation.")
        server.runner.raises = RuntimeError(SECRET)
        await call(server.url, "POST", "/generate", body())
        failed = await feed.ended(2)
        assert (failed["outcome"], failed["reasons"]) == ("failed", ["generation"])
        assert SECRET.encode() not in feed.text


async def test_a_newcomer_is_told_what_ended_before():
    async with in_process() as server:
        for _ in range(3):
            await call(server.url, "POST", "/generate", body())
        async with watching(server.url) as feed:
            assert [(await feed.ended(number))["request"] for number in (1, 2, 3)] == [1, 2, 3]


async def test_neither_prompt_nor_answer_nor_what_a_client_calls_itself_is_in_the_feed():
    async with in_process(max_concurrent_requests=2) as server, watching(server.url) as feed:
        secret = json.dumps(SECRET)[1:-1]
        label = "x-request-id: " + SECRET
        chat = {"messages": [{"role": "user", "content": SECRET}]}
        asked = [
            ("/generate_stream", body(SECRET, 60)),
            ("/generate", {**body(SECRET), SECRET: SECRET}),
            ("/generate", {"inputs": {SECRET: SECRET}}),
            ("/v1/chat/completions", {**chat, "max_tokens": 30}),
            ("/v1/chat/completions", {"messages": SECRET, "model": SECRET, "user": SECRET}),
            (f"/{SECRET}", {}),
        ]
        for path, data in asked:
            await call(server.url, "POST", path, data, label, f"User-Agent: {SECRET}")
        await feed.ended(5)
        await feed.frame(lambda f: f["num_open"] == 0)
        assert secret.encode() not in feed.text
        assert feed.text.isascii()
        known = r'"route":"(/|/generate|/generate_stream|/v1/chat/completions)"'
        assert len(re.findall(rb'"route":', feed.text)) == len(
            re.findall(known.encode(), feed.text)
        )


async def test_a_silent_server_sends_comments_and_no_frames():
    async with in_process(keep_alive_s=0.05) as server, watching(server.url) as feed:
        await feed.frame()
        while feed.connection.response.body.count(b"\n\n:\n\n") < 1:
            await feed.connection.read_some()
        assert feed.connection.response.body.count(b'"frame"') == 1


async def test_watchers_hold_no_permit_and_are_counted_until_they_leave():
    async with in_process(max_concurrent_requests=1) as server:
        async with watching(server.url) as one, watching(server.url) as other:
            await one.frame()
            await other.frame()
            assert server.metric("millrace_watchers") == 2
            assert server.metric("millrace_permits_held") == 0
            assert (await call(server.url, "POST", "/generate", body())).status == 200
        await wait_for(lambda: server.metric("millrace_watchers") == 0)


async def test_one_watcher_too_many_is_refused_until_another_leaves():
    async with in_process() as server:
        feeds = [watching(server.url) for _ in range(16)]
        opened = [await feed.__aenter__() for feed in feeds]
        for feed in opened:
            await feed.frame()
        refused = await call(server.url, "GET", "/events")
        assert refused.status == 429
        assert refused.headers["retry-after"] == "5"
        assert refused.json() == {
            "error": "At most 16 may watch /events at once",
            "error_type": "overloaded",
        }
        await feeds[0].__aexit__(None, None, None)
        await wait_for(lambda: server.metric("millrace_watchers") == 15)
        async with watching(server.url) as feed:
            await feed.frame()
        for open_feed in feeds[1:]:
            await open_feed.__aexit__(None, None, None)


async def fill(server, is_full):
    """Let requests come and go until a watcher that does not read has more than it can take."""
    async with asyncio.timeout(60):
        while not is_full():
            await asyncio.gather(
                *(call(server.url, "POST", "/generate", body()) for _ in range(40))
            )


async def test_a_watcher_that_reads_nothing_is_cut_and_slows_nobody():
    async with (
        in_process(max_stall_s=0.2) as server,
        watching(server.url, receive_buffer=4096) as feed,
    ):
        await feed.frame()
        await fill(server, lambda: server.metric("millrace_watchers") == 0)
        while await feed.next() is not None:
            pass
        assert not feed.connection.response.is_whole


async def test_the_feed_needs_the_key_where_there_is_one():
    async with in_process(api_keys=("sesame",)) as server:
        assert (await call(server.url, "GET", "/events")).status == 401
        async with watching(server.url, "Authorization: Bearer sesame") as feed:
            assert (await feed.next())["type"] == "hello"


async def test_the_flag_takes_the_route_away():
    async with in_process(is_events=False) as server:
        assert (await call(server.url, "GET", "/events")).status == 404
        assert (await call(server.url, "POST", "/generate", body())).status == 200


async def test_the_feed_watches_the_drain_and_ends_with_its_own_end():
    async with in_process() as server, watching(server.url) as feed:
        server.runner.gate.clear()
        async with asking(server.url, "/generate_stream", body("abc", 4)) as asked:
            await feed.frame(is_running(1, 0))
            drain = asyncio.create_task(server.engine.drain(30.0))
            await feed.frame(lambda frame: frame["is_draining"])
            server.runner.gate.set()
            await drain
            assert (await feed.ended(1))["outcome"] == "answered"
            await server.app.shutdown()
            await feed.until(lambda event: event["type"] == "bye")
            assert await feed.next() is None
            assert feed.connection.response.is_whole
            assert b"generated_text" in (await asked.read()).body
        assert (await call(server.url, "GET", "/events")).status == 429


async def test_the_end_does_not_wait_for_a_watcher_that_reads_nothing():
    async with in_process() as server, watching(server.url, receive_buffer=4096) as feed:
        await feed.frame()
        await fill(server, lambda: any(waits(transport) for transport in server.transports))
        await server.app.shutdown()
        await wait_for(lambda: server.metric("millrace_watchers") == 0, timeout_s=5.0)
        while await feed.next() is not None:
            pass
        assert not feed.connection.response.is_whole
        assert b'"bye"' not in feed.text


def waits(transport):
    """Tell whether a write of this connection waits for its reader."""
    return transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]


def story(**changed):
    return Story(outcome=Outcome.ANSWERED, status=200, reasons=(), total_s=1.0, **changed)


def test_a_flood_of_refusals_does_not_push_out_what_was_served():
    journal = Journal()
    journal.end(journal.begin("/generate", 0.0), story())
    for _ in range(1000):
        journal.end(journal.begin("/generate", 0.0), story(refusal=Refusal.NO_PERMIT))
    kept = journal.ended_after(0)
    assert [ended.place for ended in kept] == [1, *range(1002 - MAX_REFUSED, 1002)]
    assert (journal.num_requests, journal.num_ended) == (1001, 1001)
    assert journal.num_refused[Refusal.NO_PERMIT] == 1000
    assert journal.ended_after(1001) == []


def test_the_journal_forgets_the_oldest_end():
    journal = Journal()
    for _ in range(MAX_ENDED + 5):
        journal.end(journal.begin("/generate", 0.0), story())
    assert [ended.place for ended in journal.ended_after(0)] == list(range(6, MAX_ENDED + 6))
    assert not journal.open


async def test_the_readme_shows_the_events_as_they_print():
    shown = [json.loads(line) for line in re.findall(r"^data: (\{\"type\".*)$", README, re.M)]
    assert [event["type"] for event in shown] == ["hello", "frame", "ended", "bye"]
    async with in_process() as server, watching(server.url) as feed:
        await call(server.url, "POST", "/generate", body())  # a frame tells the last step
        server.runner.gate.clear()
        async with asking(server.url, "/generate_stream", body("abc", 4)):
            frame = await feed.frame(is_running(1, 0))
            server.runner.gate.set()
            told = await feed.ended(2)
        await server.app.shutdown()
        bye = await feed.until(lambda event: event["type"] == "bye")
        hello = json.loads(feed.text.split(b"\n\n")[0].removeprefix(b"data: "))
    for ours, theirs in zip(shown, (hello, frame, told, bye), strict=True):
        assert shape(ours).keys() == shape(theirs).keys()


def shape(value, path=""):
    """Name every key of an event."""
    if isinstance(value, dict):
        return {
            k: v for key, part in value.items() for k, v in shape(part, f"{path}.{key}").items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return shape(value[0], path + "[]")
    return {path: value}
