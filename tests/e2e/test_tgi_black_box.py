"""TGI's own black-box tests, with what our model says in the place of literal texts.

https://github.com/huggingface/text-generation-inference/tree/db931fcf/integration-tests
(neuron/test_generate.py, neuron/test_implicit_env.py, models/test_completion_prompts.py,
models/test_grammar_response_format_llama.py, models/test_continue_final_message.py,
models/test_flash_llama.py, models/test_bloom_560m.py) and clients/python/tests/test_client.py.
"""

import asyncio
import json

import pytest
from huggingface_hub import AsyncInferenceClient
from openai import OpenAI
from raw_http import asking, call
from streams import check
from text_generation import AsyncClient, Client
from text_generation.errors import NotFoundError, ValidationError

# the old client's code, not ours
pytestmark = pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")

PROMPT = "What is Deep Learning?"


@pytest.fixture
async def hub(server):
    async with AsyncInferenceClient(server.url) as client:
        yield client


# neuron/test_generate.py, neuron/test_implicit_env.py


async def test_model_single_request(hub):
    greedy = await hub.text_generation(
        PROMPT, max_new_tokens=17, decoder_input_details=True, details=True, return_full_text=False
    )
    assert greedy.details.generated_tokens <= 17
    greedy_text = greedy.generated_text
    assert greedy_text

    assert await hub.text_generation(PROMPT, max_new_tokens=17, return_full_text=True) == (
        PROMPT + greedy_text
    )
    plain = await hub.text_generation(PROMPT, max_new_tokens=17, return_full_text=False)
    assert plain == greedy_text

    sampled = await hub.text_generation(
        PROMPT,
        do_sample=True,
        top_k=50,
        top_p=0.9,
        temperature=5.0,
        repetition_penalty=1.2,
        max_new_tokens=128,
        seed=42,
        return_full_text=False,
    )
    assert sampled != greedy_text

    stop = greedy_text.split()[1]
    stopped = await hub.text_generation(
        PROMPT, max_new_tokens=17, stop=[stop], return_full_text=False, details=True
    )
    assert stopped.details.finish_reason == "stop_sequence"
    assert stopped.generated_text.endswith(stop)


async def test_model_single_request_without_any_parameter(hub):
    text = await hub.text_generation(PROMPT, return_full_text=False, details=True)
    assert text.generated_text
    assert text.details.finish_reason in ("eos_token", "length")


async def test_model_multiple_requests(hub):
    texts = await asyncio.gather(
        *(hub.text_generation(PROMPT, max_new_tokens=17, details=True) for _ in range(4))
    )
    assert len({answer.generated_text for answer in texts}) == 1
    assert all(
        answer.details.generated_tokens == texts[0].details.generated_tokens for answer in texts
    )


# models/test_completion_prompts.py


def body_of_completions(prompt, **more):
    return {
        "model": "tgi",
        "prompt": prompt,
        "max_tokens": 10,
        "seed": 0,
        "temperature": 0.0,
        **more,
    }


PROMPTS = ["Say", "this", "is", "a"]


async def test_completion_single_prompt(server):
    answer = (
        await call(server.url, "POST", "/v1/completions", body_of_completions("Say this"))
    ).json()
    assert len(answer["choices"]) == 1
    assert answer["choices"][0]["index"] == 0
    assert 0 < answer["usage"]["completion_tokens"] <= 10


async def test_completion_many_prompts(server):
    answer = (
        await call(server.url, "POST", "/v1/completions", body_of_completions(PROMPTS))
    ).json()
    assert sorted(choice["index"] for choice in answer["choices"]) == [0, 1, 2, 3]
    assert all(choice["text"] for choice in answer["choices"])


async def test_completion_many_prompts_stream(server):
    asked = body_of_completions(PROMPTS, stream=True, ignore_eos=True)
    async with asking(server.url, "/v1/completions", asked) as connection:
        answer = await connection.read()
    assert answer.status == 200
    said = check("/v1/completions", answer.body, num_prompts=4)
    indexes = [chunk["choices"][0]["index"] for chunk in said.events]
    assert {indexes.count(index) for index in range(4)} == {10}
    assert indexes != sorted(indexes), "they are not interleaved"
    assert all(chunk["object"] == "text_completion" for chunk in said.events)
    whole = (await call(server.url, "POST", "/v1/completions", {**asked, "stream": False})).json()
    assert [said.texts[index] for index in range(4)] == [c["text"] for c in whole["choices"]]


