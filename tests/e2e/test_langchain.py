"""LangChain's chat classes for OpenAI's and for Hugging Face's servers, unchanged."""

from typing import Literal

import pytest
from in_process import EOS, byte_tokenizer, in_process
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict

ASKED = "What is the capital of France?"
CALLS = (
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
)
CITIES = [("get_weather", {"city": "Rome"}), ("get_weather", {"city": "Oslo"})]


class Answer(BaseModel):
    """An answer of few words."""

    model_config = ConfigDict(extra="forbid")
    is_known: bool
    digit: Literal[1, 2, 3]


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return city


def openai_chat(url, **options):
    settings = {"api_key": "-", "model": "m", "max_retries": 0, "temperature": 0, **options}
    return ChatOpenAI(base_url=f"{url}/v1", **settings)


def hub_chat(url, max_tokens=200, **options):
    # where the chat's own temperature is 0, the endpoint's goes out
    endpoint = HuggingFaceEndpoint(endpoint_url=url, huggingfacehub_api_token="-", temperature=0)
    settings = {"model_id": "m", "max_tokens": max_tokens, "temperature": 0, **options}
    return ChatHuggingFace(llm=endpoint, **settings)


CHATS = pytest.mark.parametrize("chat", [openai_chat, hub_chat], ids=["openai", "hub"])


def calling():
    """Start a server whose model calls two tools."""
    return in_process([*byte_tokenizer().encode(CALLS), EOS], tool_call_parser="hermes")


def called(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


@CHATS
def test_a_chat_is_answered_with_its_usage_and_reason(server, chat):
    answer = chat(server.url, max_tokens=8).invoke(ASKED)
    usage = answer.usage_metadata
    assert answer.content
    assert answer.response_metadata["finish_reason"] == "length"
    assert usage["output_tokens"] == 8
    assert usage["total_tokens"] == usage["input_tokens"] + 8


@CHATS
async def test_streamed_or_not_and_awaited_or_not_it_is_the_same(server, chat):
    model = chat(server.url, max_tokens=12)
    text = model.invoke(ASKED).content
    assert "".join(chunk.content for chunk in model.stream(ASKED)) == text
    assert (await model.ainvoke(ASKED)).content == text
    assert "".join([chunk.content async for chunk in model.astream(ASKED)]) == text


@CHATS
def test_a_stream_ends_with_the_usage_of_the_whole(server, chat):
    model = chat(server.url, max_tokens=12)
    whole = model.invoke(ASKED).usage_metadata
    chunks = model.stream(ASKED, stream_usage=True)
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert usage["input_tokens"] == whole["input_tokens"]
    assert usage["output_tokens"] == whole["output_tokens"]


@CHATS
async def test_calls_of_tools_are_read(chat):
    async with calling() as server:
        model = chat(server.url).bind_tools([get_weather])
        assert called(await model.ainvoke("Weather?")) == CITIES
        whole = None
        async for chunk in model.astream("Weather?"):
            whole = chunk if whole is None else whole + chunk
        assert called(whole) == CITIES


@CHATS
def test_an_answer_by_a_schema_is_of_its_type(server, chat):
    model = chat(server.url, max_tokens=200).with_structured_output(Answer, method="json_schema")
    answer = model.invoke(ASKED)
    assert Answer.model_validate(answer)


@CHATS
def test_an_answer_by_a_call_that_must_be_made_is_of_its_type(crowded, chat):
    schema = {"title": "answer", **Answer.model_json_schema()}
    model = chat(crowded.url).with_structured_output(schema, method="function_calling")
    assert Answer.model_validate(model.invoke(ASKED))


def test_the_endpoint_for_texts_streams_what_it_says_whole(server):
    model = HuggingFaceEndpoint(
        endpoint_url=server.url, huggingfacehub_api_token="-", max_new_tokens=8, seed=7
    )
    text = model.invoke(ASKED)
    assert text
    assert "".join(model.stream(ASKED)) == text
