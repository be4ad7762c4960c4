"""Tokens that come several in a step: one event each on the wire, as if they came one by one."""

import json

import pytest
from in_process import in_process
from occupancy import wait_for
from raw_http import call
from streams import check

MANY = {"max_drafts": 4}
ASKED = {
    "/generate_stream": {
        "inputs": "abcab",
        "parameters": {"max_new_tokens": 60, "ignore_eos": True, "top_n_tokens": 2},
    },
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "abcab"}],
        "max_tokens": 60,
        "ignore_eos": True,
        "stream": True,
        "logprobs": True,
    },
    "/v1/completions": {
        "prompt": "abcab",
        "max_tokens": 60,
        "ignore_eos": True,
        "stream": True,
    },
}


def tokens_of(path, said):
    """Say what each event carries but ids, seeds and times."""
    if path == "/generate_stream":
        return [(event["token"], event.get("top_tokens")) for event in said.events]
    chosen = [event["choices"][0] for event in said.events if event["choices"]]
    return [json.dumps(choice, sort_keys=True) for choice in chosen]


@pytest.mark.parametrize("path", ASKED)
async def test_a_burst_is_one_event_for_each_token(path):
    said = {}
    for limits in ({}, MANY):
        async with in_process(limits=limits) as server:
            answer = await call(server.url, "POST", path, ASKED[path])
            said[bool(limits)] = check(path, answer.body)
            sizes = [len(work.drafts) for batch in server.runner.batches for work in batch.work]
            assert bool(limits) == any(size > 1 for size in sizes)
            assert (len(sizes) < 30) == bool(limits)
    assert tokens_of(path, said[True]) == tokens_of(path, said[False])
    assert said[True].text == ("abcab" * 12)
    assert len(tokens_of(path, said[True])) >= 60


async def test_a_stop_string_within_a_burst_ends_the_answer_there():
    body = {"inputs": "abcd", "parameters": {"max_new_tokens": 60, "stop": ["dabcda"]}}
    async with in_process(limits=MANY) as server:
        answer = await call(server.url, "POST", "/generate", body)
        assert json.loads(answer.body)["generated_text"] == "abcdabcda"
        drafts = [work.drafts for batch in server.runner.batches for work in batch.work]
        assert len(drafts[-1]) == 4  # the answer ends in the middle of what was right
        assert server.metric("millrace_accepted_tokens_total") > 0


async def test_drafts_are_counted_with_those_that_were_right():
    async with in_process(limits=MANY) as server:
        await call(server.url, "POST", "/generate_stream", ASKED["/generate_stream"])
        await wait_for(lambda: server.metric("millrace_sequences_ended_total") == 1)
        guesses = [len(w.drafts) for batch in server.runner.batches for w in batch.work if w.drafts]
        assert server.metric("millrace_draft_tokens_total") == sum(guesses)
        num_accepted = server.metric("millrace_accepted_tokens_total")
        assert 30 <= num_accepted <= sum(guesses)
        assert server.metric("tgi_request_skipped_tokens_count") == len(guesses)
        assert server.metric("tgi_request_skipped_tokens_sum") == num_accepted
        assert server.metric("tgi_request_skipped_tokens", quantile="1") == 4
        assert server.metric("millrace_generated_tokens_total") == 60


async def test_without_the_option_nothing_is_guessed():
    async with in_process() as server:
        await call(server.url, "POST", "/generate_stream", ASKED["/generate_stream"])
        assert server.metric("millrace_draft_tokens_total") == 0
        assert "skipped" not in server.metrics.render().decode()
