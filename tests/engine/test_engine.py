"""The step loop: what is submitted comes out of its stream, whatever goes wrong around it."""

import asyncio
import contextlib
import threading
import time

import pytest
from fakes import FakeClock, ScriptedRunner
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.config import Limits, ModelInfo
from engine.engine import Engine
from engine.errors import (
    EngineStopped,
    GenerationFailed,
    InvalidParameter,
    Overloaded,
    PromptTooLong,
)
from engine.outputs import FinishReason
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.stream import TokenStream
from engine.tokenizer import Tokenizer

INFO = ModelInfo(
    model_id="fake",
    revision=None,
    dtype="float32",
    device="cpu",
    num_parameters=1,
    vocab_size=260,
    max_position=64,
)


class Told:
    """An observer that remembers."""

    def __init__(self):
        self.steps, self.finished, self.first, self.gaps, self.lookups = [], [], [], [], []

    def on_step(self, stats):
        self.steps.append(stats)

    def on_started(self, queue_s):
        assert queue_s >= 0

    def on_tokens(self, first_token_s, gaps_s):
        self.first += first_token_s
        self.gaps += gaps_s

    def on_prefix_lookup(self, num_tokens, num_hit_tokens):
        self.lookups.append((num_tokens, num_hit_tokens))

    def on_finished(self, stats):
        self.finished.append(stats.reason)


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>"))


@contextlib.asynccontextmanager
async def running(scripts="", clock=time.monotonic, **limits):
    tokenizer = byte_tokenizer()
    settings = {
        "num_blocks": 32,
        "block_size": 2,
        "max_batch_size": 4,
        "max_batch_tokens": 16,
        "max_waiting": 2,
        "max_waiting_tokens": 1000,
        "max_queue_s": None,
        "max_input_tokens": 63,
        "max_total_tokens": 64,
        **limits,
    }
    runner = ScriptedRunner(scripts, block_size=settings["block_size"])
    scheduler = Scheduler(Limits(**settings), tokenizer, [256])
    engine = Engine(runner, scheduler, tokenizer, INFO, Told(), clock=clock)
    async with engine:
        yield engine, runner
    assert scheduler.num_sequences == 0
    assert scheduler.pool.num_free == scheduler.pool.num_blocks
    assert not engine._streams
    assert runner.is_closed


def ask(engine, prompt="ab", stream=None, index=0, **params):
    stream = stream or TokenStream()
    settings = {"max_new_tokens": 3, **params}
    ids = engine.tokenizer.encode(prompt)
    engine.submit(ids, SamplingParams(**settings), stream, index)
    return stream


async def read(stream):
    """Return (visible text, finish) of each index."""
    texts, finishes = {}, {}
    with stream:
        async for burst in stream:
            for index, delta in burst:
                shown = "".join(token.visible for token in delta.tokens)
                texts[index] = texts.get(index, "") + shown
                assert index not in finishes, "a delta after the end"
                if delta.finish is not None:
                    finishes[index] = delta.finish
    return {index: (texts[index], finishes[index]) for index in finishes}


def says(engine, text):
    """Write text as the ids of the byte tokenizer."""
    return engine.tokenizer.encode(text)


def repeat_prompt(row):
    """Say the prompt again, a token a step."""
    return row.token_ids[row.num_output % row.num_prompt]


async def test_a_sequence_streams_its_tokens_and_ends_once():
    async with running(repeat_prompt) as (engine, _):
        result = await read(ask(engine, "abc", max_new_tokens=5))
        text, finish = result[0]
        assert text == finish.text == "abcab"
        assert finish.reason is FinishReason.LENGTH
        assert finish.usage.num_prompt_tokens == 3
        assert finish.usage.num_output_tokens == 5


