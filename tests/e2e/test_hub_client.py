"""huggingface_hub's InferenceClient and AsyncInferenceClient, as TGI's users have them."""

import asyncio

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import (
    HfHubHTTPError,
    TextGenerationError,
    ValidationError,
)
from in_process import in_process
from occupancy import given_up, wait_for

PROMPT = "What is the capital of France?"
WILD = {"do_sample": True, "temperature": 100.0}
"""So that the end token does not come soon: this client cannot ask to ignore it."""
CHAT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(server):
    with InferenceClient(server.url) as client:
        yield client


@pytest.fixture
async def aclient(server):
    async with AsyncInferenceClient(server.url) as client:
        yield client


def test_a_plain_call_gives_text_and_the_prompt_before_it(client):
    whole = client.text_generation(PROMPT, max_new_tokens=12)
    bare = client.text_generation(PROMPT, max_new_tokens=12, return_full_text=False)
    assert bare
    assert whole == PROMPT + bare


def test_the_tokens_of_a_stream_join_to_the_text_of_the_plain_call(client):
    text = client.text_generation(PROMPT, max_new_tokens=12, return_full_text=False)
    parts = list(client.text_generation(PROMPT, max_new_tokens=12, stream=True))
    assert len(parts) > 3
    assert all(isinstance(part, str) for part in parts)
    # without details the client shows special tokens too, the end token among them
    assert "".join(parts).startswith(text)


def test_details_agree_between_the_plain_call_and_the_stream(client):
    whole = client.text_generation(
        PROMPT, max_new_tokens=12, details=True, return_full_text=False, top_n_tokens=3
    )
    events = list(
        client.text_generation(
            PROMPT,
            max_new_tokens=12,
            details=True,
            stream=True,
            return_full_text=False,
            top_n_tokens=3,
        )
    )
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert [event.token.logprob for event in events] == pytest.approx(
        [token.logprob for token in whole.details.tokens], abs=1e-4
    )
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    *before, last = events
    assert all(event.details is None and event.generated_text is None for event in before)
    assert last.generated_text == whole.generated_text
    assert last.details.finish_reason == whole.details.finish_reason
    assert last.details.generated_tokens == whole.details.generated_tokens == len(events)
    assert last.details.input_length > 0
    for tops in (whole.details.top_tokens, [event.top_tokens for event in events]):
        assert all(len(top) == 3 for top in tops)


def test_every_parameter_is_taken(client):
    answer = client.text_generation(
        PROMPT,
        details=True,
        adapter_id=None,
        best_of=1,
        decoder_input_details=True,
        do_sample=True,
        frequency_penalty=0.5,
        grammar=None,
        max_new_tokens=5,
        repetition_penalty=1.1,
        return_full_text=True,
        seed=7,
        stop=["zzz"],
        temperature=0.9,
        top_k=20,
        top_n_tokens=2,
        top_p=0.9,
        truncate=4,
        typical_p=0.9,
        watermark=True,
    )
    assert answer.generated_text.startswith(PROMPT)
    assert answer.details.generated_tokens <= 5
    assert answer.details.seed == 7
    assert len(answer.details.prefill) == 4
    assert len(answer.details.top_tokens) == answer.details.generated_tokens


def test_a_stop_string_ends_the_text_and_stays_in_it(client):
    text = client.text_generation(PROMPT, max_new_tokens=20, return_full_text=False)
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    answer = client.text_generation(
        PROMPT, max_new_tokens=20, return_full_text=False, stop=["zzz", stop], details=True
    )
    assert answer.details.finish_reason == "stop_sequence"
    assert stop in answer.generated_text
    assert text.startswith(answer.generated_text)
    # the text ends after the token that completes the stop string
    last = answer.details.tokens[-1].text
    assert stop not in answer.generated_text.removesuffix(last)


def test_a_seed_reproduces_and_another_does_not(client):
    def sample(seed):
        answer = client.text_generation(
            "Tell me", max_new_tokens=24, do_sample=True, temperature=1.5, seed=seed, details=True
        )
        assert answer.details.seed == seed
        return [token.id for token in answer.details.tokens]

    assert sample(11) == sample(11)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1
    assert len(set(sample(11))) >= 8


def test_best_of_gives_the_likeliest_and_the_rest(client):
    answer = client.text_generation(
        "Tell me",
        max_new_tokens=10,
        do_sample=True,
        temperature=1.5,
        best_of=2,
        details=True,
        return_full_text=False,
    )
    (other,) = answer.details.best_of_sequences

    def score(sequence):
        return sum(t.logprob for t in sequence.tokens) / len(sequence.tokens)

    assert score(answer.details) >= score(other)
    assert answer.details.seed is not None
    assert other.seed not in (None, answer.details.seed)


def test_prefill_lists_the_prompt_and_its_first_token_has_no_logprob(client):
    answer = client.text_generation(
        PROMPT, max_new_tokens=1, details=True, decoder_input_details=True
    )
    first, *others = answer.details.prefill
    assert first.logprob is None
    assert others
    assert all(token.logprob < 0 for token in others)
    assert "".join(token.text for token in answer.details.prefill) == PROMPT


