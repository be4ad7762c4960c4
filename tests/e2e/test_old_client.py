"""The `text_generation` client of TGI's own repository, which many still have."""

import pytest
from text_generation import AsyncClient, Client
from text_generation.errors import (
    BadRequestError,
    UnknownError,
    ValidationError,
)

# its code, not ours
pytestmark = pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")

PROMPT = "What is the capital of France?"
CHAT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(server):
    return Client(server.url)


def test_generate_gives_text_and_details(client):
    answer = client.generate(PROMPT, max_new_tokens=10)
    assert answer.generated_text
    assert not answer.generated_text.startswith(PROMPT)
    assert answer.details.generated_tokens == len(answer.details.tokens) <= 10
    assert answer.details.finish_reason in ("length", "eos_token")
    assert answer.details.seed is None
    assert answer.details.prefill == []
    shown = "".join(token.text for token in answer.details.tokens if not token.special)
    assert shown == answer.generated_text


def test_every_parameter_is_taken(client):
    answer = client.generate(
        PROMPT,
        do_sample=True,
        max_new_tokens=6,
        best_of=2,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        return_full_text=True,
        stop_sequences=["zzz"],
        temperature=0.9,
        top_k=20,
        top_p=0.9,
        truncate=4,
        typical_p=0.9,
        watermark=True,
        decoder_input_details=True,
        top_n_tokens=2,
    )
    assert answer.generated_text.startswith(PROMPT)
    assert answer.details.seed is not None
    assert len(answer.details.prefill) == 4
    assert answer.details.prefill[0].logprob is None
    assert len(answer.details.best_of_sequences) == 1
    assert answer.details.best_of_sequences[0].seed is not None
    assert len(answer.details.top_tokens) == answer.details.generated_tokens


def test_a_stop_sequence_ends_the_text_and_stays_in_it(client):
    text = client.generate(PROMPT, max_new_tokens=20).generated_text
    stop = text[5:8]
    answer = client.generate(PROMPT, max_new_tokens=20, stop_sequences=[stop])
    assert answer.details.finish_reason == "stop_sequence"
    assert stop in answer.generated_text
    assert text.startswith(answer.generated_text)


def test_a_stream_has_the_tokens_of_the_plain_call(client):
    answer = client.generate(PROMPT, max_new_tokens=10)
    events = list(client.generate_stream(PROMPT, max_new_tokens=10))
    assert [e.token.id for e in events] == [t.id for t in answer.details.tokens]
    assert [e.details for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].generated_text == answer.generated_text
    assert events[-1].details.finish_reason == answer.details.finish_reason
    assert events[-1].details.generated_tokens == len(events)


def test_a_chat_is_answered(client):
    answer = client.chat(CHAT, max_tokens=8, temperature=0.5, seed=3)
    assert answer.choices[0].message.content
    assert answer.id
    assert answer.usage["completion_tokens"] <= 8


async def test_the_async_client_does_the_same(server):
    client = AsyncClient(server.url)
    answer = await client.generate(PROMPT, max_new_tokens=10)
    events = [event async for event in client.generate_stream(PROMPT, max_new_tokens=10)]
    assert [e.token.id for e in events] == [t.id for t in answer.details.tokens]
    assert events[-1].generated_text == answer.generated_text
    assert (await client.chat(CHAT, max_tokens=4, temperature=0.5)).choices[0].message.content


def test_too_many_tokens_raise_validation_error(client):
    with pytest.raises(ValidationError, match="`inputs` tokens"):
        client.generate("word " * 5000, max_new_tokens=10)
    with pytest.raises(ValidationError, match="`inputs` tokens"):
        list(client.generate_stream("word " * 5000, max_new_tokens=10))


async def test_too_many_tokens_raise_validation_error_async(server):
    client = AsyncClient(server.url)
    with pytest.raises(ValidationError, match="`inputs` tokens"):
        await client.generate("word " * 5000, max_new_tokens=10)
    with pytest.raises(ValidationError, match="`inputs` tokens"):
        async for _ in client.generate_stream("word " * 5000, max_new_tokens=10):
            pass


def test_the_key_is_sent_as_a_header(keyed):
    headers = {"Authorization": "Bearer open-sesame"}
    assert Client(keyed.url, headers=headers).generate("Hi", max_new_tokens=2).generated_text
    with pytest.raises((UnknownError, BadRequestError), match="API key is needed"):
        Client(keyed.url).generate("Hi", max_new_tokens=2)
