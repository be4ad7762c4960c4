"""make_app: every route of the server, in one table; loads no torch."""

from importlib.resources import files

from aiohttp import hdrs, web

from engine import Engine
from server.config import ServerConfig
from server.dialects.call import DialectConfig
from server.dialects.chat import ChatDialect
from server.dialects.cloud import InvocationsDialect, VertexDialect
from server.dialects.completions import CompletionsDialect
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.generate import GenerateHandler
from server.keys import Keys
from server.metrics import Metrics, Served
from server.middleware import allow_origins, answer_preflight, answer_problems, check_keys
from server.openapi import openapi_document
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
    )
)
"""What needs no key: health, what the server is, and its documentation."""


def make_app(
    engine: Engine, config: ServerConfig, metrics: Metrics, version: str
) -> web.Application:
    """Join a running engine to its routes."""
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
        )
    )
    app = web.Application(
        client_max_size=config.payload_limit_bytes,
        middlewares=[
            answer_preflight,
            answer_problems(GenerateDialect(dialect), ChatDialect(dialect)),
            check_keys(Keys(config.api_keys), PUBLIC_ROUTES),
        ],
    )
    app.on_response_prepare.append(allow_origins(config, lambda: engine.is_draining))
    generate = GenerateHandler(engine, permits, metrics, config)
    app.add_routes(_generation_routes(generate, dialect))
    app.add_routes(_status_routes(StatusRoutes(engine, config, metrics, model_id, version)))
    app.add_routes(_tokenize_routes(TokenizeRoutes(engine, config.payload_limit_bytes)))
    app.add_routes(_docs_routes(dialect, version))
    return app


def dialect_config(engine: Engine, config: ServerConfig, model_id: str) -> DialectConfig:
    """Collect what the dialects must know."""
    return DialectConfig(
        model_id=model_id,
        vocab_size=engine.info.vocab_size,
        max_best_of=config.max_best_of,
        max_stop_sequences=config.max_stop_sequences,
        max_top_n_tokens=config.max_top_n_tokens,
        max_client_batch_size=config.max_client_batch_size,
        max_input_tokens=engine.limits.max_input_tokens,
        max_total_tokens=engine.limits.max_total_tokens,
        is_prompt_logprobs_enabled=config.is_prompt_logprobs_enabled,
        is_full_text_default=True,
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
        web.post("/invocations", handler.route(InvocationsDialect(config))),
        web.post("/vertex", handler.route(VertexDialect(config))),
    ]


def _tokenize_routes(routes: TokenizeRoutes) -> list[web.AbstractRouteDef]:
    return [
        web.post("/tokenize", routes.tokenize),
        web.post("/chat_tokenize", routes.chat_tokenize),
    ]


def _status_routes(routes: StatusRoutes) -> list[web.AbstractRouteDef]:
    return [
        web.get("/", routes.health),
        web.get("/health", routes.health),
        web.get("/ping", routes.health),
        web.get("/live", routes.live),
        web.get("/ready", routes.ready),
        web.get("/info", routes.info),
        web.get("/metrics", routes.metrics),
        web.get("/v1/models", routes.models),
        web.get("/v1/models/{id:.+}", routes.model),
    ]


def _docs_routes(config: DialectConfig, version: str) -> list[web.AbstractRouteDef]:
    document = openapi_document(config, version)
    page = files("server").joinpath("web/docs.html").read_bytes()

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    async def docs(request: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    return [web.get("/api-doc/openapi.json", openapi), web.get("/docs", docs)]
