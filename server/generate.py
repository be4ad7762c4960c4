"""GenerateHandler: one request from its body to its last byte, for every dialect.

The order at the door: size and content type, body and types, permit, ranges, encoding, waiting
room. A flood is refused before anything of it is tokenised. Knows no dialect's words.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from math import ceil

from aiohttp import web

from engine import (
    Burst,
    Engine,
    EngineError,
    EngineStats,
    EngineStopped,
    InvalidGrammar,
    Overloaded,
    SamplingParams,
    TokenStream,
)
from server.body import read_body
from server.config import ServerConfig
from server.dialects.call import Call, ChatPrompt, Dialect, EncodedPrompt, Generation, Reply
from server.errors import ErrorType, Problem, from_engine, invalid, overloaded
from server.exchange import Exchange
from server.live.journal import Journal
from server.metrics import Metrics
from server.millrace_metrics import Refusal
from server.outbox import Outbox
from server.permits import Permits
from server.sse import EventStream

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ADMITTED_AT_ONCE = 1024
"""TGI admits max_new_tokens in chunks of this size; the rule of admission is kept, see `_fit`."""


class GenerateHandler:
    """Serves generations; the same steps whatever the dialect and whether streamed or not."""

    def __init__(
        self,
        engine: Engine,
        permits: Permits,
        metrics: Metrics,
        journal: Journal,
        config: ServerConfig,
    ) -> None:
        self._engine = engine
        self._permits = permits
        self._metrics = metrics
        self._journal = journal
        self._config = config
        self._outbox = Outbox()

    def route(self, dialect: Dialect) -> Handler:
        """Give the aiohttp handler that speaks this dialect."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, dialect)

        return handle

    async def _handle(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        exchange = Exchange(request, self._metrics, self._journal)
        return await answered(exchange, self._serve(request, dialect, exchange), dialect.problem)

    async def _serve(
        self, request: web.Request, dialect: Dialect, exchange: Exchange
    ) -> web.StreamResponse:
        call = dialect.parse(await read_body(request, self._config.payload_limit_bytes))
        exchange.parsed(is_stream=call.is_stream)
        if self._engine.is_draining:
            raise self._refuse(exchange, Refusal.DRAINING)
        if not self._permits.has_room(call.num_permits):
            raise self._refuse(exchange, Refusal.NO_PERMIT)
        with (
            self._permits.hold(call.num_permits),
            exchange.reading(TokenStream(is_streamed=call.is_stream)) as tokens,
        ):
            prompts = await self._submit(call, tokens, exchange)
            reply = call.reply(exchange.request_id, int(time.time()), prompts)
            headers = {**call.headers, **self._headers(exchange)}
            if call.is_stream:
                # a task of its own: each token would else wake a dozen coroutines, one in another
                stream = self._stream(request, reply, tokens, headers, exchange)
                return await asyncio.create_task(stream)
            return await self._whole(reply, tokens, headers, exchange)

    async def _submit(
        self, call: Call, tokens: TokenStream, exchange: Exchange
    ) -> list[EncodedPrompt]:
        """Check, encode and hand over every sequence that the call asks for.

        Returns what their prompts are like.
        """
        try:
            generations = call.generations()
            encoded = await self._encode_all(generations)
            ready = [await self._prepare(generation, exchange) for generation in encoded]
            await self._check_grammars(generations)
            exchange.validated()
            for index, (prompt_ids, params) in enumerate(ready):
                exchange.submitted(self._engine.submit(prompt_ids, params, tokens, index))
                self._metrics.prompt_admitted(
                    exchange.validation_s, len(prompt_ids), params.max_new_tokens
                )
            return [
                EncodedPrompt(len(prompt_ids), self._ending(generation.prompt, prompt_ids))
                for generation, (prompt_ids, _) in zip(generations, ready, strict=True)
            ]
        except Overloaded as error:
            raise self._refuse(exchange, Refusal.QUEUE_FULL) from error
        except EngineStopped as error:
            raise self._refuse(exchange, Refusal.DRAINING) from error
        except EngineError as error:
            raise from_engine(error, self._retry_after_s()) from error

    async def _check_grammars(self, generations: tuple[Generation, ...]) -> None:
        """Have each different grammar compiled; raises Problem, which names the field."""
        fields = {each.params.grammar: each.grammar_field for each in generations}
        for grammar, field in fields.items():
            if grammar is not None:
                try:
                    await self._engine.check_grammar(grammar)
                except InvalidGrammar as error:
                    raise invalid(f"`{field}` {error}", field) from error

    async def _encode_all(
        self, generations: tuple[Generation, ...]
    ) -> list[tuple[Generation, list[int]]]:
        """Encode each different prompt once: the sequences of a best_of share theirs."""
        encoded: dict[int, list[int]] = {}
        for generation in generations:
            prompt = generation.prompt
            if id(prompt) not in encoded:
                encoded[id(prompt)] = await self._encode(prompt)
        return [(generation, encoded[id(generation.prompt)]) for generation in generations]

    async def _encode(self, prompt: str | ChatPrompt | tuple[int, ...]) -> list[int]:
        match prompt:
            case str():
                return await self._engine.encode(prompt)
            case ChatPrompt():
                return await self._engine.encode_chat(prompt.chat())
            case _:
                return list(prompt)

    def _ending(self, prompt: str | ChatPrompt | tuple[int, ...], prompt_ids: list[int]) -> str:
        if not isinstance(prompt, ChatPrompt) or not prompt.is_ending_wanted:
            return ""
        return self._engine.tokenizer.ending(prompt_ids)

    async def _prepare(
        self, encoded: tuple[Generation, list[int]], exchange: Exchange
    ) -> tuple[list[int], SamplingParams]:
        """Cut the prompt as asked and settle how much may be generated."""
        generation, prompt_ids = encoded
        if generation.truncate is not None:
            prompt_ids = prompt_ids[-generation.truncate :]
        exchange.num_characters += _num_characters(generation.prompt)
        max_new_tokens = self._fit(len(prompt_ids), generation.max_new_tokens)
        return prompt_ids, replace(generation.params, max_new_tokens=max_new_tokens)

    def _fit(self, num_prompt: int, wanted: int | None) -> int:
        """Apply TGI's rule of admission, then generate exactly what was asked for, or what fits."""
        limits = self._engine.limits
        room = limits.max_total_tokens - num_prompt
        asked = min(wanted or 0, _ADMITTED_AT_ONCE)
        if asked > room:
            raise invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
                f"Given: {num_prompt} `inputs` tokens and {asked} `max_new_tokens`",
                "max_new_tokens",
            )
        if num_prompt > limits.max_input_tokens:
            raise invalid(
                f"`inputs` must have less than {limits.max_input_tokens} tokens. "
                f"Given: {num_prompt}",
                "inputs",
            )
        return room if wanted is None else min(wanted, room)

    async def _stream(
        self,
        request: web.Request,
        reply: Reply,
        tokens: TokenStream,
        headers: Mapping[str, str],
        exchange: Exchange,
    ) -> web.StreamResponse:
        with EventStream(request, tokens, headers, self._config, self._metrics) as events:
            exchange.events = events
            tokens.take_by(events.taker(reply.delta, self._outbox))
            async for burst in tokens:
                data, problem = self._render(burst, reply, exchange)
                if problem is not None:
                    if not events.is_started:
                        raise problem
                    exchange.failed(problem)
                    await events.finish(data + reply.problem(problem))
                    return events.response
                if data or not burst:
                    await events.send(data)
            exchange.finished()
            await events.finish(reply.end())
            return events.response

    async def _whole(
        self, reply: Reply, tokens: TokenStream, headers: Mapping[str, str], exchange: Exchange
    ) -> web.StreamResponse:
        async for burst in tokens:
            _, problem = self._render(burst, reply, exchange)
            if problem is not None:
                raise problem
        body = reply.end()
        exchange.finished()
        return web.Response(
            body=body,
            content_type="application/json",
            headers={**headers, **exchange.timings()},
        )

    def _render(
        self, burst: Burst, reply: Reply, exchange: Exchange
    ) -> tuple[bytes, Problem | None]:
        """Feed a burst to the reply; return its bytes, and the first failure among its ends."""
        problem = None
        parts = []
        for index, delta in burst:
            finish = delta.finish
            if finish is not None:
                exchange.add(finish)
                if finish.error is not None:
                    problem = problem or self._problem(finish.error, exchange)
                    continue
            parts.append(reply.delta(index, delta))
        return parts[0] if len(parts) == 1 else b"".join(parts), problem

    def _problem(self, error: EngineError, exchange: Exchange) -> Problem:
        if isinstance(error, Overloaded):
            return self._refuse(exchange, Refusal.QUEUE_EXPIRED)
        return from_engine(error, self._retry_after_s())

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> Problem:
        exchange.refusal = refusal
        return overloaded(self._retry_after_s())

    def _retry_after_s(self) -> int:
        return retry_after_s(self._engine.stats())

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        return {
            "x-compute-type": self._config.compute_type or self._engine.info.device,
            "x-compute-characters": str(exchange.num_characters),
        }


