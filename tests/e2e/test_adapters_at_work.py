"""LoRA adapters at a real server: every client gets by a name what the merged model says."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product

import openai
import pytest
from anthropic import Anthropic, NotFoundError
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError
from occupancy import assert_clean, wait_until_idle
from openai import OpenAI
from raw_http import call
from served import serve
from tiny_adapters import LLAMA_TARGETS, save_adapter, save_merged

from server.cli.serve import BUILT_IN_MODEL, BUILT_IN_NAME

PROMPT = "What is the capital of France?"
CHAT = [{"role": "user", "content": PROMPT}]
GREEDY = {"max_tokens": 16, "temperature": 0, "extra_body": {"ignore_eos": True}}
FLAGS = ("--dtype", "float32", "--max-batch-total-tokens", "32768", "--num-threads", "1")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two adapters of the built-in model that leave little of what it says."""
    folder, strength = tmp_path_factory.mktemp("adapters"), {"strength": 0.03}
    return {
        "sums": save_adapter(BUILT_IN_MODEL, folder / "sums", LLAMA_TARGETS, seed=1, **strength),
        "org/words": save_adapter(
            BUILT_IN_MODEL, folder / "words", ["q_proj", "up_proj"], seed=2, strength=0.1
        ),
    }


@pytest.fixture(scope="module")
def started(sources, tmp_path_factory):
    """Three servers, started at once: see `server`, `merged` and `silent`."""
    adapters = ",".join(f"{name}={source.path}" for name, source in sources.items())
    path = save_merged(BUILT_IN_MODEL, sources["sums"], tmp_path_factory.mktemp("merged"))
    flags = (
        ("--lora-adapters", adapters, "--speculate", "3"),
        ("--model-id", str(path), "--served-model-name", "sums"),
        ("--ignore-unknown-adapters",),
    )
    with ExitStack() as stack, ThreadPoolExecutor(len(flags)) as pool:
        starting = (serve(*FLAGS, *words) for words in flags)
        servers = list(pool.map(stack.enter_context, starting))
        yield servers
        assert_clean(servers[0].log)


@pytest.fixture
def server(started):
    yield started[0]
    wait_until_idle(started[0])


@pytest.fixture
def merged(started):
    """The first adapter's merged model, under its name."""
    return started[1]


@pytest.fixture
def silent(started):
    """A server that takes the name of an adapter that it does not have for its model's."""
    return started[2]


def native(place, **params):
    """Ask whole and as a stream; both give the same text."""
    with InferenceClient(place.url) as client:
        asked = {"max_new_tokens": 16, "return_full_text": False, **params}
        whole = client.text_generation(PROMPT, **asked)
        events = client.text_generation(PROMPT, stream=True, details=True, **asked)
        joined = "".join(event.token.text for event in events if not event.token.special)
        assert joined == whole
    return whole


def spoken(place, model):
    """Ask each of `/v1`'s routes, whole and as a stream; give texts, and who says to speak."""
    texts, speakers = {}, set()
    with OpenAI(base_url=place.url + "/v1", api_key="-", max_retries=0) as client:
        asked = {"model": model, "prompt": PROMPT, **GREEDY}
        answer = client.completions.create(**asked)
        texts["completion"] = answer.choices[0].text
        with client.completions.create(stream=True, **asked) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].text for chunk in chunks) == texts["completion"]
        speakers |= {answer.model, *(chunk.model for chunk in chunks)}

        asked = {"model": model, "messages": CHAT, **GREEDY}
        answer = client.chat.completions.create(**asked)
        texts["chat"] = answer.choices[0].message.content
        with client.chat.completions.create(stream=True, **asked) as stream:
            chunks = list(stream)
        joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert joined == texts["chat"]
        speakers |= {answer.model, *(chunk.model for chunk in chunks)}

        asked = {"model": model, "input": PROMPT, "max_output_tokens": 16, "temperature": 0}
        answer = client.responses.create(**asked)
        texts["response"] = answer.output_text
        with client.responses.create(stream=True, **asked) as stream:
            last = list(stream)[-1].response
        assert last.output_text == answer.output_text
        speakers |= {answer.model, last.model}
    with Anthropic(base_url=place.url, api_key="-", max_retries=0) as client:
        asked = {"model": model, "messages": CHAT, "max_tokens": 16}
        asked["extra_body"] = {"temperature": 0}
        answer = client.messages.create(**asked)
        texts["message"] = answer.content[0].text
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == texts["message"]
            speakers |= {answer.model, stream.get_final_message().model}
    return texts, speakers