async def test_many_sequences_share_steps_and_keep_their_own_text():
    async with running(repeat_prompt, max_waiting=16) as (engine, runner):
        prompts = ["a", "bc", "def", "ghij", "klmno", "pqrstu"]
        results = await asyncio.gather(*(read(ask(engine, p, max_new_tokens=6)) for p in prompts))
        assert [r[0][0] for r in results] == [(p * 6)[:6] for p in prompts]
        assert max(len(batch.work) for batch in runner.batches) == 4


async def test_sequences_of_one_request_come_through_one_stream():
    async with running(repeat_prompt) as (engine, _):
        stream = TokenStream(is_streamed=False)
        for index, prompt in enumerate(["xy", "z"]):
            ask(engine, prompt, stream, index, max_new_tokens=4)
        result = await read(stream)
        assert {index: text for index, (text, _) in result.items()} == {0: "xyxy", 1: "zzzz"}


async def test_the_forward_pass_runs_on_the_models_own_thread():
    names = set()

    def script(row):
        names.add(threading.current_thread().name)
        return repeat_prompt(row)

    async with running(script) as (engine, _):
        await read(ask(engine))
    assert names == {"model_0"}


async def test_a_reader_that_leaves_frees_its_blocks_within_the_step():
    async with running(repeat_prompt) as (engine, runner):
        stream = ask(engine, max_new_tokens=50)
        await anext(stream)
        runner.entered.clear()
        runner.gate.clear()
        await asyncio.to_thread(runner.entered.wait)
        stream.close()
        assert engine.stats().num_running == 0
        assert engine.stats().num_free_blocks == 32
        runner.gate.set()
        text, finish = (await read(ask(engine, "q")))[0]
        assert text == "qqq"
        assert finish.reason is FinishReason.LENGTH


async def test_a_queued_reader_that_leaves_makes_room_at_once():
    async with running(repeat_prompt, max_batch_size=1, max_waiting=1) as (engine, _):
        first = ask(engine, max_new_tokens=20)
        await anext(first)
        second = ask(engine)
        with pytest.raises(Overloaded, match="waiting room is full"):
            ask(engine)
        second.close()
        third = ask(engine, "c")
        first.close()
        assert (await read(third))[0][0] == "ccc"