async def answered(
    exchange: Exchange,
    serving: Awaitable[web.StreamResponse],
    phrase: Callable[[Problem], bytes],
) -> web.StreamResponse:
    """Wait for a request's answer and close its exchange, however it ends."""
    try:
        return await serving
    except Problem as problem:
        exchange.failed(problem)
        return problem_response(phrase(problem), problem)
    except ConnectionResetError:  # raised on, aiohttp would log it with a traceback
        exchange.is_client_gone = True
        return web.Response() if exchange.events is None else exchange.events.response
    except asyncio.CancelledError:
        exchange.is_client_gone = True
        raise
    except Exception:
        logger.exception("a handler failed")
        fault = Problem(ErrorType.INTERNAL, "The server failed on this request")
        exchange.failed(fault)
        if exchange.events is not None and exchange.events.is_started:
            return exchange.events.cut()  # too late for a status; the reply may be what failed
        return problem_response(phrase(fault), fault)
    finally:
        exchange.close()


def problem_response(body: bytes, problem: Problem) -> web.Response:
    """Answer with a problem's status, before anything else was sent."""
    response = web.Response(body=body, status=problem.status, content_type="application/json")
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def retry_after_s(stats: EngineStats) -> int:
    """Estimate when a place comes free, from the rate at which sequences end; 1 to 60 s."""
    if stats.finish_rate <= 0.0:
        return 1
    return max(1, min(60, ceil((stats.num_waiting + 1) / stats.finish_rate)))


def _num_characters(prompt: str | ChatPrompt | tuple[int, ...]) -> int:
    match prompt:
        case str():
            return len(prompt)
        case ChatPrompt():
            return sum(len(str(message.get("content") or "")) for message in prompt.messages)
        case _:
            return 0
