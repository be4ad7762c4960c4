"""EventStream: what it counts, whatever becomes of its connection."""

import pytest
from aiohttp import web
from raw_http import connect, request_bytes

from engine import TokenStream
from server.config import ServerConfig
from server.exchange import Exchange
from server.live.journal import Journal
from server.metrics import Metrics
from server.serving import bind, make_runner
from server.sse import EventStream


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

    app = web.Application()
    app.router.add_post("/", handle)
    listener = bind("127.0.0.1", 0)
    http = make_runner(app)
    await http.setup()
    await web.SockSite(http, listener).start()
    try:
        async with connect(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            await client.send(request_bytes("POST", "/", {}))
            with pytest.raises((EOFError, ConnectionError)):
                await client.read()
    finally:
        await http.cleanup()
    lines = metrics.render().decode().splitlines()
    assert was_reset
    assert "millrace_streams_open 0" in lines
    assert 'millrace_streams_ended_total{reason="client_gone"} 1' in lines
