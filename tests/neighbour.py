"""A client beside a test, who must not notice what the test does."""

import asyncio
from contextlib import asynccontextmanager

from raw_http import asking
from streams import check

PATH = "/generate_stream"
BODY = {
    "inputs": "Once upon a time",
    "parameters": {"max_new_tokens": 60, "ignore_eos": True, "details": True},
}


@asynccontextmanager
async def neighbour(server):
    """Stream beside the test again and again, and see each time what it says alone."""

    async def text():
        async with asking(server.url, PATH, BODY) as connection:
            return check(PATH, (await connection.read()).body).token_ids

    alone = await text()
    is_over = asyncio.Event()

    async def go_on():
        while not is_over.is_set():
            assert await text() == alone

    async with asyncio.TaskGroup() as group:
        group.create_task(go_on())
        try:
            yield
        finally:
            is_over.set()
