"""The openai package for Python, against `/v1`."""

import openai
import pytest
from occupancy import given_up
from openai import AsyncOpenAI, OpenAI

PROMPT = "What is the capital of France?"
CHAT = [{"role": "user", "content": "What is the capital of France?"}]


def connect(server, **options):
    settings = {"api_key": "-", "max_retries": 0, **options}
    return OpenAI(base_url=server.url + "/v1", **settings)


@pytest.fixture
def client(server):
    with connect(server) as client:
        yield client


def test_a_completion_has_text_reason_and_usage(client):
    answer = client.completions.create(model="any", prompt=PROMPT, max_tokens=8, temperature=0)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens <= 8


def test_a_streamed_completion_joins_to_the_whole_one(client):
    asked = {"model": "any", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**asked)
    with client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage == whole.usage


def test_several_prompts_give_a_choice_each_in_their_order(client):
    prompts = ["What is the capital of France?", "Once upon a time", "The seed", "One and"]
    asked = {"model": "any", "max_tokens": 6, "temperature": 0}
    alone = [client.completions.create(prompt=p, **asked).choices[0].text for p in prompts]
    together = client.completions.create(prompt=prompts, **asked)
    assert [choice.index for choice in together.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in together.choices] == alone
    with client.completions.create(prompt=prompts, stream=True, **asked) as stream:
        texts = dict.fromkeys(range(4), "")
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == alone


