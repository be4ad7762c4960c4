"""Engine: the step loop, and the way in and out of it.

One coroutine asks the Scheduler for a batch, awaits the runner's thread, and hands what was gained
to the streams. Decides nothing itself; the event loop only ever waits here.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from engine.batch import Batch, Runner, StepOutput
from engine.chat import Chat, question, read_answer
from engine.chats import Chats
from engine.config import Limits, ModelInfo
from engine.detokenizer import Detokenizer
from engine.errors import (
    EngineError,
    EngineStopped,
    GenerationFailed,
    InvalidGrammar,
    InvalidParameter,
    Overloaded,
    PromptTooLong,
    TemplateError,
)
from engine.grammar import Grammar
from engine.grammars import Grammars
from engine.outputs import Finish, FinishReason
from engine.sampling_params import SamplingParams
from engine.scheduler import Gain, Scheduler, Update
from engine.sequence import Sequence
from engine.stats import EngineStats, Observer, SequenceProgress, SequenceStats, StepStats
from engine.stream import TokenStream
from engine.tokenizer import TextSpan, Tokenizer

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_INLINE_CHARS = 1000
"""Longer texts are encoded on a thread: a token costs 1-2 µs, the hand-off some 25."""
_MAX_GRAMMAR_WAIT_S = 5.0
"""How long a grammar may wait for others to be tried, each of which takes a second at most."""
_MAX_FAILED_STEPS = 3
"""So many steps that raise in a row, without one that works, and the engine calls itself sick."""


class Engine:
    """A loaded model that generates; use it as an asynchronous context."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        info: ModelInfo,
        observer: Observer,
        num_tokenizer_workers: int = 2,
        clock: Callable[[], float] = time.monotonic,
        grammars: Grammars | None = None,
        chats: Chats | None = None,
    ) -> None:
        """Without grammars, those who ask for one are refused.

        Chats that are given are made ready at once, others when the first is to be rendered.
        """
        self.info = info
        self.tokenizer = tokenizer
        self.num_tokenizer_workers = num_tokenizer_workers
        self._runner = runner
        self._scheduler = scheduler
        self._observer = observer
        self._clock = clock
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._grammars = grammars
        self._grammarians = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._chats = chats or Chats(tokenizer.template)
        self._is_chat_expected = chats is not None
        self._encoders = ThreadPoolExecutor(num_tokenizer_workers, thread_name_prefix="tokenizer")
        self._streams: dict[int, tuple[TokenStream, int]] = {}
        self._gained = Update()
        """What the last step brought; the readers get it when the next one is on its way."""
        self._num_submitted = 0
        self._has_work = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_draining = False
        self._num_failed_steps = 0
        self._last_step_at = clock()
        self._last_step: StepStats | None = None
        self._num_generated_tokens = 0
        self._busy_since = clock()
        self._finished_at: deque[float] = deque(maxlen=64)
        """When the last sequences ended, since the engine was last empty."""
        self._loop_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._is_chat_expected and self.tokenizer.has_chat_template:
            await self._chats.start()
        if self._grammars is not None:
            self._grammarians.submit(self._grammars.start)
        self._loop_task = asyncio.create_task(self._run(), name="step loop")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the step loop; what has not finished ends with EngineStopped."""
        assert self._loop_task is not None
        self._is_draining = True
        self._loop_task.cancel()
        await asyncio.wait([self._loop_task])
        await asyncio.to_thread(self._compute.shutdown)
        await asyncio.to_thread(self._encoders.shutdown)
        await asyncio.to_thread(self._close_grammars)
        await self._chats.close()
        self._end_all(EngineStopped("the server is shutting down"))
        self._runner.close()

    @property
    def limits(self) -> Limits:
        """What the engine may do, settled at load."""
        return self._scheduler.limits

    @property
    def is_healthy(self) -> bool:
        """Tell whether the step loop turns and steps do not keep failing."""
        return self._is_alive and self._num_failed_steps < _MAX_FAILED_STEPS

    @property
    def is_draining(self) -> bool:
        """Tell whether new sequences are refused for good."""
        return self._is_draining

    def submit(
        self, prompt_ids: list[int], params: SamplingParams, stream: TokenStream, index: int = 0
    ) -> int:
        """Generate from these ids into the stream, under this index; return the sequence's id.

        Raises PromptTooLong when it can never fit, InvalidParameter for ids that the model does not
        know and an adapter that is not loaded, Overloaded when there is no room now, EngineStopped
        while draining. Whoever reads the stream closes it.
        """
        if self._is_draining or not self._is_alive:
            raise EngineStopped("the engine takes no more sequences")
        self._check_fit(prompt_ids, params)
        self._check_ids("inputs", max(prompt_ids))
        self._check_ids("logit_bias", max((id_ for id_, _ in params.logit_bias), default=0))
        if params.adapter is not None and params.adapter not in self.info.adapters:
            message = f"`adapter` must be one that was loaded. Given: {params.adapter}"
            raise InvalidParameter("adapter", message)
        self._num_submitted += 1
        detokenizer = Detokenizer(
            self.tokenizer, prompt_ids, params.stop, keep_stop=params.keep_stop
        )
        sequence = Sequence(self._num_submitted, prompt_ids, params, detokenizer, self._clock())
        self._scheduler.add(sequence)
        if not self._streams:
            self._busy_since = self._clock()
            self._finished_at.clear()
        self._streams[sequence.sequence_id] = (stream, index)
        stream.open(index, partial(self._abort, sequence))
        self._is_empty.clear()
        self._has_work.set()
        return sequence.sequence_id

    async def encode(self, text: str) -> list[int]:
        """Encode a prompt, off the loop when it is long."""
        return await self._off_loop(len(text), partial(self.tokenizer.encode, text))

    async def encode_chat(self, chat: Chat) -> list[int]:
        """Render a chat by the model's template and encode it; special text in it is plain text.

        Raises TemplateError, and what `Chats.render` raises.
        """
        asked, mark = await self._off_loop(
            chat.num_characters(), partial(self._marked_question, chat)
        )
        answer = await self._rendered(asked)
        return await self._off_loop(
            len(answer), lambda: self.tokenizer.encode_marked(read_answer(answer), mark)
        )

    async def render_chat(self, chat: Chat) -> str:
        """Render a chat by the model's template; raises as `encode_chat` does."""
        asked = await self._off_loop(chat.num_characters(), partial(question, chat))
        answer = await self._rendered(asked)
        return await self._off_loop(len(answer), partial(read_answer, answer))

    async def spans(self, text: str, *, add_special_tokens: bool) -> list[TextSpan]:
        """Encode and say where each token lies, off the loop when the text is long."""
        return await self._off_loop(
            len(text), partial(self.tokenizer.spans, text, add_special_tokens=add_special_tokens)
        )

    async def decode(self, token_ids: list[int]) -> str:
        """Decode ids, special tokens spelled out, off the loop when there are many."""
        return await self._off_loop(
            len(token_ids), partial(self.tokenizer.decode, token_ids, has_specials=True)
        )

    async def check_grammar(self, grammar: Grammar) -> None:
        """Make a grammar ready for who will submit with it, off the loop.

        Raises InvalidGrammar, Overloaded where too many others are being tried, and
        GenerationFailed where none can be.
        """
        if self._grammars is None:
            raise InvalidGrammar("is not supported: this server follows no grammars")
        if grammar in self._grammars:
            return
        let_in = partial(self._grammars.let_in, grammar)
        try:
            async with asyncio.timeout(_MAX_GRAMMAR_WAIT_S):
                await asyncio.get_running_loop().run_in_executor(self._grammarians, let_in)
        except TimeoutError:
            raise Overloaded("too many grammars wait to be compiled") from None

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, wait for what runs, and end what is left after the timeout."""
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_empty.wait()
        except TimeoutError:
            self._end_all(EngineStopped("the server is shutting down"))

    def stats(self) -> EngineStats:
        """Describe the engine as it is now."""
        scheduler, pool, now = self._scheduler, self._scheduler.pool, self._clock()
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_waiting_tokens=scheduler.waiting.num_tokens,
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_cached_blocks=pool.num_cached,
            block_size=pool.block_size,
            num_running_tokens=sum(s.num_tokens for s in scheduler.running.values()),
            seconds_since_step=now - self._last_step_at,
            finish_rate=self._finish_rate(now),
            num_steps=scheduler.history.num_steps,
            num_generated_tokens=self._num_generated_tokens,
            last_step=self._last_step,
        )

    def progress(self) -> list[SequenceProgress]:
        """Say how far each sequence has come that has not ended: those that run, then the line."""
        scheduler = self._scheduler
        return [
            sequence.progress() for sequence in (*scheduler.running.values(), *scheduler.waiting)
        ]

    def _finish_rate(self, now: float) -> float:
        """Measure how many sequences end in a second, since the engine was last empty.

        Counts one more than have ended, so that the time in which none did counts as well.
        """
        finished = self._finished_at
        since = finished[0] if len(finished) == finished.maxlen else self._busy_since
        return (len(finished) + 1) / max(now - since, 1e-3) if self._streams else 0.0

    @property
    def _is_alive(self) -> bool:
        return self._loop_task is not None and not self._loop_task.done()

    async def _run(self) -> None:
        """Step for ever; the one place where a broad catch keeps a bug from being silent."""
        try:
            while True:
                await self._step()
        except Exception:
            logger.critical("the step loop has died", exc_info=True)
            self._end_all(EngineStopped("the engine has died"))
            raise

    async def _step(self) -> None:
        start = self._clock()
        self._gained.gains += self._scheduler.expire(start)
        num_preempted = self._scheduler.num_preempted
        batch = self._scheduler.schedule(start)
        if batch is None:
            self._give_out()
            self._has_work.clear()
            await self._has_work.wait()
            return
        computing = asyncio.get_running_loop().run_in_executor(
            self._compute, self._runner.execute, batch
        )
        scheduled = self._clock()
        self._tell_started()
        self._give_out()
        self._gained = update = await self._finish(batch, computing)
        self._num_generated_tokens += len(update.first_token_s) + len(update.gaps_s)
        num_prefill = batch.num_prefill_tokens
        self._last_step = StepStats(
            duration_s=self._last_step_at - scheduled,
            schedule_s=scheduled - start,
            update_s=self._clock() - self._last_step_at,
            num_prefill_tokens=num_prefill,
            num_decode_tokens=batch.num_tokens - num_prefill,
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            num_joined=len(batch.join),
            num_preempted=self._scheduler.num_preempted - num_preempted,
            num_free_blocks=self._scheduler.pool.num_free,
            is_failed=self._num_failed_steps > 0,
            num_draft_tokens=update.num_draft_tokens,
            num_accepted=tuple(update.num_accepted),
        )
        self._observer.on_step(self._last_step)

    async def _finish(self, batch: Batch, computing: asyncio.Future[StepOutput]) -> Update:
        """Await the one thing that computes; a step that raises fails its own rows only."""
        try:
            output = await computing
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust's is no Exception
            self._last_step_at = self._clock()
            logger.exception("step %d of %d rows failed", batch.step, len(batch.work))
            self._num_failed_steps += 1
            message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return self._scheduler.fail(GenerationFailed(message), self._last_step_at)
        self._last_step_at = self._clock()
        self._num_failed_steps = 0
        return self._scheduler.update(output, self._last_step_at)

    def _tell_started(self) -> None:
        for sequence in self._scheduler.started:
            assert sequence.started_at is not None
            self._observer.on_started(sequence.started_at - sequence.submitted_at)
        for lookup in self._scheduler.lookups:
            self._observer.on_prefix_lookup(lookup.num_tokens, lookup.num_hit)

    def _give_out(self) -> None:
        """Let the readers take what the last step brought."""
        update, self._gained = self._gained, Update()
        self._hand_over(update.gains)
        self._observer.on_tokens(tuple(update.first_token_s), tuple(update.gaps_s))

    def _hand_over(self, gains: Iterable[Gain]) -> None:
        for sequence, delta in gains:
            stream, index = self._streams[sequence.sequence_id]
            if delta.finish is not None:
                self._forget(sequence, SequenceStats(delta.finish.reason, delta.finish.usage))
            stream.put(index, delta)

    def _abort(self, sequence: Sequence) -> Finish | None:
        """End a sequence whose reader has left; None when it had ended by itself."""
        gain = self._scheduler.abort(sequence, self._clock())
        if gain is None:
            return None
        finish = gain[1].finish
        assert finish is not None
        self._forget(sequence, SequenceStats(FinishReason.ABORT, finish.usage))
        return finish

    def _end_all(self, error: EngineError) -> None:
        """End every sequence with an error that its reader will see."""
        self._give_out()
        scheduler = self._scheduler
        for sequence in [*scheduler.running.values(), *scheduler.waiting]:
            gain = scheduler.abort(sequence, self._clock(), error)
            if gain is not None:
                self._hand_over([gain])

    def _forget(self, sequence: Sequence, stats: SequenceStats) -> None:
        del self._streams[sequence.sequence_id]
        self._finished_at.append(self._clock())
        self._observer.on_finished(stats)
        if not self._streams:
            self._is_empty.set()

    def _check_fit(self, prompt_ids: list[int], params: SamplingParams) -> None:
        limit = self.limits.max_total_tokens
        num_tokens = len(prompt_ids) + params.max_new_tokens
        if not prompt_ids:
            raise PromptTooLong("the prompt has no tokens, at least 1 is needed")
        if num_tokens > limit:
            raise PromptTooLong(
                f"`inputs` tokens + `max_new_tokens` must be <= {limit}. "
                f"Given: {len(prompt_ids)} `inputs` tokens and "
                f"{params.max_new_tokens} `max_new_tokens`"
            )

    def _check_ids(self, field: str, highest: int) -> None:
        """Refuse an id without an embedding, such as a tokenizer may have more than the model."""
        num_ids = self.info.vocab_size
        if highest >= num_ids:
            rule = f"must hold token ids < {num_ids}, which the model knows"
            raise InvalidParameter(field, f"`{field}` {rule}. Given: {highest}")

    def _close_grammars(self) -> None:
        self._grammarians.shutdown(cancel_futures=True)
        if self._grammars is not None:
            self._grammars.close()

    def _marked_question(self, chat: Chat) -> tuple[bytes, str]:
        marked, mark = self.tokenizer.marked(chat)
        return question(marked), mark

    async def _rendered(self, asked: bytes) -> bytes:
        if not self.tokenizer.has_chat_template:
            raise TemplateError("template not found")
        return await self._chats.render(asked)

    async def _off_loop(self, size: int, work: Callable[[], T]) -> T:
        if size <= _MAX_INLINE_CHARS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._encoders, work)
