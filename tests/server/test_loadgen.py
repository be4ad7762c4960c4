import asyncio
import json
import random
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from server.cpu import CpuMeter, CpuUse
from server.loadgen import Load, Target, ask, closed_loop, measure, open_loop
from server.question import Dialect, Ending, Outcome, Question
from server.recording import BadAnswer, Recording, read_answer, read_events
from server.report import Percentiles, describe, figures_of, spread, table, to_json
from server.serving import make_runner

TIMEOUT_S = 60.0
NO_CPU = CpuUse(wall_s=2.0, own_s=0.1, server_s=None, other_s=1.0)


@asynccontextmanager
async def serving(*handlers):
    """Answer the requests with these handlers in turn, the last of them for all others."""
    todo = list(handlers)

    async def handle(request):
        handler = todo.pop(0) if len(todo) > 1 else todo[0]
        return await handler(request)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", handle)])
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Target("127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


def streaming(*writes, end=True):
    """Give a handler that makes these writes one after another; without `end` it is cut off."""

    async def handle(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for write in writes:
            await response.write(write)
            await asyncio.sleep(0)
        if end:
            await response.write_eof()
        else:
            request.transport.abort()
        return response

    return handle


def status(number, text="no"):
    async def handle(request):
        return web.Response(status=number, text=text)

    return handle


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def native(count, claimed=None, has_details=True):
    """TGI's events for so many tokens, and what the last one claims there were."""
    events = [
        event({"index": i + 1, "token": {"id": i, "text": "x"}, "details": None})
        for i in range(count)
    ]
    details = {"generated_tokens": count if claimed is None else claimed, "input_length": 7}
    last = {"token": {"id": 0, "text": "x"}, "details": details if has_details else None}
    return [*events[:-1], event(last)]


DONE = b"data: [DONE]\n\n"


def usage(count):
    return event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}})


def completions(*texts):
    return [event({"choices": [{"index": 0, "text": text}]}) for text in texts]


def chat(*texts):
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return [*chunks, event({"choices": [{"delta": {}, "finish_reason": "length"}]})]


def question(dialect=Dialect.TGI, num_output_tokens=4, **options):
    return Question(
        dialect=dialect, num_prompt_words=3, num_output_tokens=num_output_tokens, **options
    )


async def outcome_of(handler, asked):
    async with serving(handler) as target:
        body = asked.body("a b c")
        return asked.outcome(await ask(target, target.request(asked.dialect, body), TIMEOUT_S))


GOOD = {
    Dialect.TGI: native(4),
    Dialect.COMPLETIONS: [*completions("a", "b", "c", "d"), usage(4), DONE],
    Dialect.CHAT: [*chat("a", "b", "c", "d"), usage(4), DONE],
}


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_a_whole_answer_counts_each_of_its_tokens(dialect):
    outcome = await outcome_of(streaming(*GOOD[dialect]), question(dialect))
    assert (outcome.ending, outcome.error) == (Ending.ANSWERED, "")
    assert (outcome.num_tokens, outcome.num_prompt_tokens) == (4, 7)
    assert len(outcome.token_times) == 4
    moments = [outcome.due, outcome.sent, *outcome.token_times, outcome.end]
    assert moments == sorted(moments)


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_events_that_come_in_one_write_count_one_by_one_at_one_moment(dialect):
    outcome = await outcome_of(streaming(b"".join(GOOD[dialect])), question(dialect))
    assert (outcome.ending, outcome.num_tokens) == (Ending.ANSWERED, 4)
    assert len(outcome.token_times) == 4
    assert len(set(outcome.token_times)) == 1


async def test_a_plain_question_asks_for_nothing_new_and_ends_with_the_count():
    asked = question(Dialect.COMPLETIONS, is_plain=True)
    assert "ignore_eos" not in json.loads(asked.body("a"))
    texts = completions("a", "b", "c", "d")
    whole = await outcome_of(streaming(*texts, usage(4)), asked)
    assert (whole.ending, whole.num_tokens) == (Ending.ANSWERED, 4)
    uncounted = await outcome_of(streaming(*texts, DONE), asked)
    assert uncounted.error == "the stream has no end"
    short = await outcome_of(streaming(*completions("a"), usage(1)), asked)
    assert short.error == "4 tokens were asked for, 1 came"


