"""Many streams at once say what each says alone."""

import asyncio
import random

from raw_http import asking, call
from streams import check

STREAM = "/generate_stream"
TEXT = (
    "river stone wheel light seven capital of France the what is once upon a time miller water "
    "token server stream seed sum and plus nine fourteen blue morning letter north ship"
)
NUM_STREAMS = 64
NUM_TOKENS = 20


def questions() -> list[dict]:
    """Give different prompts of one word to eighty."""
    rng = random.Random(64)
    lengths = [1 + 79 * number // (NUM_STREAMS - 1) for number in range(NUM_STREAMS)]
    prompts = [" ".join(rng.choices(TEXT.split(), k=length)) for length in lengths]
    assert len(set(prompts)) == NUM_STREAMS
    parameters = {"max_new_tokens": NUM_TOKENS, "ignore_eos": True, "details": True}
    return [{"inputs": prompt, "parameters": parameters} for prompt in prompts]


async def test_64_parallel_greedy_streams_equal_the_same_requests_alone(server):
    asked = questions()
    alone = []
    for body in asked:
        answer = (await call(server.url, "POST", "/generate", body)).json()
        alone.append([token["id"] for token in answer["details"]["tokens"]])
    steps = server.metric("millrace_steps_total")
    together = await streams(server, asked)
    steps = server.metric("millrace_steps_total") - steps
    assert together == alone
    assert all(len(ids) == NUM_TOKENS for ids in alone)
    assert len({token_id for ids in alone for token_id in ids}) >= 8
    assert len({tuple(ids) for ids in alone}) > NUM_STREAMS / 2, "the prompts hardly matter"
    assert steps < NUM_STREAMS * NUM_TOKENS / 4, "they did not share their steps"


async def test_a_sampled_stream_with_a_seed_says_the_same_in_company(server):
    body = {
        "inputs": "Once upon a time",
        "parameters": {
            "max_new_tokens": 40,
            "ignore_eos": True,
            "details": True,
            "do_sample": True,
            "temperature": 1.2,
            "seed": 12,
        },
    }
    (alone,) = await streams(server, [body])
    company = questions()[:15]
    first, *_ = await streams(server, [body, *company])
    assert first == alone
    assert len(set(alone)) >= 8


async def streams(server, bodies):
    async def stream(body):
        async with asking(server.url, STREAM, body) as connection:
            return check(STREAM, (await connection.read()).body).token_ids

    return await asyncio.gather(*map(stream, bodies))
