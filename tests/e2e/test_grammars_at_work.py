"""Grammars over HTTP: answers are what they must be, and bad grammars are refused by themselves."""

import asyncio
import json
import re
from typing import Annotated, Literal

import pytest
from anthropic import Anthropic
from huggingface_hub import InferenceClient
from openai import OpenAI, UnprocessableEntityError
from pydantic import BaseModel, Field
from raw_http import call
from schemas import assert_valid

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["city", "size", "people", "tags"],
    "additionalProperties": False,
}
OPENAI_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
}
CHAT = [{"role": "user", "content": "What is the capital of France?"}]
ROUTES = {
    "/": {"inputs": "A"},
    "/generate": {"inputs": "A"},
    "/generate_stream": {"inputs": "A"},
    "/v1/completions": {"prompt": "A", "max_tokens": 40},
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 40},
    "/v1/responses": {"input": CHAT, "max_output_tokens": 40},
    "/v1/messages": {"messages": CHAT, "max_tokens": 40},
}
RULES = (f'r{i}: "a"? | r{(i + 1) % 3000}' for i in range(3000))
CIRCLE = "\n".join(("start: " + " ".join(f"r{i}" for i in range(3000)), *RULES))
BAD = {
    "bad": {"type": "json", "value": {"not": {}}},
    "deep": {"type": "json", "value": '{"items":' * 900 + "{}" + "}" * 900},
    "enormous": {"type": "regex", "value": "a" * 100_000 + "|b"},
    "slow": {"type": "regex", "value": "(a{1000}){1000}"},
    "overflowing": {"type": "lark", "value": CIRCLE},
}


@pytest.fixture
def client(server):
    with OpenAI(base_url=server.url + "/v1", api_key="-", max_retries=0) as client:
        yield client


def asking(path, grammar):
    body = ROUTES[path]
    if path.startswith("/v1"):
        return {**body, "grammar": grammar}
    return {**body, "parameters": {"grammar": grammar, "max_new_tokens": 150}}


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_openais_client_gets_json_of_its_schema(client, temperature):
    asked = {
        "model": "any",
        "messages": CHAT,
        "response_format": OPENAI_FORMAT,
        "temperature": temperature,
        "seed": 5,
        "max_tokens": 150,
    }
    answer = client.chat.completions.create(n=2, **asked)
    assert [choice.finish_reason for choice in answer.choices] == ["stop"] * 2
    for choice in answer.choices:
        assert_valid(choice.message.content, SCHEMA)
    with client.chat.completions.create(stream=True, **asked) as stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == answer.choices[0].message.content


@pytest.mark.parametrize("is_stream", [False, True])
def test_responses_are_what_their_format_says(client, is_stream):
    form = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
    asked = {"model": "any", "input": CHAT, "max_output_tokens": 150, "temperature": 1.2}
    for given, schema in ((form, SCHEMA), ({"type": "json_object"}, {"type": "object"})):
        answer = client.responses.create(
            **asked, text={"format": given}, extra_body={"seed": 5}, stream=is_stream
        )
        if is_stream:
            answer = list(answer)[-1].response
        assert answer.text.format.type == given["type"]
        if answer.status == "completed" or given is form:
            assert_valid(answer.output_text, schema)


@pytest.mark.parametrize("is_stream", [False, True])
def test_messages_are_what_their_output_config_says(server, is_stream):
    asked = {
        "model": "any",
        "messages": CHAT,
        "max_tokens": 150,
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "extra_body": {"seed": 5, "temperature": 1.2},
    }
    with Anthropic(base_url=server.url, api_key="-", max_retries=0) as client:
        if is_stream:
            with client.messages.stream(**asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**asked)
    assert_valid(answer.content[0].text, SCHEMA)


class City(BaseModel):
    """What the packages' own helpers make a schema of, and read the answer into."""

    name: Annotated[str, Field(max_length=12)]
    size: Literal["small", "large"]


def test_the_parsing_helpers_of_both_packages_read_the_answer(server, client):
    asked = {"model": "any", "extra_body": {"seed": 5}}
    answer = client.responses.parse(**asked, input=CHAT, text_format=City, max_output_tokens=150)
    assert isinstance(answer.output_parsed, City)
    with Anthropic(base_url=server.url, api_key="-", max_retries=0) as other:
        message = other.messages.parse(**asked, messages=CHAT, output_format=City, max_tokens=150)
    assert isinstance(message.parsed_output, City)


