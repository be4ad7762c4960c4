import json

import pytest
from dialect_config import dialect_config

from server.dialects.chat import ChatCall
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsCall
from server.dialects.tgi import GenerateCall
from server.errors import Problem

TOP = "Input validation error: "
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def parse(dialect, body):
    return dialect(dialect_config()).parse(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"inputs": "A"}, GenerateCall),
        ({"inputs": "A", **CHAT, "prompt": "B"}, GenerateCall),
        ({**CHAT, "prompt": "B"}, ChatCall),
        ({"prompt": "B"}, CompletionsCall),
        ({"inputs": None, "messages": None, "prompt": "B"}, CompletionsCall),
    ],
)
def test_the_key_that_is_there_chooses_the_dialect(body, kind):
    assert isinstance(parse(InvocationsDialect, body), kind)


def test_invocations_answer_texts_as_an_array_and_stream_on_demand():
    assert parse(InvocationsDialect, {"inputs": "A"}).is_list
    assert parse(InvocationsDialect, {"inputs": "A", "stream": True}).is_stream


def test_vertex_takes_a_permit_for_every_sequence_of_every_instance():
    instance = {"inputs": "A", "parameters": {"best_of": 2}}
    call = parse(VertexDialect, {"instances": [instance, CHAT, {"inputs": "B"}]})
    generations = call.generations()
    assert call.num_permits == len(generations) == 4
    assert [g.prompt for g in generations[:2]] == ["A", "A"]
    assert generations[3].prompt == "B"


@pytest.mark.parametrize(
    ("parameters", "is_sampled"),
    [(None, True), ({}, True), ({"max_new_tokens": 3}, True), ({"do_sample": False}, False)],
)
def test_vertex_samples_texts_unless_told_not_to(parameters, is_sampled):
    call = parse(VertexDialect, {"instances": [{"inputs": "A", "parameters": parameters}]})
    assert call.generations()[0].params.do_sample is is_sampled


def test_vertex_never_streams():
    call = parse(VertexDialect, {"instances": [{**CHAT, "stream": True}]})
    assert call.is_stream is False
    assert call.headers == {}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, TOP + "`instances` is missing"),
        ({"instances": 1}, TOP + "`instances`: expected `array`, got `int`"),
        (
            {"instances": [1]},
            TOP + "`instances[0]`: expected `object`, got `int`",
        ),
        (
            {"instances": [{"inputs": "A"}, {"input": "A"}]},
            TOP + "`instances[1]`: one of `inputs` and `messages` is missing",
        ),
        (
            {"instances": [{"inputs": "A", "parameters": {"top_k": "x"}}]},
            TOP + "`instances[0].parameters.top_k`: expected `int | null`, got `str`",
        ),
        (
            {"instances": [{"messages": [{"content": "A"}]}]},
            TOP + "`instances[0].messages[0].role` is missing",
        ),
        (
            {"instances": [{"inputs": "A"}] * 5},
            "Number of instances exceeds the maximum allowed batch size of 4. Given: 5",
        ),
        (
            {"instances": [{"inputs": "A", "parameters": {"top_p": 1}}]},
            TOP + "`top_p` must be > 0.0 and < 1.0. Given: 1.0",
        ),
    ],
)
def test_an_instance_that_cannot_be_is_told_with_its_place(body, message):
    with pytest.raises(Problem) as caught:
        parse(VertexDialect, body).generations()
    assert (caught.value.status, caught.value.message) == (422, message)