async def test_what_prompts_share_stands_before_words_of_their_own():
    asked = question(prefix=" once upon")
    dice = random.Random(1)
    first, second = asked.prompt(dice), asked.prompt(dice)
    assert first != second
    assert [len(prompt.split()) for prompt in (first, second)] == [5, 5]
    assert first.startswith(" once upon ")
    assert second.startswith(" once upon ")


async def test_a_token_inside_a_character_has_an_event_without_text():
    for dialect, chunks in (
        (Dialect.COMPLETIONS, completions("a", "", "ü", "d")),
        (Dialect.CHAT, chat("a", "", "ü", "d")),
    ):
        outcome = await outcome_of(streaming(*chunks, usage(4), DONE), question(dialect))
        assert (outcome.ending, len(outcome.token_times)) == (Ending.ANSWERED, 4)


BAD = {
    "a cut stream": (Dialect.TGI, streaming(*native(4)[:2], end=False), "the answer was cut off"),
    "a cut after all tokens": (Dialect.TGI, streaming(*native(4), end=False), "was cut off"),
    "a native stream without details": (
        Dialect.TGI,
        streaming(*native(4, has_details=False)),
        "the stream has no end",
    ),
    "a stream without DONE": (
        Dialect.CHAT,
        streaming(*chat("a", "b", "c", "d"), usage(4)),
        "the stream has no end",
    ),
    "a stream without a count": (
        Dialect.COMPLETIONS,
        streaming(*completions("a", "b", "c", "d"), DONE),
        "told no count",
    ),
    "more claimed than sent": (Dialect.TGI, streaming(*native(3, 4)), "counts 4 tokens, 3 events"),
    "less claimed than sent": (Dialect.TGI, streaming(*native(4, 3)), "counts 3 tokens, 4 events"),
    "glued tokens": (
        Dialect.COMPLETIONS,
        streaming(*completions("ab", "cd"), usage(4), DONE),
        "counts 4 tokens, 2 events",
    ),
    "more events with text than claimed": (
        Dialect.CHAT,
        streaming(*chat("a", "b", "c", "d"), usage(3), DONE),
        "counts 3 tokens, 4 events",
    ),
    "too few tokens": (Dialect.TGI, streaming(*native(3)), "4 tokens were asked for, 3 came"),
    "too many tokens": (Dialect.TGI, streaming(*native(5)), "4 tokens were asked for, 5 came"),
    "an error event": (
        Dialect.TGI,
        streaming(*native(4)[:2], event({"error": "boom", "error_type": "generation"})),
        "an error event: boom",
    ),
    "an error event of OpenAI": (
        Dialect.CHAT,
        streaming(*chat("a"), event({"error": {"message": "boom"}}), DONE),
        "boom",
    ),
    "no JSON": (Dialect.TGI, streaming(b"data: {nonsense\n\n"), "not an event of this dialect"),
    "JSON of another kind": (Dialect.TGI, streaming(b"data: [1]\n\n"), "not an event of this"),
    "a count of another kind": (
        Dialect.CHAT,
        streaming(event({"choices": [], "usage": {}})),
        "not an event of this dialect",
    ),
    "no events": (Dialect.TGI, streaming(), "the stream has no end"),
    "a fault of the server": (Dialect.TGI, status(500, "broken"), "HTTP 500: broken"),
    "a wrong request": (Dialect.CHAT, status(422, "wrong"), "HTTP 422: wrong"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_whole_and_rightly_counted_has_failed(name):
    dialect, handler, error = BAD[name]
    outcome = await outcome_of(handler, question(dialect))
    assert outcome.ending is Ending.FAILED
    assert error in outcome.error
    assert (outcome.num_tokens, outcome.token_times) == (0, ())


async def test_a_shorter_answer_is_right_where_the_model_may_stop():
    outcome = await outcome_of(streaming(*native(3)), question(ignore_eos=False))
    assert (outcome.ending, outcome.num_tokens) == (Ending.ANSWERED, 3)
    outcome = await outcome_of(streaming(*native(5)), question(ignore_eos=False))
    assert outcome.ending is Ending.FAILED


async def test_refusals_and_failures_and_answers_are_counted_apart():
    answered = streaming(*native(4))
    handlers = [
        answered,
        status(429),
        streaming(*native(4)[:3], end=False),
        answered,
        status(429),
        status(429),
        status(500, "broken"),
        answered,
    ]
    async with serving(*handlers) as target:
        figures = await measure(
            target, Load(question=question(), num_requests=8, num_clients=1, timeout_s=TIMEOUT_S)
        )
    assert (figures.num_requests, figures.num_answered) == (8, 3)
    assert (figures.num_refused, figures.num_failed) == (3, 2)
    assert sorted(figures.errors.values()) == [1, 1]
    assert figures.errors["HTTP 500: broken"] == 1
    assert figures.num_tokens == 12
    assert figures.prompt_tokens == (7, 7)
    assert figures.tokens_per_s == pytest.approx(12 / figures.wall_s)
    assert figures.requests_per_s == pytest.approx(3 / figures.wall_s)
    for delay in (figures.first_token_ms, figures.gap_ms, figures.per_token_ms, figures.whole_ms):
        assert 0 <= delay.p50 <= delay.p90 <= delay.p99 <= delay.max
    assert figures.first_token_ms.max <= figures.whole_ms.max <= figures.wall_s * 1e3


async def test_a_server_that_is_not_there_is_a_failure_of_each_request():
    async with serving(status(200)) as target:
        pass
    load = Load(question=question(), num_requests=3, num_clients=2, timeout_s=TIMEOUT_S)
    figures = await measure(target, load)
    assert (figures.num_failed, figures.num_answered) == (3, 0)
    assert "no answer came" in next(iter(figures.errors))
    assert figures.first_token_ms is None


async def test_an_answer_without_end_fails_after_the_timeout():
    async def hang(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(native(4)[0])
        await asyncio.Event().wait()

    async with serving(hang) as target:
        asked = question()
        recording = await ask(target, target.request(asked.dialect, asked.body("a")), 0.05)
    assert recording.failure == "no end after 0.05 s"
    assert "no end after 0.05 s" in asked.outcome(recording).error


async def test_a_closed_loop_keeps_as_many_requests_open_as_it_has_clients():
    num_open, most = 0, 0
    are_three = asyncio.Event()

    async def count(request):
        nonlocal num_open, most
        num_open += 1
        most = max(most, num_open)
        if num_open == 3:
            are_three.set()
        await are_three.wait()
        response = await streaming(*native(4))(request)
        num_open -= 1
        return response

    asked = question()
    async with serving(count) as target:
        request = target.request(asked.dialect, asked.body("a b c"))
        recordings = await closed_loop(target, [request] * 8, 3, TIMEOUT_S)
    assert most == 3
    assert [asked.outcome(r).ending for r in recordings] == [Ending.ANSWERED] * 8


async def test_an_open_loop_sends_whatever_has_become_of_the_earlier_ones():
    num_seen = 0
    are_all = asyncio.Event()

    async def hold(request):
        nonlocal num_seen
        num_seen += 1
        if num_seen == 6:
            are_all.set()
        await are_all.wait()
        return await streaming(*native(4))(request)

    asked = question()
    async with serving(hold) as target:
        request = target.request(asked.dialect, asked.body("a b c"))
        recordings = await open_loop(target, [request] * 6, 400.0, TIMEOUT_S, seed=1)
    assert [asked.outcome(r).ending for r in recordings] == [Ending.ANSWERED] * 6
    dues = [recording.due for recording in recordings]
    assert dues == sorted(set(dues))
    assert all(recording.due <= recording.sent for recording in recordings)


async def test_arrivals_depend_on_the_seed_alone():
    async with serving(status(429)) as target:

        async def gaps(seed):
            recordings = await open_loop(target, [b"GET / HTTP/1.0\r\n\r\n"] * 4, 500.0, 5.0, seed)
            return [b.due - a.due for a, b in pairwise(recordings)]

        first, again, other = await gaps(1), await gaps(1), await gaps(2)
    assert first == pytest.approx(again)
    assert first != pytest.approx(other)


@pytest.mark.parametrize(
    ("dialect", "path", "expected"),
    [
        (
            Dialect.TGI,
            "/pre/generate_stream",
            {
                "inputs": " a b",
                "parameters": {"max_new_tokens": 4, "details": True, "ignore_eos": True},
            },
        ),
        (
            Dialect.COMPLETIONS,
            "/pre/v1/completions",
            {
                "model": "m",
                "max_tokens": 4,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
                "prompt": " a b",
            },
        ),
        (
            Dialect.CHAT,
            "/pre/v1/chat/completions",
            {
                "model": "m",
                "max_tokens": 4,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
                "messages": [{"role": "user", "content": " a b"}],
            },
        ),
    ],
)
async def test_a_request_asks_in_its_dialects_words(dialect, path, expected):
    seen = {}

    async def keep(request):
        seen.update(path=request.path, key=request.headers["Authorization"])
        seen["body"] = await request.json()
        return web.Response(status=429)

    asked = question(dialect, model="m")
    async with serving(keep) as target:
        target = Target.parse(f"http://127.0.0.1:{target.port}/pre/", "secret")
        await ask(target, target.request(dialect, asked.body(" a b")), TIMEOUT_S)
    assert seen == {"path": path, "key": "Bearer secret", "body": expected}


async def test_every_request_of_a_load_has_another_prompt_and_a_seed_repeats_them():
    prompts = []

    async def keep(request):
        prompts.append((await request.json())["inputs"])
        return web.Response(status=429)

    async with serving(keep) as target:
        for seed in (1, 1, 2):
            await measure(
                target, Load(question=question(), num_requests=5, num_clients=1, seed=seed)
            )
    assert len(set(prompts[:5])) == 5
    assert prompts[:5] == prompts[5:10]
    assert not set(prompts[:5]) & set(prompts[10:])
    assert all(len(prompt.split()) == 3 for prompt in prompts)


@pytest.mark.parametrize("url", ["https://a:1", "ftp://a", "a:1", "http://"])
def test_only_plain_http_is_measured(url):
    with pytest.raises(ValueError, match="http://host:port"):
        Target.parse(url)


@pytest.mark.parametrize("loops", [{}, {"num_clients": 1, "rate": 1.0}])
def test_a_load_is_one_of_the_two_loops(loops):
    with pytest.raises(ValueError, match="either"):
        Load(question=question(), num_requests=1, **loops)


# What came


def raw_answer(*chunks, ending=b"0\r\n\r\n"):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + ending


@given(cuts=st.lists(st.integers(0, 400)), joins=st.lists(st.integers(0, 60), max_size=5))
def test_however_the_bytes_are_cut_the_events_are_the_same(cuts, joins):
    text = b"".join(native(4))
    places = sorted({0, len(text), *(cut for cut in joins if cut < len(text))})
    chunks = [text[a:b] for a, b in pairwise(places)]
    data = raw_answer(*chunks)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reads = [(float(b), data[a:b]) for a, b in pairwise(places)]
    answer = read_answer(Recording(0.0, reads=reads))
    events = list(read_events(answer.pieces))
    assert answer.is_whole
    assert [data for _, data in events] == [e.strip()[6:] for e in native(4)]
    # an event has the moment of the read that brought its last byte
    assert [when for when, _ in events] == sorted(when for when, _ in events)
    assert events[-1][0] >= len(data) - len(b"\n\r\n0\r\n\r\n") - 1


def test_an_answer_is_whole_when_its_last_chunk_or_its_length_came():
    whole = raw_answer(*native(2))
    assert read_answer(Recording(0.0, reads=[(1.0, whole)])).is_whole
    for size in range(whole.index(b"\r\n\r\n") + 4, len(whole) - 4):
        assert not read_answer(Recording(0.0, reads=[(1.0, whole[:size])])).is_whole
    sized = b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nbusy"
    answer = read_answer(Recording(0.0, reads=[(1.0, sized)]))
    assert (answer.status, answer.body, answer.is_whole) == (429, b"busy", True)
    assert not read_answer(Recording(0.0, reads=[(1.0, sized[:-1])])).is_whole


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"\r\n\r\n"])
def test_what_is_no_answer_is_told(data):
    with pytest.raises(BadAnswer):
        read_answer(Recording(0.0, reads=[(1.0, data)]))


# What is reported


def answered(due, sent, *times, end=None):
    return Outcome(
        ending=Ending.ANSWERED,
        due=due,
        sent=sent,
        token_times=times,
        end=times[-1] if end is None else end,
        num_prompt_tokens=5,
        num_tokens=len(times),
    )


def test_delays_count_from_when_a_request_was_due():
    figures = figures_of([answered(1.0, 3.0, 4.0, 4.5, 6.0, end=7.0)], NO_CPU)
    assert figures.first_token_ms == Percentiles(3000.0, 3000.0, 3000.0, 3000.0)
    assert figures.whole_ms.max == 6000.0
    assert (figures.gap_ms.p50, figures.gap_ms.max) == (1000.0, 1500.0)
    assert figures.per_token_ms.p50 == 1000.0
    assert figures.sent_late_ms == 2000.0
    assert figures.tokens_per_s == 1.5


def test_one_token_has_no_gap_and_no_time_per_token():
    figures = figures_of([answered(1.0, 1.0, 2.0)], NO_CPU)
    assert figures.gap_ms is None
    assert figures.per_token_ms is None
    assert figures.first_token_ms.p50 == 1000.0


def test_percentiles_lie_between_the_ranked_values():
    assert Percentiles.of(n / 1000 for n in range(101)) == Percentiles(50.0, 90.0, 99.0, 100.0)
    assert Percentiles.of([0.003, 0.001]) == Percentiles(2.0, 2.8, 2.98, 3.0)
    assert Percentiles.of([]) is None


def test_repeated_runs_are_shown_with_their_spread():
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert spread([2.0, 2.0], 0) == "2"
    assert spread([], 1) == "-"
    runs = [
        figures_of([answered(0.0, 0.0, 1.0, 2.0)], NO_CPU),
        figures_of([answered(0.0, 0.0, 3.0, 4.0)], NO_CPU),
    ]
    failed = Outcome(ending=Ending.FAILED, due=0.0, sent=0.0, error="boom")
    text = describe([*runs, figures_of([failed, failed], NO_CPU)])
    assert "2000.0 (1000.0-3000.0)" in text
    assert "1 (0-1)" in text
    assert "2 x boom" in text
    assert "others 0.50 cores" in text


def test_a_table_has_its_first_column_to_the_left_and_the_others_to_the_right():
    assert table(("a", "bb"), [["ccc", "1"], ["d", "100"]]) == "a     bb\nccc    1\nd    100"


def test_figures_are_written_as_json():
    figures = figures_of([answered(0.0, 0.0, 1.0, 2.0)], NO_CPU)
    read = json.loads(to_json({"runs": [figures]}))["runs"][0]
    assert read["first_token_ms"] == {"p50": 1000.0, "p90": 1000.0, "p99": 1000.0, "max": 1000.0}
    assert read["cpu"]["other_s"] == 1.0


BURN = """
import time
print("ready", flush=True)
input()
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""


def test_the_processor_time_of_a_server_is_told_from_that_of_others():
    command = [sys.executable, "-I", "-c", BURN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        unaware, aware = CpuMeter(), CpuMeter(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        without, use = unaware.stop(), aware.stop()
        process.stdin.write("end\n")
    assert without.server_s is None
    if use.other_s is not None:  # where there is a /proc
        assert use.server_s > 0.3
        assert without.other_s > use.other_s + 0.2
        assert use.other_cores == use.other_s / use.wall_s


def test_the_meter_counts_its_own_processor_time():
    meter = CpuMeter()
    start = time.process_time()
    while time.process_time() < start + 0.1:
        pass
    assert meter.stop().own_s >= 0.1


def test_a_server_that_is_gone_has_no_processor_time():
    assert CpuMeter(2**22 + 1).stop().server_s is None
