import asyncio

import pytest

from engine.errors import GenerationFailed
from engine.outputs import Delta, Finish, FinishReason, Token, Usage
from engine.stream import TokenStream

USAGE = Usage(1, 0, 1, 0.0, 0.0, None)


def gain(text="x"):
    return Delta((Token(120, text, text, False),))


def end(reason=FinishReason.LENGTH, error=None, text=""):
    tokens = (Token(120, text, text, False),) if text else ()
    return Delta(tokens, Finish(reason, text, USAGE, error=error))


FAILED = end(FinishReason.ERROR, GenerationFailed("no"))


def opened(*indexes, is_streamed=True):
    """Make a stream of these sequences; it notes in `aborted` which it aborts."""
    stream = TokenStream(is_streamed=is_streamed)
    aborted = []
    for index in indexes or (0,):
        stream.open(index, lambda index=index: aborted.append(index))
    return stream, aborted


async def waiting(stream):
    """Start a reader and let it come to its wait."""
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not reader.done()
    return reader


async def test_all_that_came_while_the_reader_was_busy_is_one_burst():
    stream, _ = opened()
    one, two, three = gain("a"), gain("b"), end()
    for delta in (one, two, three):
        stream.put(0, delta)
    assert await anext(stream) == [(0, one), (0, two), (0, three)]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_waiting_reader_is_woken_once_for_a_whole_step():
    stream, _ = opened(0, 1)
    reader = await waiting(stream)
    one, two = gain("a"), gain("b")
    stream.put(0, one)
    stream.put(1, two)
    assert await reader == [(0, one), (1, two)]


async def test_iterating_gives_every_delta_once_and_in_order_and_ends():
    stream, aborted = opened()
    sent = [gain(char) for char in "abcdef"] + [end()]

    async def write():
        for number, delta in enumerate(sent):
            stream.put(0, delta)
            for _ in range(number % 3):
                await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    bursts = [burst async for burst in stream]
    await writer
    assert [delta for burst in bursts for _, delta in burst] == sent
    assert 1 < len(bursts) < len(sent)
    assert all(bursts)
    assert aborted == []


async def test_the_iteration_ends_after_every_sequences_finish():
    stream, _ = opened(0, 1)
    stream.put(1, end())
    assert [index for index, _ in await anext(stream)] == [1]
    reader = await waiting(stream)
    stream.put(0, end())
    assert [index for index, _ in await reader] == [0]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_of_no_sequences_is_over():
    assert [burst async for burst in TokenStream()] == []


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_nudge_is_an_empty_burst(is_streamed):
    stream, _ = opened(is_streamed=is_streamed)
    reader = await waiting(stream)
    stream.nudge()
    assert await reader == []
    await_more = await waiting(stream)
    stream.put(0, end())
    assert len(await await_more) == 1


async def test_a_nudge_is_lost_in_a_burst():
    stream, _ = opened()
    stream.nudge()
    stream.put(0, gain())
    assert len(await anext(stream)) == 1
    reader = await waiting(stream)
    stream.put(0, end())
    await reader


async def test_a_nudge_hands_a_reader_that_does_not_stream_nothing_early():
    stream, _ = opened(is_streamed=False)
    one, two = gain("a"), end()
    stream.put(0, one)
    stream.nudge()
    assert await anext(stream) == []
    stream.put(0, two)
    assert await anext(stream) == [(0, one), (0, two)]


async def test_a_nudge_before_the_reader_comes_is_kept_once():
    stream, _ = opened()
    stream.nudge()
    stream.nudge()
    assert await anext(stream) == []
    (await waiting(stream)).cancel()


async def test_a_reader_that_does_not_stream_gets_one_burst_when_all_have_finished():
    stream, _ = opened(0, 1, is_streamed=False)
    reader = await waiting(stream)
    for index, delta in ((0, gain()), (1, gain()), (0, end()), (1, gain())):
        stream.put(index, delta)
        await asyncio.sleep(0)
        assert not reader.done()
    stream.put(1, end())
    assert [index for index, _ in await reader] == [0, 1, 0, 1, 1]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_reader_that_does_not_stream_hears_of_the_first_failure_at_once():
    stream, aborted = opened(0, 1, is_streamed=False)
    with stream:
        reader = await waiting(stream)
        stream.put(0, gain())
        stream.put(1, FAILED)
        assert (await reader)[-1] == (1, FAILED)
    assert aborted == [0]


