"""OpenVINO GenAI's continuous batching behind OpenAI's completions route: streams, greedy, no more.

    python openvino_server.py MODEL PORT

Needs openvino-genai, tokenizers, aiohttp and uvloop, none of ours. The pipeline holds the
interpreter while it steps, so it has a process of its own and sends a message a step; this one
renders and writes.
"""

import asyncio
import itertools
import json
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy
import openvino
import openvino_genai
import uvloop
from aiohttp import web
from tokenizers import Tokenizer

_CACHE_GB = 2
_MAX_BATCH_SIZE = 64
_MAX_HELD = 4
"""Tokens that one character may take; what is no text after so many is sent as it is."""

Message = tuple[int, list[int], bool]
"""Of which request, its new tokens, and whether these were the last."""


class Pipeline:
    """The pipeline and the requests it works on, in the process that computes."""

    def __init__(self, model_dir: str, connection: Connection) -> None:
        scheduling = openvino_genai.SchedulerConfig()
        scheduling.cache_size = _CACHE_GB
        scheduling.max_num_seqs = _MAX_BATCH_SIZE
        scheduling.dynamic_split_fuse = True
        scheduling.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model_dir, scheduling, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}, {}, {}
        )
        self._connection = connection
        self._running: dict[int, Any] = {}

    def run(self) -> None:
        """Say that it is ready, then compute what comes, for ever."""
        self._connection.send([])
        while True:
            while not self._running or self._connection.poll():
                self._add(*self._connection.recv())
            self._pipeline.step()
            if messages := list(filter(None, map(self._read, list(self._running)))):
                self._connection.send(messages)

    def _add(self, number: int, token_ids: list[int], max_new_tokens: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = max_new_tokens, True, False
        prompt = openvino.Tensor(numpy.array([token_ids], dtype=numpy.int64))
        self._running[number] = self._pipeline.add_request(number, prompt, config)

    def _read(self, number: int) -> Message | None:
        handle = self._running[number]
        token_ids: list[int] = []
        while handle.can_read():
            for output in handle.read().values():
                token_ids += output.generated_ids
        is_last = handle.get_status() != openvino_genai.GenerationStatus.RUNNING
        if is_last:
            del self._running[number]
        return (number, token_ids, is_last) if token_ids or is_last else None


class Glue:
    """The HTTP side: each request has a queue that the reading thread fills."""

    def __init__(self, tokenizer: Tokenizer, connection: Connection) -> None:
        self._tokenizer = tokenizer
        self._connection = connection
        self._numbers = itertools.count()
        self._queues: dict[int, asyncio.Queue[tuple[list[int], bool]]] = {}

    async def read(self, app: web.Application) -> None:
        """Take messages from the pipeline in a thread of its own."""
        loop = asyncio.get_running_loop()
        Thread(target=self._read, args=(loop.call_soon_threadsafe,), daemon=True).start()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/completions."""
        asked = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        token_ids = self._tokenizer.encode(asked["prompt"]).ids
        num_tokens = 0
        async for new_ids, text in self._texts(token_ids, asked["max_tokens"]):
            num_tokens += len(new_ids)
            chunk = {"choices": [{"index": 0, "text": text, "finish_reason": None}]}
            await response.write(b"data: %b\n\n" % json.dumps(chunk).encode())
        usage = {"prompt_tokens": len(token_ids), "completion_tokens": num_tokens}
        last = json.dumps({"choices": [], "usage": usage}).encode()
        await response.write(b"data: %b\n\ndata: [DONE]\n\n" % last)
        return response

    async def _texts(
        self, token_ids: list[int], max_new_tokens: int
    ) -> AsyncIterator[tuple[list[int], str]]:
        """Give the new tokens as text; those within a character wait for its end."""
        number, queue = next(self._numbers), asyncio.Queue[tuple[list[int], bool]]()
        self._queues[number] = queue
        self._connection.send((number, token_ids, max_new_tokens))
        held: list[int] = []
        is_last = False
        while not is_last:
            new_ids, is_last = await queue.get()
            held += new_ids
            text = self._tokenizer.decode(held)
            if held and (is_last or len(held) >= _MAX_HELD or not text.endswith("\ufffd")):
                yield held, text
                held = []
        del self._queues[number]

    def _read(self, call_soon: Callable[..., object]) -> None:
        while True:
            call_soon(self._share, self._connection.recv())

    def _share(self, messages: list[Message]) -> None:
        for number, token_ids, is_last in messages:
            self._queues[number].put_nowait((token_ids, is_last))


def compute(model_dir: str, connection: Connection) -> None:
    """Be the process that computes."""
    Pipeline(model_dir, connection).run()


async def say_well(request: web.Request) -> web.Response:
    """Answer GET /health."""
    return web.Response()


def main() -> None:
    model_dir, port = sys.argv[1], int(sys.argv[2])
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    processes.Process(target=compute, args=(model_dir, theirs), daemon=True).start()
    theirs.close()  # so that a pipeline that died is seen
    ours.recv()
    glue = Glue(Tokenizer.from_file(str(Path(model_dir) / "tokenizer.json")), ours)
    app = web.Application()
    app.add_routes([web.get("/health", say_well), web.post("/v1/completions", glue.complete)])
    app.on_startup.append(glue.read)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, loop=loop)


if __name__ == "__main__":
    main()
