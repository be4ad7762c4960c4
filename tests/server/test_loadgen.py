"""The load generator: what counts as an answer, and when requests are sent."""

import asyncio
import json
import random
from itertools import pairwise

import pytest
from aiohttp import web
from loads import (
    DONE,
    TIMEOUT_S,
    chat,
    completions,
    event,
    native,
    outcome_of,
    question,
    serving,
    status,
    streaming,
    usage,
)

from server.loadgen import Load, Target, ask, closed_loop, measure, open_loop
from server.question import Dialect, Ending

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


@pytest.mark.parametrize("url", ["https://a:1", "ftp://a", "a:1", "http://"])
def test_only_plain_http_is_measured(url):
    with pytest.raises(ValueError, match="http://host:port"):
        Target.parse(url)


@pytest.mark.parametrize("loops", [{}, {"num_clients": 1, "rate": 1.0}])
def test_a_load_is_one_of_the_two_loops(loops):
    with pytest.raises(ValueError, match="either"):
        Load(question=question(), num_requests=1, **loops)