async def test_an_abort_is_no_failure():
    stream, _ = opened(0, 1, is_streamed=False)
    reader = await waiting(stream)
    stream.put(0, end(FinishReason.ABORT))
    await asyncio.sleep(0)
    assert not reader.done()
    stream.put(1, end())
    assert len(await reader) == 2


async def test_closing_aborts_what_has_not_finished_and_only_once():
    stream, aborted = opened(0, 1, 2)
    stream.put(1, end())
    with stream:
        pass
    assert aborted == [0, 2]
    stream.close()
    assert aborted == [0, 2]


async def test_leaving_by_an_exception_aborts_too_and_lets_it_through():
    stream, aborted = opened()
    with pytest.raises(ConnectionResetError), stream:
        raise ConnectionResetError
    assert aborted == [0]


async def test_closing_after_every_finish_aborts_nothing():
    stream, aborted = opened()
    with stream:
        stream.put(0, end())
    assert aborted == []


async def test_a_cancelled_reader_aborts_and_loses_nothing_it_could_still_read():
    stream, aborted = opened()

    async def read():
        with stream:
            await anext(stream)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert aborted == [0]


async def test_a_burst_that_came_with_the_cancellation_is_kept():
    stream, _ = opened()
    reader = await waiting(stream)
    delta = gain()
    stream.put(0, delta)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await anext(stream) == [(0, delta)]


async def test_a_timed_out_wait_leaves_the_stream_usable():
    stream, _ = opened()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(stream)
    stream.put(0, gain())
    assert len(await anext(stream)) == 1


async def test_tokens_that_wait_are_counted():
    stream, _ = opened(0, 1)
    assert stream.num_pending == 0
    stream.put(0, gain())
    stream.put(1, gain())
    assert stream.num_pending == 2
    await anext(stream)
    assert stream.num_pending == 0
    stream.put(0, end(text="f"))
    stream.put(1, end())
    assert stream.num_pending == 1


async def test_a_nudge_leaves_what_waits_for_a_reader_that_does_not_stream():
    stream, _ = opened(is_streamed=False)
    stream.put(0, gain())
    stream.nudge()
    await anext(stream)
    assert stream.num_pending == 1


async def test_many_sequences_go_through_one_stream():
    indexes = list(range(200))
    stream, aborted = opened(*indexes)
    for index in indexes:
        stream.put(index, gain())
    assert [index for index, _ in await anext(stream)] == indexes
    for index in reversed(indexes):
        stream.put(index, end())
    assert len(await anext(stream)) == 200
    assert [burst async for burst in stream] == []
    assert aborted == []


# -- the taker


def taking(stream, *, takes=True):
    """Give the stream a taker; it notes what it is offered."""
    offered = []

    def take(index, delta):
        offered.append((index, delta))
        return takes

    stream.take_by(take)
    return offered


async def test_what_finds_the_reader_waiting_is_taken_without_waking_it():
    stream, _ = opened(0, 1)
    offered = taking(stream)
    reader = await waiting(stream)
    one, two, last = gain("a"), gain("b"), end()
    stream.put(0, one)
    stream.put(1, two)
    await asyncio.sleep(0)
    assert not reader.done()
    assert (offered, stream.num_pending) == ([(0, one), (1, two)], 0)
    stream.put(0, last)
    assert await reader == [(0, last)]
    assert len(offered) == 2


async def test_what_is_not_taken_wakes_the_reader_and_what_follows_stays_behind_it():
    stream, _ = opened()
    offered = taking(stream, takes=False)
    reader = await waiting(stream)
    one, two = gain("a"), gain("b")
    stream.put(0, one)
    stream.put(0, two)
    assert await reader == [(0, one), (0, two)]
    assert offered == [(0, one)]


@pytest.mark.parametrize("is_busy_by", ["itself", "a nudge", "its end"])
async def test_nothing_is_taken_from_a_reader_that_is_busy(is_busy_by):
    stream, _ = opened()
    offered = taking(stream)
    if is_busy_by != "itself":
        reader = await waiting(stream)
        stream.nudge() if is_busy_by == "a nudge" else reader.cancel()
    stream.put(0, gain())
    assert offered == []
    assert stream.num_pending == 1


async def test_what_the_taker_raises_is_raised_in_the_reader_alone():
    stream, aborted = opened()

    def fail(index, delta):
        raise ZeroDivisionError

    stream.take_by(fail)
    with stream:
        reader = await waiting(stream)
        stream.put(0, gain())
        stream.put(0, gain())
        with pytest.raises(ZeroDivisionError):
            await reader
    assert aborted == [0]
