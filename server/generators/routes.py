"""GeneratorRoutes: one request for a published generator, from its body to its last byte.

The order at the door is that of the model's routes: body and parameters, permit, then the run.
"""

import traceback
from contextlib import ExitStack

from aiohttp import web

from engine import Engine, EngineStopped
from server.body import read_body
from server.config import ServerConfig
from server.dialects import wire
from server.errors import ErrorType, Problem, from_engine, overloaded
from server.exchange import Exchange
from server.generate import answered, retry_after_s
from server.generators.events import (
    GeneratorAnswer,
    end_event,
    error_body,
    error_event,
    value_event,
)
from server.generators.generators import Generators
from server.generators.published import Published
from server.generators.run import Run
from server.generators.step import End, Failure, Value
from server.generators.value import Unsendable
from server.live.journal import Journal
from server.metrics import Metrics
from server.millrace_metrics import Refusal
from server.permits import Permits
from server.sse import EventStream

_PART_BYTES = 1 << 16
"""A large event is written in parts, so that a reader who takes them is seen to make progress."""
_MAX_REASON = 1000
"""Characters of an exception's text that a client is shown."""


class GeneratorRoutes:
    """Serves the published generators, with the model routes' permits, streams and metrics."""

    def __init__(
        self,
        generators: Generators,
        engine: Engine,
        permits: Permits,
        metrics: Metrics,
        journal: Journal,
        config: ServerConfig,
    ) -> None:
        self._generators = generators
        self._engine = engine
        self._permits = permits
        self._metrics = metrics
        self._journal = journal
        self._config = config

    async def list(self, request: web.Request) -> web.Response:
        """Say which generators there are, and what each takes."""
        answers = [
            GeneratorAnswer(published.name, published.description, published.parameters())
            for published in self._generators.published.values()
        ]
        return web.Response(body=wire.dumps(answers), content_type="application/json")

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Run one of them, an event for each value that it yields."""
        name = request.match_info["name"]
        published = self._generators.published.get(name)
        if published is None:
            raise Problem(ErrorType.NOT_FOUND, f"There is no generator `{name}`", "name")
        exchange = Exchange(request, self._metrics, self._journal)
        return await answered(exchange, self._serve(request, published, exchange), error_body)

    async def _serve(
        self, request: web.Request, published: Published, exchange: Exchange
    ) -> web.StreamResponse:
        body = await read_body(request, self._config.payload_limit_bytes)
        exchange.parsed(is_stream=True)
        arguments = published.arguments(body)
        exchange.validated()
        if self._engine.is_draining:
            raise self._refuse(exchange, Refusal.DRAINING)
        if not self._permits.has_room(1):
            raise self._refuse(exchange, Refusal.NO_PERMIT)
        with ExitStack() as permit:
            permit.enter_context(self._permits.hold(1))
            run = self._generators.start(published, arguments, self._config.max_stall_s)
            run.holds(permit.pop_all())  # a generator that does not yield keeps it
        try:
            return await self._stream(request, run, exchange)
        finally:
            self._generators.leave(run)

    async def _stream(
        self, request: web.Request, run: Run, exchange: Exchange
    ) -> web.StreamResponse:
        exchange.num_values = 0
        with EventStream(request, run, {}, self._config, self._metrics) as events:
            exchange.events = events
            while True:
                match await run.next_step():
                    case None:
                        await events.send(b"")
                    case Value(json):
                        exchange.num_values += 1
                        await _send(events, value_event(exchange.num_values, json))
                    case End(result):
                        exchange.finished()
                        await _send(events, end_event(exchange.num_values, result))
                        await events.finish(b"")
                        return events.response
                    case Failure(error):
                        problem = self._problem(error, exchange.num_values + 1)
                        exchange.fault = error
                        if not events.is_started:
                            raise problem
                        exchange.failed(problem)
                        await events.finish(error_event(problem))
                        return events.response

    def _problem(self, error: BaseException, index: int) -> Problem:
        if isinstance(error, EngineStopped):
            return from_engine(error, retry_after_s(self._engine.stats()))
        reason = _reason(error)
        if isinstance(error, Unsendable):
            reason = f"value {index} cannot be sent: {error}"
        return Problem(ErrorType.GENERATION, f"Request failed during generation: {reason}")

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> Problem:
        exchange.refusal = refusal
        return overloaded(retry_after_s(self._engine.stats()))


async def _send(events: EventStream, data: bytes) -> None:
    for start in range(0, len(data), _PART_BYTES):
        await events.send(data[start : start + _PART_BYTES])


def _reason(error: BaseException) -> str:
    """Say what was raised, as text that can be sent, even if its own `__str__` raises."""
    text = traceback.format_exception_only(error)[0].strip()[:_MAX_REASON]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
