"""run: from two configurations to a server that listens, and down again without losing a stream."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib.metadata import version

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

from engine import Engine, EngineConfig, Observer
from server.app import make_app
from server.config import ServerConfig
from server.demo_process import DemoProcess
from server.generators.generators import Generators
from server.generators.published import Published, load_published
from server.metrics import Metrics

logger = logging.getLogger(__name__)

Load = Callable[[EngineConfig, Observer], Engine]

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SEND_BUFFER_BYTES = 128 * 1024
"""Kernel memory for a reader that does not read; the default lets it hold 2.8 MB."""
_KEEP_ALIVE_S = 75.0
"""Longer than the idle time of the proxies in front, so that they close first."""
_LAG_INTERVAL_S = 0.5
_LAST_WRITES_S = 5.0
_LAST_ARRIVALS_S = 0.25
"""How long requests are taken after the port is closed: a proxy that has connected just before the
signal sends only now, and a 429 here would reach its client. Far more than a network's round."""


def run(config: ServerConfig, engine_config: EngineConfig, load: Load) -> int:
    """Serve until a signal; return the exit code.

    Raises ConfigError for a generator, LoadError for the model, and OSError for the port.
    """
    started = time.monotonic()
    published = load_published(config.generators)
    with bind(config.hostname, config.port) as listener:
        metrics = Metrics()
        engine = load(engine_config, metrics)
        _spare_the_collector()
        uvloop.run(_serve(engine, config, metrics, listener, started, published))
    return 0


def leave_at_once_on_a_signal() -> None:
    """End the process at a stop signal until there is a server, since nobody is owed anything.

    A container's first process ignores signals without a handler, and an exception raised by one
    may be caught by any library that loads just then.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda number, _: os._exit(128 + number))


def _spare_the_collector() -> None:
    """Keep Python's cycle collector from stopping the streams.

    What was loaded stays for good, and walking it would stop every stream for 0.2 s. A step of
    hundreds of streams makes thousands of objects that are no garbage: the young ones are looked
    through less often than the default of every 700, which took a sixth of a token's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def bind(hostname: str, port: int) -> socket.socket:
    """Take the address before minutes of loading; connections are refused until `listen`."""
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((hostname, port))
    except OSError:
        listener.close()
        raise
    return listener


def make_runner(app: web.Application) -> web.AppRunner:
    """Give aiohttp's runner the options of production; tests use the same."""
    server_logger.addFilter(_is_ours)
    return web.AppRunner(
        app,
        handler_cancellation=True,  # a client that leaves cancels its handler, queued or not
        keepalive_timeout=_KEEP_ALIVE_S,
        access_log=None,
        shutdown_timeout=_LAST_WRITES_S,
    )


def _is_ours(record: logging.LogRecord) -> bool:
    """Drop broken HTTP from the log: it is answered 400, and anybody could send a lot of it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


async def _serve(
    engine: Engine,
    config: ServerConfig,
    metrics: Metrics,
    listener: socket.socket,
    started: float,
    published: Mapping[str, Published],
) -> None:
    stop = _stop_signal()  # before anybody is let in
    generators = Generators(published)
    demo = DemoProcess(config) if config.is_demo else None
    async with engine:
        app = make_app(engine, config, metrics, version("millrace"), generators, demo)
        runner = make_runner(app)
        await runner.setup()
        site = web.SockSite(runner, listener, backlog=1024)
        await site.start()
        logger.info(
            "ready on http://%s:%d after %.1f s",
            *listener.getsockname()[:2],
            time.monotonic() - started,
        )
        lag = asyncio.create_task(_watch_lag(metrics), name="loop lag")
        try:
            async with nullcontext() if demo is None else demo.run(listener.getsockname()[1]):
                await stop.wait()
                logger.info("stopping: %d running", engine.stats().num_running)
                await site.stop()
                await _drain(engine, generators, config.graceful_termination_timeout_s)
        finally:
            lag.cancel()
            await runner.cleanup()
    logger.info("stopped")
    if generators.num_running:
        _leave_behind(generators)


def _leave_behind(generators: Generators) -> None:
    """End the process under generators that do not come back to a yield.

    An orderly end would wait for threads that they may have started, and a thread inside a
    library's C++ may abort it.
    """
    logger.warning("%d generators have not yielded and are left behind", generators.num_running)
    logging.shutdown()
    os._exit(0)


def _stop_signal() -> asyncio.Event:
    """Give the event of the next stop signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


async def _drain(engine: Engine, generators: Generators, timeout_s: float) -> None:
    """Let what runs finish; a second signal ends it at once."""
    drain = asyncio.create_task(_finish(engine, generators, timeout_s))
    again = asyncio.create_task(_stop_signal().wait())
    await asyncio.wait([drain, again], return_when=asyncio.FIRST_COMPLETED)
    for task in (drain, again):
        task.cancel()
    # what a second signal leaves unfinished ends with an error event
    await asyncio.gather(engine.drain(0.0), generators.drain(0.0))


async def _finish(engine: Engine, generators: Generators, timeout_s: float) -> None:
    await asyncio.sleep(_LAST_ARRIVALS_S)
    await asyncio.gather(engine.drain(timeout_s), generators.drain(timeout_s))


async def _watch_lag(metrics: Metrics) -> None:
    """Measure how late the loop wakes who wants to be woken."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        metrics.loop_lagged(max(0.0, loop.time() - due))
