"""The two servers that overhead.py compares: production's without a model, and a bare handler.

`python weightless.py millrace PORT STAMPS [RATE]` runs production's server, its engine and a real
tokenizer over a runner that answers every step at once, or at RATE tokens a second.
`python weightless.py bare PORT STAMPS` runs a handler that writes constant bytes, under the same
runner options on the same loop.
"""

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from transformers import PreTrainedTokenizerFast

import engine
from engine import (
    Batch,
    Engine,
    EngineConfig,
    Limits,
    ModelInfo,
    Observer,
    RowOutput,
    Sampled,
    StepOutput,
)
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer
from server import logs
from server.config import ServerConfig
from server.live.frames import Frames
from server.serving import bind, make_runner, run

MODEL = Path(engine.__file__).parent / "demo"
MAX_STREAMS = 2048
_MAX_TOTAL_TOKENS = 8_192
_BLOCK_SIZE = 32


class FeedMeter:
    """Sums the processor time in which the live feed's events are made."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("frame", "ended_after"):
            setattr(Frames, name, self._timed(getattr(Frames, name)))

    def _timed(self, make: Callable[..., bytes]) -> Callable[..., bytes]:
        def timed(*args: Any) -> bytes:
            begun = time.thread_time()
            try:
                return make(*args)
            finally:
                self.seconds += time.thread_time() - begun

        return timed


class ScriptedRunner:
    """Answers at once or at a rate, every row with the same token: the step's number, in `ids`.

    So each token says when it was born. The moments of all steps are written to a file at the end.
    """

    def __init__(self, ids: list[int], stamps: Path, tokens_per_s: float = math.inf) -> None:
        self._ids = ids
        self._stamps = stamps
        self._tokens_per_s = tokens_per_s
        self._born: list[float] = []

    def execute(self, batch: Batch) -> StepOutput:
        """Give every row of the step its token."""
        assert batch.step == len(self._born) + 1
        token = (Sampled(self._ids[batch.step % len(self._ids)]),)
        rows = tuple([RowOutput(w.sequence_id, token if w.is_sampled else ()) for w in batch.work])
        due = self._born[-1] + len(rows) / self._tokens_per_s if self._born else 0.0
        if (wait_s := due - time.monotonic()) > 0.0:
            time.sleep(wait_s)
        self._born.append(time.monotonic())
        return StepOutput(batch.step, rows)

    def close(self) -> None:
        """Write the moments down, that of step 1 first, and the ids that tell the steps."""
        self._stamps.write_text(json.dumps({"ids": self._ids, "born": self._born}))


def serve_millrace(port: int, stamps: Path, tokens_per_s: float = math.inf) -> int:
    """Run production's server over the scripted runner, until a signal."""
    logs.configure(is_json=False, level="info")

    def load(config: EngineConfig, observer: Observer) -> Engine:
        tokenizer = Tokenizer(PreTrainedTokenizerFast.from_pretrained(config.model))
        limits = Limits(
            num_blocks=MAX_STREAMS * _MAX_TOTAL_TOKENS // _BLOCK_SIZE,
            block_size=_BLOCK_SIZE,
            max_batch_size=MAX_STREAMS,
            max_batch_tokens=2 * MAX_STREAMS,
            max_waiting=MAX_STREAMS,
            max_waiting_tokens=config.max_waiting_tokens,
            max_queue_s=None,
            max_input_tokens=_MAX_TOTAL_TOKENS - 1,
            max_total_tokens=_MAX_TOTAL_TOKENS,
        )
        info = ModelInfo(
            model_id="scripted",
            revision=None,
            dtype="none",
            device="cpu",
            num_parameters=0,
            vocab_size=tokenizer.size,
            max_position=_MAX_TOTAL_TOKENS,
        )
        runner = ScriptedRunner(_plain_ids(tokenizer), stamps, tokens_per_s)
        return Engine(runner, Scheduler(limits, tokenizer, ()), tokenizer, info, observer)

    config = ServerConfig(
        hostname="127.0.0.1", port=port, max_concurrent_requests=MAX_STREAMS, compute_type="cpu"
    )
    meter = FeedMeter()
    code = run(config, EngineConfig(model=str(MODEL)), load)
    stamps.write_text(json.dumps({**json.loads(stamps.read_text()), "feed_s": meter.seconds}))
    return code


def serve_bare(port: int, stamps: Path) -> int:
    """Run a handler that writes as many events as it is asked for, until a signal."""

    async def handle(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())["parameters"]
        event = _event()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(asked["max_new_tokens"] - 1):
            await response.write(event)
            await asyncio.sleep(0)  # a token at a time: the other streams' come in between
        await response.write(_event(num_tokens=asked["max_new_tokens"]))
        await response.write_eof()
        return response

    async def serve() -> None:
        app = web.Application()
        app.add_routes([web.post("/generate_stream", handle)])
        runner = make_runner(app)
        await runner.setup()
        await web.SockSite(runner, bind("127.0.0.1", port), backlog=1024).start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await runner.cleanup()

    stamps.write_text("{}")
    uvloop.run(serve())
    return 0


def _event(num_tokens: int | None = None) -> bytes:
    """Give the bytes of a token's event; the last says how many there were."""
    details = "null"
    if num_tokens is not None:
        details = f'{{"generated_tokens":{num_tokens},"input_length":1}}'
    return (
        b'data: {"index":1000,"token":{"id":1000,"text":" word","logprob":null,"special":false},'
        b'"generated_text":null,"details":%b}\n\n' % details.encode()
    )


def _plain_ids(tokenizer: Tokenizer) -> list[int]:
    """List the ids that stand for whole ASCII text."""
    texts = ((token_id, tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.size))
    return [
        token_id
        for token_id, text in texts
        if text and text.isascii() and tokenizer.special_text(token_id) is None
    ]


if __name__ == "__main__":
    _, kind, port, stamps, *rate = sys.argv
    servers = {"millrace": serve_millrace, "bare": serve_bare}
    sys.exit(servers[kind](int(port), Path(stamps), *map(float, rate)))
