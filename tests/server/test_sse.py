"""EventStream: what it counts, whatever becomes of its connection."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from fakes import FakeClock
from in_process import in_process
from occupancy import wait_for
from raw_http import call, connect, request_bytes
from streams import check

from engine import Delta, TokenStream
from server.config import ServerConfig
from server.exchange import Exchange
from server.live.journal import Journal
from server.metrics import Metrics
from server.outbox import Outbox
from server.serving import bind, make_runner
from server.sse import EventStream


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_every_byte_of_a_stream_comes_in_its_framing_and_is_counted(version):
    async with in_process() as server:
        body = {"inputs": "abc", "parameters": {"max_new_tokens": 300, "ignore_eos": True}}
        answer = await call(server.url, "POST", "/generate_stream", body, version=version)
        assert ("transfer-encoding" in answer.headers) == (version == "1.1")
        assert check("/generate_stream", answer.body).text == "abc" * 100
        await wait_for(lambda: server.metric("millrace_streams_ended_total") == 1)
        assert server.metric("millrace_sent_bytes_total") == len(answer.body)


class Feed:
    """Counts how often the writer is to be woken."""

    num_pending = num_nudges = 0

    def nudge(self):
        self.num_nudges += 1


class Clockwork:
    """What an EventStream asks of its loop, with a clock that the test moves."""

    def __init__(self):
        self.time = FakeClock()
        self.call_later = asyncio.get_running_loop().call_later


@asynccontextmanager
async def serving(handle):
    """Serve one route with production's options; give its address."""
    app = web.Application()
    app.router.add_post("/", handle)
    listener = bind("127.0.0.1", 0)
    http = make_runner(app)
    await http.setup()
    await web.SockSite(http, listener).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await http.cleanup()


async def test_what_leaves_by_the_taker_breaks_the_silence():
    feed, nudges = Feed(), []

    async def handle(request: web.Request) -> web.StreamResponse:
        config = ServerConfig(keep_alive_s=15.0)
        with EventStream(request, feed, {}, config, Metrics()) as events:
            events._loop = Clockwork()
            take = events.taker(lambda index, delta: b"data:2\n\n", Outbox())
            assert not take(0, Delta(())), "taken before the headers"
            await events.send(b"data:1\n\n")
            for wait_s in (10.0, 10.0, 6.0):
                events._loop.time.advance(wait_s)
                events._timer.cancel()
                events._tick()
                nudges.append(feed.num_nudges)
                if len(nudges) == 1:
                    assert take(0, Delta(()))
            await events.finish(b"")
            return events.response

    async with serving(handle) as url:
        answer = await call(url, "POST", "/", {})
    assert answer.body == b"data:1\n\ndata:2\n\n"
    assert nudges == [0, 0, 1]


async def test_a_stream_whose_headers_meet_a_closed_connection_is_opened_and_ended_once():
    metrics = Metrics()
    config = ServerConfig()
    was_reset = []

    async def handle(request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, metrics, Journal())
        with (
            TokenStream(is_streamed=True) as tokens,
            EventStream(request, tokens, {}, config, metrics) as events,
        ):
            exchange.events = events
            request.transport.abort()
            with pytest.raises(ConnectionResetError):
                await events.send(b"data:1\n\n")
            was_reset.append(True)
            exchange.close()
            return events.response

    async with serving(handle) as url, connect(url) as client:
        await client.send(request_bytes("POST", "/", {}))
        with pytest.raises((EOFError, ConnectionError)):
            await client.read()
    lines = metrics.render().decode().splitlines()
    assert was_reset
    assert "millrace_streams_open 0" in lines
    assert 'millrace_streams_ended_total{reason="client_gone"} 1' in lines
