"""StatusRoutes: what the server says of itself; nothing here touches the model.

`/live` answers as long as the event loop turns, `/ready` tells whether a request would be taken,
`/health` is TGI's: is the engine in order.
"""

from aiohttp import web

from engine import Engine
from server.config import ServerConfig
from server.dialects import wire
from server.dialects.adapters import missing
from server.dialects.answers import Info, Model, ModelList
from server.dialects.call import DialectConfig
from server.errors import ErrorType, Problem
from server.metrics import Metrics

_TGI_VERSION = "3.3.6"
"""What is said to clients that compare TGI's version: the contract this server keeps."""


class StatusRoutes:
    """Answers from what the engine and the configuration already know."""

    def __init__(
        self,
        engine: Engine,
        config: ServerConfig,
        metrics: Metrics,
        dialect: DialectConfig,
        version: str,
    ) -> None:
        self._engine = engine
        self._config = config
        self._metrics = metrics
        self._dialect = dialect
        self._version = version

    async def health(self, request: web.Request) -> web.Response:
        """Say whether the engine is in order, with an empty body when it is."""
        if self._engine.is_healthy:
            return web.Response()
        raise Problem(ErrorType.HEALTHCHECK, "unhealthy")

    async def live(self, request: web.Request) -> web.Response:
        """Say that the event loop turns."""
        return web.Response()

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether a request would be taken now; `?draining=404` for proxies that need it."""
        if self._engine.is_draining:
            status = 404 if request.query.get("draining") == "404" else 503
            raise Problem(ErrorType.HEALTHCHECK, "draining", status_override=status)
        if not self._engine.is_healthy:
            raise Problem(ErrorType.HEALTHCHECK, "unhealthy")
        return web.Response()

    async def info(self, request: web.Request) -> web.Response:
        """Describe model and limits: TGI 3's fields, those of its older versions, and ours."""
        config, limits, model = self._config, self._engine.limits, self._engine.info
        stats = self._engine.stats()
        return _json(
            Info(
                model_id=self._dialect.model_id,
                model_sha=model.revision,
                model_dtype=f"torch.{model.dtype}",
                model_device_type=model.device,
                model_pipeline_tag="text-generation",
                max_concurrent_requests=config.max_concurrent_requests,
                max_best_of=config.max_best_of,
                max_stop_sequences=config.max_stop_sequences,
                max_input_tokens=limits.max_input_tokens,
                max_input_length=limits.max_input_tokens,
                max_total_tokens=limits.max_total_tokens,
                waiting_served_ratio=0.0,
                max_batch_total_tokens=limits.num_blocks * limits.block_size,
                max_waiting_tokens=0,
                max_batch_size=limits.max_batch_size,
                validation_workers=self._engine.num_tokenizer_workers,
                max_client_batch_size=config.max_client_batch_size,
                router="text-generation-router",
                version=_TGI_VERSION,
                sha=None,
                docker_label=None,
                server="millrace",
                server_version=self._version,
                num_running=stats.num_running,
                num_waiting=stats.num_waiting,
                max_queue_size=limits.max_waiting,
                adapters=list(model.adapters),
            )
        )

    async def models(self, request: web.Request) -> web.Response:
        """List the model and its adapters, as OpenAI does."""
        return _json(ModelList(object="list", data=self._models()))

    async def model(self, request: web.Request) -> web.Response:
        """Describe a model or an adapter by its name; other names are not found."""
        name = request.match_info["id"]
        found = next((model for model in self._models() if model.id == name), None)
        if found is None:
            raise missing(self._dialect, name)
        return _json(found)

    async def metrics(self, request: web.Request) -> web.Response:
        """Give the scrape."""
        return web.Response(body=self._metrics.render(), content_type="text/plain", charset="utf-8")

    def _models(self) -> list[Model]:
        base = self._dialect.model_id
        return [
            Model(id=base, object="model", created=0, owned_by=base),
            *(
                Model(id=name, object="model", created=0, owned_by=base, parent=base)
                for name in self._dialect.adapters
            ),
        ]


def _json(value: object) -> web.Response:
    return web.Response(body=wire.dumps(value), content_type="application/json")
