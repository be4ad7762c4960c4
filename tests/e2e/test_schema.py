"""schemathesis asks a live server what its OpenAPI document promises, on every route.

No answer may be a 5xx, of a status, a type or a shape that is not described, or a 200 to a body
that the document forbids. Cases are drawn anew from the same seed each time.
"""

import json
from pathlib import Path

import pytest
import requests
import schemathesis
from dialect_config import dialect_config
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from served import serve

from server.generators.published import load_published
from server.openapi import openapi_document

GENERATORS = ("some_generators:typed", "some_generators:nested", "some_generators:untyped")
LIMITS = ("--max-input-tokens", "64", "--max-total-tokens", "96", "--num-threads", "1")
"""So that no answer is long."""
ENDLESS = {("GET", "/events")}
"""Ends when the server does; `test_events.py` reads it."""
CHECKS = {
    # the document cannot say that two fields exclude each other, or must be equal
    "positive_data_acceptance": {"enabled": False},
    "negative_data_rejection": {"expected-statuses": [400, 413, 422]},
}
MODES = {
    "GET": [GenerationMode.POSITIVE],  # there is nothing to get wrong
    "POST": list(GenerationMode),
}
NUM_CASES = 12


def operations():
    document = openapi_document(dialect_config(), "1", load_published(GENERATORS).values())
    for path, methods in json.loads(document)["paths"].items():
        yield from ((method.upper(), path) for method in methods)


TESTS = Path(__file__).parents[1]
OPERATIONS = [operation for operation in operations() if operation not in ENDLESS]


@pytest.fixture(scope="module")
def url():
    flags = [word for name in GENERATORS for word in ("--generator", name)]
    with serve(*LIMITS, *flags, env={"PYTHONPATH": str(TESTS)}) as server:
        yield server.url


@pytest.fixture(scope="module")
def document(url):
    config = schemathesis.Config.from_dict({"checks": CHECKS})
    return schemathesis.openapi.from_url(f"{url}/api-doc/openapi.json", config=config)


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        yield session


@schemathesis.deserializer("text/event-stream")
def events_of(context, response):
    """Read the data of events, of which the document tells; [DONE] is no event."""
    lines = response.content.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(event) for event in data if event != "[DONE]"]


def test_every_route_is_asked(document):
    found = {(op.ok().method.upper(), op.ok().path) for op in document.get_all_operations()}
    assert found | {("GET", "/api-doc/openapi.json")} == {*OPERATIONS, *ENDLESS}


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(method, path, mode) for method, path in OPERATIONS for mode in MODES[method]],
)
def test_the_server_does_what_its_document_says(document, session, url, method, path, mode):
    operation = document[path][method]

    @settings(
        max_examples=NUM_CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def ask(case):
        case.call_and_validate(url, session=session, timeout=30)

    ask()
