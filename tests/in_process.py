"""A server in this process, with production's routes and runner options, over a scripted model.

For what a real model does not do on demand: fail, hang in the middle of a step, talk for ever.
"""

import asyncio
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web
from blockbuster import blockbuster_ctx
from fakes import ScriptedRunner
from nursery import quick_chats
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine import Engine
from engine.config import Limits, ModelInfo
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer
from server.app import make_app
from server.config import ServerConfig
from server.generators.generators import Generators
from server.generators.published import load_published
from server.metrics import Metrics
from server.serving import bind, make_runner

EOS = 256
"""One more than the bytes, which are the other ids."""
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"

_INFO = ModelInfo(
    model_id="scripted",
    revision=None,
    dtype="float32",
    device="cpu",
    num_parameters=1,
    vocab_size=257,
    max_position=100_000,
)
_LIMITS = {
    "num_blocks": 8192,
    "block_size": 32,
    "max_batch_size": 4,
    "max_batch_tokens": 512,
    "max_waiting": 64,
    "max_waiting_tokens": 100_000,
    "max_queue_s": None,
    "max_input_tokens": 99_999,
    "max_total_tokens": 100_000,
}


@dataclass
class InProcess:
    """A running server and what is behind it."""

    url: str
    app: web.Application
    engine: Engine
    runner: ScriptedRunner
    metrics: Metrics
    _http: web.AppRunner

    @property
    def transports(self) -> list[asyncio.Transport]:
        """List the server's ends of the open connections."""
        return [protocol.transport for protocol in self._http.server.connections]

    def metric(self, name: str, **labels: str) -> float:
        """Sum the samples of a metric whose labels include these."""
        total = 0.0
        for line in self.metrics.render().decode().splitlines():
            sample, _, value = line.rpartition(" ")
            wanted = all(f'{label}="{text}"' in sample for label, text in labels.items())
            if sample.partition("{")[0] == name and wanted:
                total += float(value)
        return total

    def held(self) -> dict[str, float]:
        """Say what requests hold; all of it is 0 when nobody is served."""
        names = (
            "millrace_permits_held",
            "millrace_generators_running",
            "millrace_queue_depth",
            "millrace_requests_running",
            "millrace_kv_cache_blocks_used",
            "millrace_streams_open",
            "tgi_batch_current_size",
            "tgi_queue_size",
        )
        return {name: self.metric(name) for name in names}


def byte_tokenizer(template: str = TEMPLATE) -> Tokenizer:
    """Give a tokenizer whose ids are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    fast.chat_template = template
    return Tokenizer(fast)


@asynccontextmanager
async def in_process(scripts=None, *, limits=None, port=0, template=TEMPLATE, **config):
    """Start a server whose model says `scripts`; by default it repeats the prompt."""
    config = ServerConfig(hostname="127.0.0.1", port=port, **config)
    metrics = Metrics()
    runner = ScriptedRunner(scripts or repeat_prompt)
    listener = bind(config.hostname, config.port)
    async with _engine(runner, metrics, limits, template) as engine:
        app = _app(engine, config, metrics)
        http = make_runner(app)
        await http.setup()
        await web.SockSite(http, listener).start()
        port = listener.getsockname()[1]
        try:
            with quick_chats(), _no_blocking_calls():
                yield InProcess(f"http://127.0.0.1:{port}", app, engine, runner, metrics, http)
        finally:
            runner.gate.set()
            await http.cleanup()


def post_routes() -> list[tuple[str, bool]]:
    """List the paths that the app takes bodies at, each with whether it generates."""
    metrics = Metrics()
    app = _app(_engine(ScriptedRunner(), metrics), ServerConfig(), metrics)
    return [
        (route.resource.canonical, route.handler.__qualname__.startswith("GenerateHandler."))
        for route in app.router.routes()
        if route.method == "POST"
    ]


def _engine(runner, metrics, limits=None, template=TEMPLATE) -> Engine:
    tokenizer = byte_tokenizer(template)
    scheduler = Scheduler(Limits(**{**_LIMITS, **(limits or {})}), tokenizer, [EOS])
    return Engine(runner, scheduler, tokenizer, _INFO, metrics)


def _app(engine, config, metrics) -> web.Application:
    generators = Generators(load_published(config.generators))
    return make_app(engine, config, metrics, "test", generators)


@contextmanager
def _no_blocking_calls():
    """Let a call of ours that blocks the event loop fail."""
    with blockbuster_ctx(["server", "engine"]) as guard:
        for function in guard.functions.values():
            function.can_block_in("server/metrics.py", {"render"})  # it reads /proc, not a disk
        yield


def repeat_prompt(row) -> int:
    """Say the prompt again and again, a token a step."""
    return row.token_ids[row.num_output % row.num_prompt]


def repeat_slowly(row) -> int:
    """Say it so that much is still to come when something of it is seen."""
    time.sleep(0.01)
    return repeat_prompt(row)
