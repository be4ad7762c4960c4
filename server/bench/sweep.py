"""A sweep: finds out whom it measures, then puts the load on, one concurrency after the other.

Each level is handed over as soon as it is measured, so that one that is stopped keeps the earlier.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from server.bench.live_view import LiveView
from server.bench.plan import Plan
from server.bench.progress import Progress
from server.bench.result import Level, ServerFacts, level_of
from server.client.asking import dialect_of
from server.client.client import Client
from server.client.failure import Failure
from server.loadgen import Target, record, warm_up
from server.question import Question
from server.recording import Recording


async def find_server(plan: Plan) -> tuple[ServerFacts, Question]:
    """Ask the server who it is, and settle what it will be asked; raises Failure."""
    async with Client(plan.url, plan.key) as client:
        told = None if client.is_openai else await client.get("/info")
        info = told if isinstance(told, dict) else {}
        model = plan.model or info.get("model_id") or await client.model()
    facts = ServerFacts(
        url=plan.url,
        model=model,
        device=info.get("model_device_type"),
        dtype=info.get("model_dtype"),
        version=_version(info),
    )
    dialect = plan.dialect or dialect_of(told)
    return facts, replace(plan.question, dialect=dialect, model=model)


async def run_levels(
    target: Target,
    plan: Plan,
    question: Question,
    view: LiveView,
    found: Callable[[Level], None],
) -> None:
    """Warm up, then run level after level; raises Failure when the first answer is none."""
    warmed = await warm_up(target, plan.load(question, 0))
    if warmed.num_failed:
        raise Failure(f"the first request failed: {next(iter(warmed.errors))}")
    for number, num_clients in enumerate(plan.num_clients):
        load = plan.load(question, number)
        recordings: list[Recording] = []
        progress = Progress(load.num_requests, recordings, time.monotonic())
        async with view.watching(f"{num_clients} client" + "s" * (num_clients != 1), progress):
            outcomes, use = await record(target, load, recordings=recordings)
        found(level_of(num_clients, outcomes, use, question.num_output_tokens))


def _version(info: dict[str, object]) -> str | None:
    name, version = info.get("server", "TGI"), info.get("server_version", info.get("version"))
    return None if version is None else f"{name} {version}"
