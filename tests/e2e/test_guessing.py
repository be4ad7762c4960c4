"""`--speculate`: a server that guesses ahead says what one that does not says."""

import asyncio

import pytest
from occupancy import wait_until_idle
from raw_http import asking, call
from served import serve
from streams import check

REPEATING = "The miller counts: one two three four, one two three four, one two three four,"
PROMPTS = [REPEATING, "Once upon a time", "What is Deep Learning?", "one one one one one"]
LOOPING = {"repetition_penalty": 0.5, "ignore_eos": True}
"""What was said is said again."""
CHOICES = [
    LOOPING,
    {**LOOPING, "do_sample": True, "temperature": 1.5, "seed": 3, "top_p": 0.9},
    {"ignore_eos": True, "repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_n_tokens": 2},
    {"stop": ["two three", "e."], "truncate": 12},
    {"do_sample": True, "seed": 8, "typical_p": 0.8, "decoder_input_details": True},
]


@pytest.fixture(scope="module")
def guessing():
    flags = (
        "--dtype",
        "float32",
        "--enable-prefill-logprobs",
        "--speculate",
        "4",
        "--num-threads",
        "1",
    )
    with serve("--max-batch-total-tokens", "32768", *flags) as server:
        yield server
        wait_until_idle(server)


async def test_every_answer_is_the_same(server, guessing):
    asked = [
        {"inputs": prompt, "parameters": {"max_new_tokens": 60, "details": True, **choice}}
        for prompt in PROMPTS
        for choice in CHOICES
    ]
    expected, answers = [
        [
            told(answer)
            for answer in await asyncio.gather(
                *(call(place.url, "POST", "/generate", body) for body in asked)
            )
        ]
        for place in (server, guessing)
    ]
    assert len({reason for _, _, reason, _ in expected}) >= 2
    for (text, ids, reason, logprobs), plain in zip(answers, expected, strict=True):
        assert (text, ids, reason) == plain[:3]
        assert logprobs == pytest.approx(plain[3], abs=1e-3)
    num_drafts = guessing.metric("millrace_draft_tokens_total")
    num_accepted = guessing.metric("millrace_accepted_tokens_total")
    assert num_drafts > num_accepted >= 20
    assert server.metric("millrace_draft_tokens_total") == 0


async def test_a_stream_has_an_event_for_each_token_and_takes_fewer_steps(guessing):
    parameters = {"max_new_tokens": 120, **LOOPING}
    body = {"inputs": REPEATING, "parameters": parameters}
    num_steps = guessing.metric("millrace_steps_total")
    async with asking(guessing.url, "/generate_stream", body) as connection:
        said = check("/generate_stream", (await connection.read()).body)
    assert len(said.events) == 120
    assert guessing.metric("millrace_steps_total") - num_steps < 100


def told(answer):
    """Say what was answered: text, ids, reason and logprobs, those of the prompt first."""
    answer = answer.json()
    details = answer["details"]
    tokens = [*details["prefill"], *details["tokens"]]
    logprobs = [token["logprob"] or 0.0 for token in tokens]
    ids = [token["id"] for token in tokens]
    return answer["generated_text"], ids, details["finish_reason"], logprobs
