"""What a load asks, in the words of each dialect."""

import pytest
from aiohttp import web
from loads import TIMEOUT_S, question, serving

from server.loadgen import Load, Target, ask, measure
from server.question import Dialect


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