class Panic(BaseException):
    """As a library in Rust raises."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
async def test_a_step_that_raises_ends_its_rows_and_spares_the_rest(kind):
    async with running(repeat_prompt, max_batch_size=1) as (engine, runner):
        runner.gate.clear()
        struck = ask(engine, "a")
        await asyncio.to_thread(runner.entered.wait)
        spared = ask(engine, "b")
        runner.raises = kind("boom")
        runner.gate.set()
        _, finish = (await read(struck))[0]
        assert finish.reason is FinishReason.ERROR
        assert isinstance(finish.error, GenerationFailed)
        assert "boom" in str(finish.error)
        assert (await read(spared))[0][0] == "bbb"
        assert engine.is_healthy


async def test_steps_that_keep_failing_make_the_engine_sick_and_one_that_works_heals_it():
    async with running(repeat_prompt) as (engine, runner):
        for _ in range(3):
            runner.raises = RuntimeError("boom")
            stream = ask(engine)
            await read(stream)
        assert not engine.is_healthy
        assert (await read(ask(engine)))[0][1].error is None
        assert engine.is_healthy


async def test_a_row_with_an_error_ends_alone():
    async with running(repeat_prompt) as (engine, runner):
        runner.row_errors = {1: "NaN"}
        bad, good = ask(engine, "a"), ask(engine, "b")
        assert (await read(bad))[0][1].reason is FinishReason.ERROR
        assert (await read(good))[0][0] == "bbb"


async def test_drain_refuses_new_ones_and_waits_for_what_runs():
    async with running(repeat_prompt) as (engine, _):
        stream = ask(engine, max_new_tokens=10)
        drain = asyncio.create_task(engine.drain(60.0))
        await anext(stream)
        with pytest.raises(EngineStopped):
            ask(engine)
        assert not drain.done()
        await read(stream)
        await drain


async def test_drain_ends_what_is_left_after_its_time_with_an_error():
    async with running(repeat_prompt) as (engine, runner):
        runner.gate.clear()
        stream = ask(engine)
        await asyncio.to_thread(runner.entered.wait)
        await engine.drain(0.0)
        _, finish = (await read(stream))[0]
        assert isinstance(finish.error, EngineStopped)
        runner.gate.set()


async def test_leaving_the_context_ends_what_runs():
    async with running(repeat_prompt) as (engine, _):
        stream = ask(engine, max_new_tokens=60)
        await anext(stream)
    (finish,) = [delta.finish async for burst in stream for _, delta in burst if delta.finish]
    assert isinstance(finish.error, EngineStopped)


async def test_a_dead_step_loop_ends_every_stream():
    async with running(repeat_prompt) as (engine, _):
        stream = ask(engine)
        engine._observer.on_step = None
        _, finish = (await read(stream))[0]
        assert isinstance(finish.error, EngineStopped)
        with contextlib.suppress(TypeError):
            await engine._loop_task
        assert not engine.is_healthy


async def test_an_end_that_came_before_the_step_loop_died_is_not_lost():
    async with running(repeat_prompt) as (engine, _):
        stream = ask(engine, max_new_tokens=1)
        engine._observer.on_step = None
        text, finish = (await read(stream))[0]
        assert (text, finish.reason) == ("a", FinishReason.LENGTH)
        with contextlib.suppress(TypeError):
            await engine._loop_task


async def test_the_next_step_computes_while_readers_take_what_the_last_one_gave():
    async with running(repeat_prompt) as (engine, runner):
        stream, seen = ask(engine, max_new_tokens=4), []

        def take(index, delta):
            seen.append(runner.entered.wait(5.0))
            runner.entered.clear()
            return True

        stream.take_by(take)
        runner.gate.clear()
        reader = asyncio.create_task(read(stream))
        await asyncio.to_thread(runner.entered.wait)
        runner.entered.clear()
        runner.gate.set()
        await reader
        assert seen == [True] * 3


async def test_an_idle_engine_takes_no_steps():
    async with running(repeat_prompt) as (engine, runner):
        await read(ask(engine))
        calls = []
        schedule = engine._scheduler.schedule
        engine._scheduler.schedule = lambda now: calls.append(now) or schedule(now)
        num_batches = len(runner.batches)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(calls) <= 1
        assert len(runner.batches) == num_batches


async def test_what_can_never_fit_is_refused_at_the_door():
    async with running() as (engine, _):
        with pytest.raises(PromptTooLong, match=r"must be <= 64. Given: 3 .* and 62"):
            ask(engine, "abc", max_new_tokens=62)
        with pytest.raises(PromptTooLong, match="no tokens"):
            engine.submit([], SamplingParams(max_new_tokens=1), TokenStream())
        with pytest.raises(InvalidParameter, match=r"^`adapter` must be one .*\. Given: none$"):
            ask(engine, "abc", adapter="none")


async def test_an_id_that_the_model_does_not_know_is_refused_before_it_is_in_a_step():
    async with running(repeat_prompt) as (engine, runner):
        num_ids = engine.info.vocab_size
        params = SamplingParams(max_new_tokens=1)
        with pytest.raises(InvalidParameter, match=rf"`inputs` .* < {num_ids}, .*: {num_ids}$"):
            engine.submit([1, num_ids, 2], params, TokenStream())
        biased = SamplingParams(max_new_tokens=1, logit_bias=((num_ids, 1.0),))
        with pytest.raises(InvalidParameter, match=rf"`logit_bias` .*\. Given: {num_ids}$"):
            engine.submit([1], biased, TokenStream())
        assert not runner.batches
        stream = TokenStream()
        engine.submit([1, num_ids - 1], params, stream)
        assert (await read(stream))[0][1].error is None


async def test_waiting_too_long_ends_as_overloaded():
    clock = FakeClock()
    async with running(repeat_prompt, clock, max_batch_size=1, max_queue_s=5.0) as (engine, runner):
        runner.gate.clear()
        first = ask(engine, max_new_tokens=2)
        await asyncio.to_thread(runner.entered.wait)
        second = ask(engine)
        clock.advance(6.0)
        runner.gate.set()
        assert isinstance((await read(second))[0][1].error, Overloaded)
        await read(first)


async def test_long_texts_are_encoded_off_the_loop():
    async with running() as (engine, _):
        threads = []
        encode = engine.tokenizer.encode
        engine.tokenizer.encode = lambda text: (
            threads.append(threading.current_thread().name) or encode(text)
        )
        assert await engine.encode("a" * 1000) == encode("a" * 1000)
        assert await engine.encode("a" * 1001) == encode("a" * 1001)
        assert threads == [threading.main_thread().name, "tokenizer_0"]


async def test_the_observer_hears_each_token_once_and_each_end():
    async with running(repeat_prompt) as (engine, _):
        told = engine._observer
        await asyncio.gather(*(read(ask(engine, max_new_tokens=4)) for _ in range(3)))
        assert len(told.first) == 3
        assert len(told.gaps) == 9
        assert told.finished == [FinishReason.LENGTH] * 3
        tokens = sum(s.num_prefill_tokens + s.num_decode_tokens for s in told.steps)
        assert tokens == 3 * (2 + 3)


async def test_the_rate_of_ends_is_that_of_the_busy_time():
    clock = FakeClock()
    async with running(repeat_prompt, clock, max_batch_size=1, max_waiting=9) as (engine, runner):
        assert engine.stats().finish_rate == 0.0
        await read(ask(engine))
        clock.advance(3600.0)  # idle time says nothing about the rate
        runner.gate.clear()
        streams = [ask(engine, max_new_tokens=1) for _ in range(4)]
        clock.advance(10.0)
        assert engine.stats().finish_rate == pytest.approx(0.1)
        runner.gate.set()
        for stream in streams:
            await read(stream)
        last = ask(engine, max_new_tokens=60)
        assert engine.stats().finish_rate == pytest.approx(1000.0)  # just begun, nothing known
        last.close()


async def test_progress_shows_what_runs_and_what_waits_under_the_ids_that_submit_gave():
    async with running(repeat_prompt, max_batch_size=1) as (engine, runner):
        assert engine.progress() == []
        runner.gate.clear()
        ids, streams = [], (TokenStream(), TokenStream())
        for prompt, stream in zip(("abc", "de"), streams, strict=True):
            params = SamplingParams(max_new_tokens=2)
            ids.append(engine.submit(engine.tokenizer.encode(prompt), params, stream))
        await asyncio.to_thread(runner.entered.wait)
        shown = [(p.sequence_id, p.is_running, p.num_prompt_tokens) for p in engine.progress()]
        runner.gate.set()
        for stream in streams:
            await read(stream)
        assert shown == [(ids[0], True, 3), (ids[1], False, 2)]
        assert engine.progress() == []


async def test_stats_count_every_token_and_keep_the_last_step():
    async with running(repeat_prompt) as (engine, runner):
        assert engine.stats().last_step is None
        await asyncio.gather(*(read(ask(engine, p, max_new_tokens=5)) for p in ("abc", "d")))
        stats = engine.stats()
        assert stats.num_generated_tokens == 10
        assert stats.num_steps == len(runner.batches)
        assert stats.last_step == engine._observer.steps[-1]


async def test_closing_a_stream_gives_the_end_of_what_it_cut_short():
    async with running(repeat_prompt) as (engine, runner):
        runner.gate.clear()
        stream = ask(engine, "abc")
        await asyncio.to_thread(runner.entered.wait)
        cut_short = stream.close() + stream.close()
        runner.gate.set()
        (finish,) = cut_short
        assert finish.reason is FinishReason.ABORT
        assert finish.usage.num_prompt_tokens == 3
