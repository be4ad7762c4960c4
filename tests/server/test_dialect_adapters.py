"""Which adapter each route asks for, by id or by name, and what it says of those it has not."""

import json

import pytest
from dialect_config import dialect_config

from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.messages import MessagesDialect
from server.dialects.responses import ResponsesDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.errors import Problem

CHAT = {"messages": [{"role": "user", "content": "A"}]}
NATIVE = {
    "generate": (GenerateDialect, {"inputs": "A"}),
    "generate_stream": (GenerateStreamDialect, {"inputs": "A"}),
    "compat": (CompatDialect, {"inputs": "A"}),
    "invocations": (InvocationsDialect, {"inputs": "A"}),
    "vertex": (VertexDialect, {"inputs": "A"}),
}
OPENAI = {
    "completions": (CompletionsDialect, {"prompt": ["A", "B"]}),
    "chat": (ChatDialect, CHAT),
    "responses": (ResponsesDialect, {"input": "A"}),
    "messages": (MessagesDialect, {**CHAT, "max_tokens": 5}),
    "invocations, a chat": (InvocationsDialect, CHAT),
    "vertex, a chat": (VertexDialect, CHAT),
}
ADAPTERS = ("sums", "org/words")
UNKNOWN = "Input validation error: `adapter_id` must be one of sums, org/words. Given: "


def parse(route, *, is_ignored=False, adapters=ADAPTERS, **fields):
    dialect, body = (NATIVE | OPENAI)[route]
    body = {**body, "parameters": fields} if route in NATIVE else {**body, **fields}
    body = {"instances": [body]} if dialect is VertexDialect else body
    config = dialect_config(adapters=adapters, is_unknown_adapter_ignored=is_ignored)
    return dialect(config).parse(json.dumps(body).encode())


def adapters(route, **fields):
    return {each.params.adapter for each in parse(route, **fields).generations()}


def refusal(route, **fields):
    with pytest.raises(Problem) as caught:
        adapters(route, **fields)
    return caught.value.status, caught.value.field, caught.value.message


@pytest.mark.parametrize("route", [*NATIVE, *OPENAI])
def test_an_adapter_is_asked_for_by_its_id(route):
    assert adapters(route) == adapters(route, adapter_id=None) == {None}
    assert adapters(route, adapter_id="sums") == {"sums"}
    assert adapters(route, adapter_id="org/words") == {"org/words"}


@pytest.mark.parametrize("route", [*NATIVE, *OPENAI])
@pytest.mark.parametrize("name", ["other", "", "SUMS", "adapter:sums", "org/m", "tgi"])
def test_an_unknown_id_is_refused_unless_the_operator_lets_it_mean_the_base_model(route, name):
    assert refusal(route, adapter_id=name) == (422, "adapter_id", UNKNOWN + name)
    assert adapters(route, adapter_id=name, is_ignored=True) == {None}
    assert adapters(route, adapter_id="sums", is_ignored=True) == {"sums"}


def test_a_server_without_adapters_says_so():
    status, _, message = refusal("generate", adapter_id="a", adapters=())
    rule = "`adapter_id` must be null, since no adapters are loaded. Given: a"
    assert (status, message) == (422, f"Input validation error: {rule}")


@pytest.mark.parametrize("route", OPENAI)
@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ("sums", "sums"),
        ("adapter:sums", "sums"),
        ("adapter:org/words", "org/words"),
        ("org/m", None),
        ("tgi", None),
        ("dummy", None),
        ("http://127.0.0.1:3000", None),
        ("", None),
    ],
)
def test_a_models_name_is_an_adapters_or_means_the_base_model(route, model, adapter):
    assert adapters(route, model=model) == {adapter}


@pytest.mark.parametrize("route", OPENAI)
def test_an_adapter_by_a_models_name_that_is_not_there_is_not_found(route):
    message = "The model `adapter:x` does not exist; this server has `org/m`, `sums`, `org/words`"
    assert refusal(route, model="adapter:x") == (404, "model", message)
    assert adapters(route, model="adapter:x", is_ignored=True) == {None}


@pytest.mark.parametrize("route", OPENAI)
def test_id_and_name_may_agree_but_not_differ(route):
    assert adapters(route, adapter_id="sums", model="adapter:sums") == {"sums"}
    assert adapters(route, adapter_id="sums", model="tgi") == {"sums"}
    message = "`adapter_id` and `model` name different adapters: sums, org/words"
    expected = (422, "model", f"Input validation error: {message}")
    assert refusal(route, adapter_id="sums", model="org/words") == expected
