"""make_app: every route of the server, in one table; loads no torch."""

import time
from importlib.resources import files

from aiohttp import hdrs, web

from engine import Engine
from server.config import ServerConfig
from server.demo_process import DemoProcess, no_demo
from server.dialects.bodies import MAX_CHOICES
from server.dialects.call import DialectConfig
from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.messages import MessagesDialect
from server.dialects.responses import ResponsesDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.dialects.tools.formats import has_reasoning, marks_of, tool_format
from server.generate import GenerateHandler
from server.generators.generators import Generators
from server.generators.routes import GeneratorRoutes
from server.keys import Keys
from server.live.events import EventsFeed
from server.live.frames import Frames, Watched
from server.live.journal import Journal
from server.live.why import Room
from server.metrics import Metrics, Served
from server.middleware import (
    ANTHROPIC,
    allow_origins,
    answer_preflight,
    answer_problems,
    check_keys,
)
from server.openapi import openapi_document
from server.page import PageRoutes
from server.permits import Permits
from server.status import StatusRoutes
from server.tokenize import TokenizeRoutes

PUBLIC_ROUTES = frozenset(
    (method, path)
    for method in (hdrs.METH_GET, hdrs.METH_HEAD)
    for path in (
        "/",
        "/health",
        "/ping",
        "/live",
        "/ready",
        "/info",
        "/metrics",
        "/v1/models",
        "/v1/models/{id}",
        "/docs",
        "/api-doc/openapi.json",
        "/web/{name}",
        "/generators",
        "/demo",
    )
)
"""What needs no key: health, what the server is, its documentation, and the page."""


def make_app(
    engine: Engine,
    config: ServerConfig,
    metrics: Metrics,
    version: str,
    generators: Generators,
    demo: DemoProcess | None = None,
) -> web.Application:
    """Join a running engine, and what else is published, to their routes."""
    model_id = config.served_model_name or engine.info.model_id
    dialect = dialect_config(engine, config, model_id)
    permits = Permits(config.max_concurrent_requests)
    metrics.bind(
        Served(
            version=version,
            model=engine.info,
            limits=engine.limits,
            read_engine=engine.stats,
            read_permits=lambda: (permits.num_held, permits.limit),
            read_generators=lambda: (generators.num_running, generators.num_abandoned),
        )
    )
    app = web.Application(
        client_max_size=config.payload_limit_bytes,
        middlewares=[
            answer_preflight,
            answer_problems(
                {
                    ANTHROPIC: MessagesDialect(dialect),
                    "/v1/": ChatDialect(dialect),
                    "": GenerateDialect(dialect),
                }
            ),
            check_keys(Keys(config.api_keys), PUBLIC_ROUTES),
        ],
    )
    app.on_response_prepare.append(allow_origins(config, lambda: engine.is_draining))
    journal = Journal()
    generate = GenerateHandler(engine, permits, metrics, journal, config)
    app.add_routes(_generation_routes(generate, dialect))
    published = GeneratorRoutes(generators, engine, permits, metrics, journal, config)
    app.add_routes(_generator_routes(published))
    status = StatusRoutes(engine, config, metrics, dialect, version)
    app.add_routes(_root_routes(status, config.is_web))
    app.add_routes(_status_routes(status))
    tokenize = TokenizeRoutes(engine, dialect, config.payload_limit_bytes)
    app.add_routes(_tokenize_routes(tokenize))
    document = openapi_document(dialect, version, generators.published.values())
    app.add_routes(_docs_routes(document))
    app.add_routes([web.get("/demo", demo.lead if demo is not None else no_demo)])
    if config.is_events:
        watched = _watched(engine, permits, model_id, version)
        feed = EventsFeed(Frames(watched, journal), journal, metrics, config)
        app.add_routes([web.get("/events", feed.watch, allow_head=False)])
        app.on_shutdown.append(feed.close)
    return app