def test_several_choices_are_told_apart_and_their_prompt_counts_once(client):
    asked = {"model": "any", "messages": CHAT, "max_tokens": 8, "temperature": 4.0}
    alone = [client.chat.completions.create(**asked, seed=seed) for seed in (4, 5, 6)]
    together = client.chat.completions.create(**asked, seed=4, n=3)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in together.choices]
    assert texts == [answer.choices[0].message.content for answer in alone]
    assert len(set(texts)) > 1
    assert together.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert together.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)
    with client.chat.completions.create(**asked, seed=4, n=3, stream=True) as stream:
        streamed, roles, reasons = dict.fromkeys(range(3), ""), [], {}
        for chunk in stream:
            (choice,) = chunk.choices
            roles += [choice.index] if choice.delta.role else []
            streamed[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
    assert [*streamed.values()] == texts
    assert sorted(roles) == [0, 1, 2]
    assert set(reasons.values()) <= {"stop", "length"}


def test_the_best_of_several_completions_are_kept_likeliest_first(client):
    asked = {"model": "any", "prompt": PROMPT, "max_tokens": 6, "temperature": 1.5, "logprobs": 0}

    def scored(answer):
        pairs = [(c.logprobs.token_logprobs, c.text) for c in answer.choices]
        return [(sum(logprobs) / len(logprobs), text) for logprobs, text in pairs]

    every = scored(client.completions.create(**asked, seed=1, n=5))
    kept = scored(client.completions.create(**asked, seed=1, n=2, best_of=5))
    assert kept == sorted(every, reverse=True)[:2]


def test_an_echo_puts_the_prompt_before_the_text(client):
    asked = {"model": "any", "prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    assert client.completions.create(**asked, echo=True).choices[0].text == PROMPT + text
    with client.completions.create(**asked, echo=True, stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == PROMPT + text
    only = client.completions.create(model="any", prompt=PROMPT, max_tokens=0, echo=True)
    assert only.choices[0].text == PROMPT
    assert only.usage.completion_tokens == 0
    assert only.choices[0].finish_reason == "length"


def test_an_echo_has_the_prompts_logprobs_where_the_server_gives_them(client):
    ids = client.post("/../tokenize", body={"prompt": PROMPT}, cast_to=object)
    asked = {"model": "any", "max_tokens": 3, "temperature": 0, "echo": True, "logprobs": 1}
    answer = client.completions.create(prompt=PROMPT, **asked)
    columns = answer.choices[0].logprobs
    assert len(columns.tokens) == len(ids) + answer.usage.completion_tokens
    assert columns.token_logprobs[0] is None
    assert columns.top_logprobs[0] is None
    assert all(logprob <= 0 for logprob in columns.token_logprobs[1:])
    text = answer.choices[0].text
    assert text.startswith(PROMPT)
    for token, at in zip(columns.tokens[1 : len(ids)], columns.text_offset[1:], strict=False):
        assert text.startswith(token, at)
    from_ids = client.completions.create(prompt=ids, **asked).choices[0]
    assert from_ids.logprobs.token_logprobs == columns.token_logprobs
    scored = client.completions.create(prompt=PROMPT, **{**asked, "max_tokens": 0}).choices[0]
    assert scored.logprobs.token_logprobs == columns.token_logprobs[: len(ids)]


def test_token_ids_are_a_prompt_too(client):
    ids = client.post("/../tokenize", body={"prompt": PROMPT}, cast_to=object)
    asked = {"model": "any", "max_tokens": 6, "temperature": 0}
    from_ids = client.completions.create(prompt=ids, **asked)
    assert from_ids.choices[0].text == (
        client.completions.create(prompt=PROMPT, **asked).choices[0].text
    )
    assert from_ids.usage.prompt_tokens == len(ids)


def test_completion_logprobs_come_in_columns(client):
    answer = client.completions.create(
        model="any", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2
    )
    columns = answer.choices[0].logprobs
    assert len(columns.tokens) == answer.usage.completion_tokens
    assert all(logprob <= 0 for logprob in columns.token_logprobs)
    assert all(len(top) >= 2 for top in columns.top_logprobs)
    assert columns.text_offset[0] == 0


def test_a_chat_streams_what_it_says_whole(client):
    asked = {"model": "any", "messages": CHAT, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.object == "chat.completion"
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert joined == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {last.id}
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)


def test_without_include_usage_no_chunk_has_any(client):
    with client.chat.completions.create(
        model="any", messages=CHAT, max_tokens=3, stream=True
    ) as stream:
        chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_stream_helper_puts_the_message_together(client):
    with client.chat.completions.stream(
        model="any", messages=CHAT, max_tokens=200, temperature=0, stop=["zzz"]
    ) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in events
    assert final.choices[0].message.content


def test_chat_logprobs_hold_the_bytes_of_the_text(client):
    answer = client.chat.completions.create(
        model="any", messages=CHAT, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    text = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert text.startswith(answer.choices[0].message.content)


def test_a_seed_reproduces(client):
    def sample(seed):
        answer = client.chat.completions.create(
            model="any", messages=CHAT, max_tokens=24, temperature=1.5, seed=seed
        )
        return answer.choices[0].message.content

    assert sample(5) == sample(5)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_a_stop_string_is_cut_away(client):
    asked = {"model": "any", "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    stop = text[6:9]
    answer = client.completions.create(**asked, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    with client.completions.create(**asked, stop=[stop], stream=True) as stream:
        assert "".join(c.choices[0].text for c in stream) == answer.choices[0].text


async def test_the_async_client_does_the_same(server):
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0) as client:
        asked = {"model": "any", "messages": CHAT, "max_tokens": 8, "temperature": 0}
        whole = await client.chat.completions.create(**asked)
        async with await client.chat.completions.create(**asked, stream=True) as stream:
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(parts) == whole.choices[0].message.content
        text = await client.completions.create(model="any", prompt=PROMPT, max_tokens=4)
        assert text.choices[0].text


def test_models_are_listed_and_found_by_their_name(client):
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError, match="no/such-model"):
        client.models.retrieve("no/such-model")


def test_a_value_out_of_range_is_unprocessable(client):
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model="any", messages=CHAT, temperature=-1)
    assert raised.value.param == "temperature"
    assert raised.value.code == "validation"
    assert "Given: -1" in raised.value.message


def test_an_unread_rest_of_a_stream_is_given_up(server):
    endless = {"prompt": "And so", "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    with given_up(server), connect(server) as client:
        stream = client.completions.create(model="any", stream=True, **endless)
        next(stream)
        stream.close()


def test_the_usage_says_how_much_of_the_prompt_was_known(client):
    text = "A prompt of its own, and long enough to fill some blocks of the cache. " * 6
    asked = {"model": "any", "prompt": text, "max_tokens": 2, "temperature": 0}

    def num_cached(**more):
        usage = client.completions.create(**asked, **more).usage
        assert usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens
        return usage.prompt_tokens_details.cached_tokens

    assert num_cached() == 0
    assert num_cached(extra_body={"prefix_caching": False}) == 0
    assert num_cached() >= 32
