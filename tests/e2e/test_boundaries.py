"""Boundary values in every field of every route that takes a body: a whole answer or a refusal.

A refusal is a JSON error that names the field and its rule. Routes are read from the app and fields
from its OpenAPI document, so that new ones are tried as well; see `boundaries.py`.
"""

import asyncio
import itertools
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest
from boundaries import NOT_JSON, Document
from in_process import in_process, post_routes
from neighbour import neighbour
from raw_http import call, kept
from streams import check

STREAM = "/generate_stream"
ROUTES = [path for path, _ in post_routes() if path != "/generators/{name}"]
GENERATING = [path for path, is_generating in post_routes() if is_generating]
TYPES = (
    *("validation", "template_error", "tool_error", "suffix not supported"),
    "batch size exceeded",
)
SAYS = re.compile(r"must|needs|expected|missing|empty|support|range|only one|unknown|maximum")
"""Words of the rules that messages tell."""
DIALECTS = {
    "CompletionBody": "/v1/completions",
    "ChatBody": "/v1/chat/completions",
    "ResponsesBody": "/v1/responses",
    "MessagesBody": "/v1/messages",
}
"""By whose grammar a body of this kind is streamed."""
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
LIMITS = {"max_input_tokens": 64, "max_total_tokens": 96, "max_waiting": 2_000}
"""So that an answer as long as the context is short."""
LONG = ("null", "2^31", "1e9", "maximum", "empty object", "object", "bias of no token")
"""Values of a limit by which a real model would fill its context."""
BOUNDS = ("minimum", "maximum", "zero", "true", "minus zero", "tiny", "2^63")
NUM_TOGETHER = 8
"""More fields in one body would nearly always hold two that exclude each other."""
OTHERWISE = {
    "inputs": "where another field may stand in its place, both are named",
    "messages": "as `inputs`",
    "prompt": "as `inputs`",
    "parameters.best_of": "a stream has one sequence, and Vertex AI samples by default",
    "parameters.decoder_input_details": "a stream shows no prompt",
    "max_tokens": "must equal `max_output_tokens` where that is given",
    "top_logprobs": "needs `logprobs`, which is a part of `include` on `/v1/responses`",
    "tool_choice": "has its name inside of `function` in a chat, beside `type` elsewhere",
    "tool_choice.name": "of a type without a name it is not read",
    "tools.0.description": "where a tool has no name, that is told",
    "max_new_tokens": "must equal `max_tokens` or `max_output_tokens` where that is given",
}
"""What is told otherwise on some routes, and why."""
UNREAD = (
    "input.0.output",
    "messages.0.content.0.content",
)
"""Of these only a result of a tool is read, and the items that were filled in are others."""
NUM_CLIENTS = 8


@pytest.fixture(scope="module")
def answers():
    """Ask everything of a server with a scripted model: places with their answers, by value."""
    return asyncio.run(all_answers())


async def all_answers():
    found = {}

    async def ask(client, place, name, value):
        found[place, name] = await client.post(place.path, place.with_value(value))

    options = {"template": TEMPLATE, "tool_call_parser": "hermes", "max_concurrent_requests": 2_000}
    async with in_process(limits=LIMITS, **options) as server:
        document = await read_document(server)
        async with neighbour(server):
            await ask_all(
                server,
                (
                    (ask, place, name, value)
                    for path in ROUTES
                    for place in document.places(path)
                    for name, value in place.values().items()
                ),
            )
        assert not any(server.held().values())
    return found


async def read_document(server) -> Document:
    return Document((await call(server.url, "GET", "/api-doc/openapi.json")).json())


async def ask_all(server, questions):
    """Let several clients put the questions, each on a connection that it keeps."""

    async def work():
        async with kept(server.url) as client:
            for ask, *more in questions:
                await ask(client, *more)

    async with asyncio.TaskGroup() as group:
        for _ in range(NUM_CLIENTS):
            group.create_task(work())