@pytest.mark.parametrize(
    ("path", "fields", "field"),
    [
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "x",
                                               "schema": {"not": {}}}}}, "text.format"),
        ("/v1/messages", {"output_config": {"format": {"type": "json_schema",
                                                       "schema": {"not": {}}}}},
         "output_config.format"),
    ],
)  # fmt: skip
async def test_a_bad_schema_is_named_as_the_client_wrote_it(server, path, fields, field):
    answer = await call(server.url, "POST", path, {**ROUTES[path], **fields})
    assert answer.status == 422
    assert f"`{field}" in answer.json()["error"]["message"]


def test_the_hubs_client_gets_what_its_grammar_allows(server):
    client = InferenceClient(model=server.url)
    prompt = "What is the capital of France?"
    asked = {"max_new_tokens": 150, "return_full_text": False}
    grammar = {"type": "json", "value": SCHEMA}
    assert_valid(client.text_generation(prompt, **asked, grammar=grammar), SCHEMA)
    pattern = "((25[0-5]|2[0-4]\\d|[01]?\\d\\d?)\\.){3}(25[0-5]|2[0-4]\\d|[01]?\\d\\d?)"
    grammar = {"type": "regex", "value": pattern}
    text = client.text_generation(prompt, **asked, grammar=grammar)
    assert re.fullmatch(pattern, text)
    answer = client.chat_completion(CHAT, response_format=OPENAI_FORMAT, max_tokens=200)
    assert_valid(answer.choices[0].message.content, SCHEMA)


def test_a_stop_string_ends_a_constrained_answer_too(client):
    asked = {"model": "any", "messages": CHAT, "temperature": 0, "max_tokens": 60}
    form = {"type": "regex", "value": "one, two, three"}
    extra = {"response_format": form}
    whole = client.chat.completions.create(**asked, extra_body=extra).choices[0]
    assert (whole.message.content, whole.finish_reason) == ("one, two, three", "stop")
    cut = client.chat.completions.create(**asked, stop=", three", extra_body=extra).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("one, two", "stop")


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_follows_a_grammar(server, path):
    choices = ["never said by itself", "nor this"]
    answer = await call(
        server.url, "POST", path, asking(path, {"type": "choice", "value": choices})
    )
    assert answer.status == 200
    assert any(choice in answer.body.decode() for choice in choices)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_grammar_is_unprocessable(server, path, name):
    answer = await call(server.url, "POST", path, asking(path, BAD[name]))
    assert answer.status == 422
    assert answer.json()["error_type"] == "validation"
    assert "grammar" in answer.json()["error"]["message" if "v1" in path else slice(None)]


async def test_neighbours_do_not_notice_bad_grammars(server):
    quiet = {
        "inputs": "Once upon a time",
        "parameters": {"max_new_tokens": 100, "ignore_eos": True, "seed": 3, "do_sample": True},
    }
    expected = (await call(server.url, "POST", "/generate", quiet)).json()["generated_text"]

    async def refused(grammar):
        asked = asking("/v1/chat/completions", grammar)
        return (await call(server.url, "POST", "/v1/chat/completions", asked)).status

    stream = asyncio.create_task(call(server.url, "POST", "/generate", quiet))
    statuses = await asyncio.gather(*(refused(grammar) for grammar in BAD.values()))
    good = await call(
        server.url, "POST", "/generate", asking("/generate", {"type": "json", "value": SCHEMA})
    )
    assert statuses == [422] * len(BAD)
    assert_valid(good.json()["generated_text"], SCHEMA)
    assert (await stream).json()["generated_text"] == expected


def test_the_field_that_was_wrong_is_named(client):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"uniqueItems": True}}}
    with pytest.raises(UnprocessableEntityError) as caught:
        client.chat.completions.create(model="any", messages=CHAT, response_format=form)
    assert caught.value.param == "response_format"
    assert "uniqueItems" in caught.value.message


def test_an_object_is_any_object(client):
    answer = client.chat.completions.create(
        model="any",
        messages=CHAT,
        response_format={"type": "json_object"},
        max_tokens=40,
        temperature=0,
    ).choices[0]
    assert answer.message.content.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