def test_chat_openai_usage(server):
    asked = {
        "model": "tgi",
        "messages": [{"role": "user", "content": "Say 'OK!'"}],
        "max_tokens": 4,
        "temperature": 0.0,
        "stream": True,
    }
    with OpenAI(base_url=server.url + "/v1", api_key="xx") as client:
        with client.chat.completions.create(
            **asked, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert all(chunk.usage is None for chunk in chunks[:-1])
        usage = chunks[-1].usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        for options in ({}, {"stream_options": {"include_usage": False}}):
            with client.chat.completions.create(**asked, **options) as stream:
                assert all(chunk.usage is None for chunk in stream)


# models/test_grammar_response_format_llama.py, its second test


async def test_grammar_response_format_llama_error_if_tools_not_installed(server):
    answer = await call(
        server.url,
        "POST",
        "/v1/chat/completions",
        {
            "model": "tgi",
            "messages": [{"role": "user", "content": "Hi"}],
            "seed": 42,
            "max_tokens": 500,
            "tools": [],
            "response_format": {"type": "json_object", "value": {"properties": {}}},
        },
    )
    assert answer.status == 422
    assert "Grammar and tools are mutually exclusive" in answer.body.decode()
    assert answer.json()["error_type"] == "tool_error"


# models/test_continue_final_message.py


async def test_continuing_the_assistants_message(server):
    question = {"role": "user", "content": "What is the capital of France?"}
    beginning = {"role": "assistant", "content": "The capital"}
    whole = {"max_tokens": 12, "temperature": 0.0}
    answer = await call(
        server.url, "POST", "/v1/chat/completions", {"messages": [question, beginning], **whole}
    )
    content = answer.json()["choices"][0]["message"]["content"]
    rendered = await call(server.url, "POST", "/chat_tokenize", {"messages": [question, beginning]})
    text = rendered.json()["templated_text"]
    assert text.endswith("The capital")
    raw = await call(server.url, "POST", "/v1/completions", {"prompt": text, **whole})
    assert content == raw.json()["choices"][0]["text"]


# models/test_flash_llama.py, models/test_bloom_560m.py


async def test_all_params(server):
    body = {
        "inputs": "Test request",
        "parameters": {
            "max_new_tokens": 10,
            "repetition_penalty": 1.2,
            "return_full_text": True,
            "stop": ["zzz"],
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 10,
            "truncate": 5,
            "typical_p": 0.9,
            "watermark": True,
            "decoder_input_details": True,
            "seed": 0,
            "details": True,
        },
    }
    answers = [(await call(server.url, "POST", "/generate", body)).json() for _ in range(2)]
    assert answers[0] == answers[1]
    details = answers[0]["details"]
    assert answers[0]["generated_text"].startswith("Test request")
    assert details["seed"] == 0
    assert details["generated_tokens"] == len(details["tokens"])
    assert details["prefill"][0]["logprob"] is None
    assert len(details["prefill"]) <= 5


async def test_load_of_four_is_equal(server):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 10, "details": True}}
    answers = await asyncio.gather(*(call(server.url, "POST", "/generate", body) for _ in range(4)))
    ids = [[t["id"] for t in answer.json()["details"]["tokens"]] for answer in answers]
    assert ids == [ids[0]] * 4


# clients/python/tests/test_client.py


def test_generate(server):
    answer = Client(server.url).generate("test", max_new_tokens=1, decoder_input_details=True)
    assert answer.details.generated_tokens == 1
    assert answer.details.seed is None
    assert len(answer.details.prefill) >= 1
    assert answer.details.prefill[0].logprob is None
    assert len(answer.details.tokens) == 1
    assert answer.generated_text == answer.details.tokens[0].text


def test_generate_best_of(server):
    answer = Client(server.url).generate(
        "test", max_new_tokens=1, best_of=2, decoder_input_details=True, do_sample=True
    )
    assert answer.details.seed is not None
    assert answer.details.best_of_sequences is not None
    assert len(answer.details.best_of_sequences) == 1
    assert answer.details.best_of_sequences[0].seed is not None


def test_generate_not_found(server):
    with pytest.raises(NotFoundError):
        Client(server.url + "/fake").generate("test")


def test_generate_validation_error(server):
    with pytest.raises(ValidationError):
        Client(server.url).generate("test " * 4090, max_new_tokens=1000)


def test_generate_stream(server):
    events = list(Client(server.url).generate_stream("test", max_new_tokens=1))
    assert len(events) == 1
    assert events[0].generated_text == events[0].token.text
    assert events[0].details.finish_reason == "length"
    assert events[0].details.generated_tokens == 1
    assert events[0].details.seed is None


def test_generate_stream_validation_error(server):
    with pytest.raises(ValidationError):
        list(Client(server.url).generate_stream("test " * 4090, max_new_tokens=1000))


async def test_generate_async(server):
    client = AsyncClient(server.url)
    answer = await client.generate("test", max_new_tokens=1, decoder_input_details=True)
    events = [event async for event in client.generate_stream("test", max_new_tokens=1)]
    assert events[0].token.id == answer.details.tokens[0].id
    with pytest.raises(NotFoundError):
        await AsyncClient(server.url + "/fake").generate("test")


# load_tests/common.js: a hundred at once, none fails, and the headers are there


async def test_a_hundred_at_once(server):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 5}}
    answers = await asyncio.gather(
        *(call(server.url, "POST", "/generate", body) for _ in range(100))
    )
    assert {answer.status for answer in answers} == {200}
    assert len({json.loads(answer.body)["generated_text"] for answer in answers}) == 1
    assert all(int(answer.headers["x-generated-tokens"]) <= 5 for answer in answers)
    assert all(int(answer.headers["x-prompt-tokens"]) > 0 for answer in answers)