def wrong(place, name, answer) -> str | None:
    """Say what is wrong with an answer: it is whole and right, or names field and rule."""
    if not answer.is_whole or answer.status not in (200, 400, 422):
        return "neither an answer nor a refusal"
    if answer.headers["content-type"] == "text/event-stream":
        assert check(DIALECTS.get(place.kind, STREAM), answer.body).error is None
    if answer.status == 200:
        is_refused = name == "bias of no token" and place.where[-1] == "logit_bias"
        is_sound = place.is_declared(place.values()[name]) and not is_refused
        is_sound = is_sound or place.name.startswith(UNREAD)
        return None if is_sound else "it is taken against the document"
    message = message_of(answer)
    if answer.json()["error_type"] not in TYPES:
        return "another type"
    if name in NOT_JSON:
        return None if answer.status == 400 and "not JSON" in message else "this is not JSON"
    if answer.status != 422:
        return "this is JSON"
    if "surrogate" in name:
        return None if "half of a character" in message else "the reason is missing"
    names = ("`inputs` tokens", *map(str, place.where))  # TGI's words for all that is too long
    if not any(name.lower() in message.lower() for name in names):
        return "the field is not named"
    return None if SAYS.search(message) and len(message) < 500 else "the rule is not told"


def message_of(answer) -> str:
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_no_value_of_any_field_does_harm(answers, path):
    found = [
        (why, place.name, name, answer.status, answer.body[:300])
        for (place, name), answer in answers.items()
        if place.path == path and (why := wrong(place, name, answer))
    ]
    assert not found


def test_a_field_is_answered_the_same_on_every_route_that_takes_it(answers):
    told = defaultdict(lambda: defaultdict(set))
    for (place, name), answer in answers.items():
        if place.path in GENERATING and place.name not in OTHERWISE:
            told[place.declared, name][verdict(answer)].add(place.path)
    assert sum(len(set().union(*paths.values())) > 1 for paths in told.values()) > 2_000
    assert [(key, dict(paths)) for key, paths in told.items() if len(paths) > 1] == []


def verdict(answer):
    """Say what a client is told, without where it stood and how many tokens it had."""
    if answer.status == 200:
        return "taken"
    return answer.status, re.sub(r"\d+|instances\[0\]\.", "", message_of(answer))


async def test_what_is_taken_is_answered_whole_by_a_real_model(server, answers):
    """Its sampler sees every float and every pair of bounds; its memory and neighbours nothing."""
    bodies = list(taken(answers))
    assert len(bodies) > 1_000
    found = []

    async def ask(client, path, body):
        answer = await client.post(path, body)
        if answer.status not in (200, 422) or not answer.is_whole:
            found.append((path, answer.status, answer.body[:300], body[:300]))

    before = memory_bytes(server)
    async with neighbour(server):
        await ask_all(server, ((ask, path, body) for path, body in bodies))
    assert found == []
    assert memory_bytes(server) - before < 64 << 20


def taken(answers):
    """Give the bodies, each at the first route of its kind, that the scripted model answered."""
    kinds = defaultdict(lambda: defaultdict(dict))
    first = {place.kind: place.path for place, _ in reversed(answers)}
    for (place, name), answer in answers.items():
        if place.path not in GENERATING or place.path != first[place.kind] or is_long(place, name):
            continue
        if name == "null":  # as good as not there
            continue
        if answer.status == 200 or "follows no grammars" in message_of(answer):
            kinds[place.kind][place][name] = place.values()[name]
    for places in kinds.values():
        for place, values in places.items():
            yield from ((place.path, place.with_value(value)) for value in values.values())
        yield from ((place.path, body) for body in together(places))


def is_long(place, name):
    """Tell whether an answer would be as long as the context, or as many as there are permits."""
    if place.where[-1] in ("n", "best_of") and name == "maximum":
        return True
    is_limit = place.where[-1] in ("parameters", "instances") or "max_" in str(place.where[-1])
    return is_limit and name in LONG


def together(places):
    """Give bodies in which each bound of a field stands beside each bound of every other field."""
    first = next(iter(places))
    items = [
        (place.where, value)
        for place, values in places.items()
        for name, value in values.items()
        if place.body == first.body and name in BOUNDS
    ]
    left = {(a, b) for a, b in itertools.combinations(items, 2) if a[0] != b[0]}
    shuffle = random.Random(1).sample
    while left:
        body = dict(min(left))
        for where, value in shuffle(items, len(items)):
            if len(body) < NUM_TOGETHER:
                body.setdefault(where, value)
        left -= {*itertools.combinations([item for item in items if item in body.items()], 2)}
        yield first.with_values(body)


def memory_bytes(server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10
