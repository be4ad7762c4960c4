"""The npm clients: @huggingface/inference 2, 3 and 4, and openai; the cases are in `js/`."""

import json
import subprocess
from pathlib import Path

import pytest
from occupancy import given_up
from setup_peers import NPM_PACKAGES

pytestmark = pytest.mark.needs("node", NPM_PACKAGES)

JS = Path(__file__).parent / "js"
PROMPT = "What is the capital of France?"


def run(client: str, case: str, server) -> dict:
    """Run one case; give its value, or what it threw."""
    done = subprocess.run(
        ["node", "run.mjs", client, case, server.url],
        cwd=JS,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def value(client: str, case: str, server):
    outcome = run(client, case, server)
    assert "error" not in outcome, outcome
    return outcome["value"]


@pytest.mark.parametrize("client", ["hf2", "hf3"])
def test_hf_js_up_to_3_streams_tgis_events(server, client):
    *before, last = value(client, "stream", server)
    assert all(event["token"]["text"] is not None for event in before)
    assert all(event["generated_text"] is None for event in before)
    joined = "".join(e["token"]["text"] for e in [*before, last] if not e["token"]["special"])
    assert last["generated_text"] == PROMPT + joined


def test_hf_js_2_gets_the_whole_text_too(server):
    (answer,) = value("hf2", "whole", server)
    assert answer["generated_text"].startswith(PROMPT)


def test_hf_js_2_asks_the_hub_unless_a_model_is_named(server):
    outcome = run("hf2", "nameless", server)
    assert outcome["error"]["message"] == "it asked https://huggingface.co"


def test_hf_js_3_gets_the_whole_text(server):
    text = value("hf3", "whole", server)["generated_text"]
    assert text == value("hf3", "stream", server)[-1]["generated_text"]


def test_hf_js_4_speaks_completions(server):
    text = value("hf4", "whole", server)["generated_text"]
    chunks = value("hf4", "stream", server)
    assert text
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text


@pytest.mark.parametrize("client", ["hf3", "hf4", "openai"])
def test_a_streamed_chat_joins_to_the_whole_one(server, client):
    whole = value(client, "chat", server)["choices"][0]
    choices = [chunk["choices"][0] for chunk in value(client, "chatStream", server)]
    joined = "".join(choice["delta"].get("content", "") for choice in choices)
    assert joined == whole["message"]["content"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


def test_openai_joins_completions_and_its_helper_agrees(server):
    whole = value("openai", "whole", server)["choices"][0]["text"]
    chunks = value("openai", "stream", server)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
    chat = value("openai", "chat", server)["choices"][0]["message"]["content"]
    assert value("openai", "helper", server) == chat


def test_openai_joins_responses_and_its_helper_agrees(server):
    whole = value("openai", "response", server)
    assert (whole["status"], whole["output_text"]) == ("completed", text_of(whole))
    events = value("openai", "responseStream", server)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    assert "".join(event.get("delta", "") for event in events) == whole["output_text"]
    assert text_of(events[-1]["response"]) == whole["output_text"]
    assert text_of(value("openai", "responseHelper", server)) == whole["output_text"]


def text_of(response):
    ((part,),) = [item["content"] for item in response["output"]]
    return part["text"]


def test_an_unknown_model_is_not_found(server):
    error = run("openai", "unknownModel", server)["error"]
    assert error["status"] == 404
    assert "no/such-model" in error["message"]


@pytest.mark.parametrize(
    ("client", "case"),
    [("hf3", "abort"), ("hf4", "abort"), ("openai", "abort"), ("openai", "breakOut")],
)
def test_an_aborted_stream_is_given_up(server, client, case):
    with given_up(server):
        outcome = run(client, case, server)
    assert outcome.get("error", {"name": "AbortError"})["name"] == "AbortError"