def test_a_client_of_the_generate_routes_works_too(server):
    with InferenceClient(server.url + "/generate") as client:
        text = client.text_generation(PROMPT, max_new_tokens=8)
    with InferenceClient(server.url + "/generate_stream") as client:
        parts = list(client.text_generation(PROMPT, max_new_tokens=8, stream=True))
    assert "".join(parts).startswith(text)


@pytest.mark.parametrize("is_chat", [False, True])
async def test_line_separators_and_split_characters_come_through(is_chat):
    # this client splits lines as Unicode does; each token here is one byte of the text
    text = 'a\u2028b\u2029c\u0085d\u000b é 😀 \\u2028 "\n'
    num_tokens = len(text.encode())
    async with in_process() as server, AsyncInferenceClient(server.url) as client:
        if is_chat:
            chat = [{"role": "user", "content": text}]
            chunks = await client.chat_completion(chat, max_tokens=num_tokens, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
        else:
            asked = {"max_new_tokens": num_tokens, "stream": True, "details": True}
            events = [event async for event in await client.text_generation(text, **asked)]
            parts = [event.token.text for event in events]
            assert events[-1].generated_text == text + text
        assert "".join(parts) == text


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/chat/completions"])
def test_a_chat_works_under_every_form_of_the_url(server, ending):
    with InferenceClient(base_url=server.url + ending) as client:
        answer = client.chat_completion(CHAT, max_tokens=8, temperature=0)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 8


def test_a_streamed_chat_joins_to_the_whole_one(client):
    whole = client.chat_completion(CHAT, max_tokens=12, temperature=0)
    chunks = list(
        client.chat_completion(
            CHAT,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *chunks, usage = chunks
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert joined == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason]
    assert usage.choices == []
    assert dict(usage.usage) == dict(whole.usage)


def test_a_chat_gives_logprobs_and_takes_any_model_name(client):
    answer = client.chat.completions.create(
        model="no/such-model", messages=CHAT, max_tokens=4, logprobs=True, top_logprobs=2, seed=1
    )
    assert answer.model != "no/such-model"
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens
    assert all(len(entry.top_logprobs) == 2 for entry in answer.choices[0].logprobs.content)


async def test_the_async_client_does_the_same(aclient):
    text = await aclient.text_generation(PROMPT, max_new_tokens=8, return_full_text=False)
    parts = [
        part async for part in await aclient.text_generation(PROMPT, max_new_tokens=8, stream=True)
    ]
    assert "".join(parts).startswith(text)
    answer = await aclient.text_generation(PROMPT, max_new_tokens=8, details=True)
    assert answer.generated_text == PROMPT + text
    events = await aclient.text_generation(PROMPT, max_new_tokens=8, details=True, stream=True)
    assert [e.token.id async for e in events] == [t.id for t in answer.details.tokens]
    whole = await aclient.chat_completion(CHAT, max_tokens=8, temperature=0)
    chunks = await aclient.chat_completion(CHAT, max_tokens=8, temperature=0, stream=True)
    joined = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert joined == whole.choices[0].message.content


async def test_parallel_async_calls_agree(aclient):
    texts = await asyncio.gather(
        *(aclient.text_generation(PROMPT, max_new_tokens=12) for _ in range(8))
    )
    assert len(set(texts)) == 1


def test_an_unread_rest_of_a_stream_is_given_up(server):
    with given_up(server), InferenceClient(server.url) as client:
        for _ in client.text_generation("And so", max_new_tokens=4000, seed=1, stream=True, **WILD):
            break


async def test_a_cancelled_async_call_is_given_up(server):
    with given_up(server):
        async with AsyncInferenceClient(server.url) as client:
            call = client.text_generation("And so", max_new_tokens=4000, seed=1, **WILD)
            task = asyncio.create_task(call)
            await wait_for(lambda: server.metric("millrace_requests_running") == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_parameter_raises_validation_error(client, stream):
    with pytest.raises(ValidationError, match="`temperature` must be strictly positive"):
        client.text_generation("Hi", temperature=0.0, do_sample=True, stream=stream)
    with pytest.raises(ValidationError, match="`inputs` cannot be empty"):
        client.text_generation("", stream=stream)


def test_what_can_never_fit_raises_validation_error(client):
    with pytest.raises(ValidationError, match="`inputs` tokens"):
        client.text_generation("word " * 5000, max_new_tokens=10)


def test_a_bad_chat_is_an_http_error_with_the_message(client):
    with pytest.raises(HfHubHTTPError, match="temperature") as raised:
        client.chat_completion(CHAT, temperature=-1.0)
    assert raised.value.response.status_code == 422


def test_the_key_is_sent_as_a_token(keyed):
    with InferenceClient(keyed.url, token="open-sesame") as client:
        assert client.text_generation("Hi", max_new_tokens=2)
    with (
        InferenceClient(keyed.url, token="wrong") as client,
        pytest.raises((HfHubHTTPError, TextGenerationError), match="API key is needed"),
    ):
        client.text_generation("Hi", max_new_tokens=2)