def test_the_hub_client_gets_by_an_adapter_id_what_the_merged_model_says(server, merged):
    expected = native(merged)
    assert native(server, adapter_id="sums") == expected
    texts = {name: native(server, adapter_id=name) for name in (None, "sums", "org/words")}
    assert len(set(texts.values())) == 3
    with pytest.raises(ValidationError, match=r"`adapter_id` must be one of sums, org/words. Giv"):
        native(server, adapter_id="other")


@pytest.mark.parametrize("name", ["sums", "adapter:sums"])
def test_every_client_of_v1_gets_by_a_models_name_what_the_merged_model_says(name, server, merged):
    texts, speakers = spoken(server, name)
    assert (texts, speakers) == spoken(merged, "any")
    assert speakers == {"sums"}
    assert texts["chat"] == texts["message"] == texts["response"]


def test_any_other_name_means_the_base_model_and_the_answer_says_so(server):
    texts, speakers = spoken(server, "gpt-4o")
    assert speakers == {BUILT_IN_NAME}
    assert texts == spoken(server, BUILT_IN_NAME)[0]
    assert texts["chat"] != spoken(server, "org/words")[0]["chat"]


def test_an_adapter_that_is_not_there_is_not_found(server):
    with OpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0) as client:
        for ask, given in (
            (client.completions.create, {"prompt": "A"}),
            (client.chat.completions.create, {"messages": CHAT}),
            (client.chat.completions.create, {"messages": CHAT, "stream": True}),
            (client.responses.create, {"input": "A"}),
        ):
            with pytest.raises(openai.NotFoundError, match="`adapter:x` does not exist") as raised:
                ask(model="adapter:x", **given)
            assert (raised.value.param, raised.value.code) == ("model", "not_found")
            with pytest.raises(openai.UnprocessableEntityError, match="`adapter_id` must be one"):
                ask(model="any", extra_body={"adapter_id": "x"}, **given)
    with (
        Anthropic(base_url=server.url, api_key="-", max_retries=0) as client,
        pytest.raises(NotFoundError, match="`adapter:x` does not exist"),
    ):
        client.messages.create(model="adapter:x", messages=CHAT, max_tokens=5)


async def test_adapters_are_listed(server):
    names = [BUILT_IN_NAME, "sums", "org/words"]
    info = (await call(server.url, "GET", "/info")).json()
    assert (info["model_id"], info["adapters"]) == (names[0], names[1:])
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="-") as client:
        models = (await client.models.list()).data
        assert [model.id for model in models] == names
        assert [getattr(model, "parent", None) for model in models] == [None, names[0], names[0]]
        for name in names:
            assert (await client.models.retrieve(name)).id == name
        with pytest.raises(openai.NotFoundError, match="`sums`, `org/words`"):
            await client.models.retrieve("other")


async def test_rows_of_one_batch_say_what_each_says_alone(server):
    asked = [
        {"inputs": prompt, "parameters": {"max_new_tokens": 40, "details": True, **params}}
        for prompt, params in product(
            ("Once upon a time", "one two three one two three one two", "The seed " * 40),
            (
                {},
                {"adapter_id": "sums"},
                {"adapter_id": "org/words"},
                {"adapter_id": "sums", "do_sample": True, "seed": 5, "temperature": 0.7},
            ),
        )
    ]
    num_hits = server.metric("millrace_prefix_cache_hit_tokens_total")
    alone = [await answered(server, body) for body in asked]
    for _ in range(2):  # the second time out of the cache
        assert await asyncio.gather(*(answered(server, body) for body in asked)) == alone
    assert len(set(map(str, alone))) == len(asked)
    assert server.metric("millrace_prefix_cache_hit_tokens_total") > num_hits


async def test_a_grammar_holds_for_an_adapter_too(server):
    form = {"type": "regex", "value": r"[0-9]{3}-[a-f]{4}"}
    answers = await asyncio.gather(
        *(
            answered(server, {"inputs": "A", "parameters": {"grammar": form, "adapter_id": name}})
            for name in ("sums", "org/words", None)
        )
    )
    assert all(len(answer[0]) == 8 and answer[0][3] == "-" for answer in answers)


async def test_where_the_operator_says_so_an_unknown_adapter_is_the_base_model(server, silent):
    expected = native(server)
    assert native(silent, adapter_id="sums") == expected
    texts, speakers = spoken(silent, "adapter:sums")
    assert (texts, speakers) == spoken(server, "any")
    assert speakers == {BUILT_IN_NAME}


async def answered(server, body):
    answer = await call(server.url, "POST", "/generate", body)
    assert answer.status == 200, answer.body
    told = answer.json()
    ids = [token["id"] for token in told.get("details", {}).get("tokens", ())]
    return told["generated_text"], ids
