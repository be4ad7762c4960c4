"""Outbox: everything posted is written once and in order, together and soon."""

import asyncio

from server.outbox import Outbox


class Line:
    """A transport that keeps what is written; all of a test's lines share one list."""

    def __init__(self, written, *, is_closing=False):
        self.written = written
        self._is_closing = is_closing

    def write(self, data):
        self.written.append((self, data))

    def is_closing(self):
        return self._is_closing


async def test_what_is_posted_is_written_at_the_next_turn_and_in_order():
    outbox, written = Outbox(), []
    one, two = Line(written), Line(written)
    posts = [(one, b"a"), (two, b"b"), (one, b"c")]
    for line, data in posts:
        outbox.post(line, data)
    assert written == []
    await asyncio.sleep(0)
    assert written == posts
    outbox.post(two, b"d")
    await asyncio.sleep(0)
    assert written == [*posts, (two, b"d")]


async def test_what_is_posted_first_is_written_before_who_is_woken_next_writes():
    outbox, written = Outbox(), []
    line = Line(written)
    outbox.post(line, b"a")
    asyncio.get_running_loop().call_soon(line.write, b"b")
    await asyncio.sleep(0)
    assert [data for _, data in written] == [b"a", b"b"]


async def test_many_posts_do_not_wait_for_the_last_of_them():
    outbox, written = Outbox(), []
    posts = [(Line(written), bytes([number])) for number in range(200)]
    for line, data in posts:
        outbox.post(line, data)
    assert 100 < len(written) < 200
    await asyncio.sleep(0)
    assert written == posts


async def test_a_line_that_closes_is_left_out_and_the_others_are_not():
    outbox, written = Outbox(), []
    gone, here = Line(written, is_closing=True), Line(written)
    outbox.post(gone, b"a")
    outbox.post(here, b"b")
    await asyncio.sleep(0)
    assert written == [(here, b"b")]
