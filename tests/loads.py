"""Servers that answer a load generator as they are told to, and their events."""

import asyncio
import json
from contextlib import asynccontextmanager

from aiohttp import web

from server.cpu import CpuUse
from server.loadgen import Target, ask
from server.question import Dialect, Question
from server.serving import make_runner

TIMEOUT_S = 60.0
NO_CPU = CpuUse(wall_s=2.0, own_s=0.1, server_s=None, other_s=1.0)


@asynccontextmanager
async def serving(*handlers):
    """Answer the requests with these handlers in turn, the last of them for all others."""
    todo = list(handlers)

    async def handle(request):
        handler = todo.pop(0) if len(todo) > 1 else todo[0]
        return await handler(request)

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", handle)])
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Target("127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


def streaming(*writes, end=True):
    """Give a handler that makes these writes one after another; without `end` it is cut off."""

    async def handle(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for write in writes:
            await response.write(write)
            await asyncio.sleep(0)
        if end:
            await response.write_eof()
        else:
            request.transport.abort()
        return response

    return handle


def status(number, text="no"):
    async def handle(request):
        return web.Response(status=number, text=text)

    return handle


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def native(count, claimed=None, has_details=True):
    """TGI's events for so many tokens, and what the last one claims there were."""
    events = [
        event({"index": i + 1, "token": {"id": i, "text": "x"}, "details": None})
        for i in range(count)
    ]
    details = {"generated_tokens": count if claimed is None else claimed, "input_length": 7}
    last = {"token": {"id": 0, "text": "x"}, "details": details if has_details else None}
    return [*events[:-1], event(last)]


DONE = b"data: [DONE]\n\n"


def usage(count):
    return event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}})


def completions(*texts):
    return [event({"choices": [{"index": 0, "text": text}]}) for text in texts]


def chat(*texts):
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return [*chunks, event({"choices": [{"delta": {}, "finish_reason": "length"}]})]


def question(dialect=Dialect.TGI, num_output_tokens=4, **options):
    return Question(
        dialect=dialect, num_prompt_words=3, num_output_tokens=num_output_tokens, **options
    )


async def outcome_of(handler, asked):
    async with serving(handler) as target:
        body = asked.body("a b c")
        return asked.outcome(await ask(target, target.request(asked.dialect, body), TIMEOUT_S))