def dialect_config(engine: Engine, config: ServerConfig, model_id: str) -> DialectConfig:
    """Collect what the dialects must know."""
    tokenizer = engine.tokenizer
    form = tool_format(config.tool_call_parser, tokenizer.chat_template)
    mark_ids = {mark: tokenizer.special_id(mark) for mark in marks_of(form)}
    return DialectConfig(
        model_id=model_id,
        vocab_size=engine.info.vocab_size,
        max_best_of=config.max_best_of,
        max_choices=min(MAX_CHOICES, config.max_concurrent_requests),
        max_stop_sequences=config.max_stop_sequences,
        max_top_n_tokens=config.max_top_n_tokens,
        max_client_batch_size=config.max_client_batch_size,
        max_input_tokens=engine.limits.max_input_tokens,
        max_total_tokens=engine.limits.max_total_tokens,
        is_prompt_logprobs_enabled=config.is_prompt_logprobs_enabled,
        adapters=engine.info.adapters,
        is_unknown_adapter_ignored=config.is_unknown_adapter_ignored,
        is_full_text_default=True,
        tool_format=form,
        mark_ids={mark: token_id for mark, token_id in mark_ids.items() if token_id is not None},
        has_reasoning=has_reasoning(config.reasoning_parser, tokenizer.chat_template),
    )


def _watched(engine: Engine, permits: Permits, model_id: str, version: str) -> Watched:
    """Say where the live feed finds what it shows."""
    limits = engine.limits
    return Watched(
        version=version,
        model_id=model_id,
        started_unix_s=time.time(),
        started_at=time.monotonic(),
        room=Room(max_rows=limits.max_batch_size, max_permits=permits.limit),
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        read_now=time.monotonic,
        read_engine=engine.stats,
        read_progress=engine.progress,
        read_num_permits=lambda: permits.num_held,
        read_is_draining=lambda: engine.is_draining,
    )


def _generation_routes(
    handler: GenerateHandler, config: DialectConfig
) -> list[web.AbstractRouteDef]:
    return [
        web.post("/", handler.route(CompatDialect(config))),
        web.post("/generate", handler.route(GenerateDialect(config))),
        web.post("/generate_stream", handler.route(GenerateStreamDialect(config))),
        web.post("/v1/completions", handler.route(CompletionsDialect(config))),
        web.post("/v1/chat/completions", handler.route(ChatDialect(config))),
        web.post("/v1/responses", handler.route(ResponsesDialect(config))),
        web.post("/v1/messages", handler.route(MessagesDialect(config))),
        web.post("/invocations", handler.route(InvocationsDialect(config))),
        web.post("/vertex", handler.route(VertexDialect(config))),
    ]


def _generator_routes(routes: GeneratorRoutes) -> list[web.AbstractRouteDef]:
    return [
        web.get("/generators", routes.list),
        web.post("/generators/{name}", routes.run),
    ]


def _tokenize_routes(routes: TokenizeRoutes) -> list[web.AbstractRouteDef]:
    return [
        web.post("/tokenize", routes.tokenize),
        web.post("/chat_tokenize", routes.chat_tokenize),
        web.post("/detokenize", routes.detokenize),
        web.post("/v1/messages/count_tokens", routes.count_message_tokens),
    ]


def _root_routes(status: StatusRoutes, is_web: bool) -> list[web.AbstractRouteDef]:
    if not is_web:
        return [web.get("/", status.health)]
    page = PageRoutes(status.health)
    return [web.get("/", page.root), web.get("/web/{name}", page.file)]


def _status_routes(routes: StatusRoutes) -> list[web.AbstractRouteDef]:
    return [
        web.get("/health", routes.health),
        web.get("/ping", routes.health),
        web.get("/live", routes.live),
        web.get("/ready", routes.ready),
        web.get("/info", routes.info),
        web.get("/metrics", routes.metrics),
        web.get("/v1/models", routes.models),
        web.get("/v1/models/{id:.+}", routes.model),
    ]


def _docs_routes(document: bytes) -> list[web.AbstractRouteDef]:
    page = files("server").joinpath("web/docs.html").read_bytes()

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    async def docs(request: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    return [web.get("/api-doc/openapi.json", openapi), web.get("/docs", docs)]
