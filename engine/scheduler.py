"""Scheduler: which sequences take part in the next step, and what became of them after it.

Decides without waiting: no clock, no locks, no tensors. `schedule` and `update` alternate; `add`
and `abort` may come at any time between them. Blocks are given out in `schedule` alone, so a block
freed while a step computes is not another's before that step has ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from engine.admission import AdmissionQueue
from engine.batch import Batch, Join, RowOutput, RowWork, StepOutput
from engine.blocks import BlockPool, Prefix
from engine.config import Limits
from engine.detokenizer import Vocabulary
from engine.errors import EngineError, GenerationFailed, Overloaded
from engine.history import StepHistory
from engine.outputs import Delta, Finish, FinishReason, Token, WaitedFor
from engine.pace import Pace
from engine.prefixes import Prefixes
from engine.reader import Reader
from engine.sequence import Sequence, State
from engine.speculation import Speculation

Gain = tuple[Sequence, Delta]

_MAX_PASSED = 16
"""So many at the head of the line may wait for a prefix while others behind them start."""

_new = tuple.__new__
"""Makes what is made for each token; a named tuple's own call takes half as long again."""


@dataclass(slots=True)
class Update:
    """What one step brought."""

    gains: list[Gain] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    num_draft_tokens: int = 0
    num_accepted: list[int] = field(default_factory=list)
    """For each row with drafts, how many were right and given out."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the prefix cache knew of a prompt, in tokens."""

    num_tokens: int
    num_hit: int


class Scheduler:
    """The only one that changes sequences and the block pool."""

    def __init__(
        self,
        limits: Limits,
        vocabulary: Vocabulary,
        eos_token_ids: Iterable[int],
        pace: Pace | None = None,
    ) -> None:
        """Without a pace, prompts fill every step up to the limit."""
        self.limits = limits
        self.pool = BlockPool(limits.num_blocks, limits.block_size)
        self._prefixes = Prefixes(self.pool, limits.is_prefix_caching)
        self._speculation = Speculation(self.pool, limits.max_drafts, limits.max_batch_tokens)
        self._pace = pace
        self.waiting = AdmissionQueue(
            limits.max_waiting, limits.max_waiting_tokens, limits.max_queue_s
        )
        self.running: dict[int, Sequence] = {}
        """In the order they started; the newest is preempted first."""
        self.num_preempted = 0
        self.started: list[Sequence] = []
        """Those that the last `schedule` started for the first time."""
        self.lookups: list[Lookup] = []
        """What the last `schedule` looked up in the prefix cache."""
        self.history = StepHistory()
        self._wanted: WaitedFor | None = None
        """What the first in line could not have, while there is a line."""
        self._reader = Reader(vocabulary, eos_token_ids)
        self._rows: set[int] = set()
        """Sequences that the runner holds a row for."""
        self._batch: Batch | None = None
        self._scheduled_at = 0.0
        self._num_steps = 0

    @property
    def num_sequences(self) -> int:
        """Count all that have not finished."""
        return len(self.running) + len(self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Take a new sequence into the waiting room; raises Overloaded when it is full."""
        sequence.num_ahead = len(self.waiting)
        self.waiting.push(sequence, max(0, self.limits.max_batch_size - len(self.running)))

    def schedule(self, now: float) -> Batch | None:
        """Choose the next step's rows: running ones first, then waiting ones while there is room.

        None when nothing is to be computed.
        """
        assert self._batch is None, "This is a bug. The last step was not updated."
        self.started, self.lookups = [], []
        joins: list[Join] = []
        work: list[RowWork] = []
        computing: list[Sequence] = []
        num_preempted = self.num_preempted
        budget = self._budget()
        for sequence in list(self.running.values()):
            if sequence.state is State.RUNNING and (row := self._continue(sequence, budget)):
                work.append(row)
                budget -= row.num_tokens
                if row.num_tokens > 1:
                    computing.append(sequence)
        while budget > 0 and self.num_preempted == num_preempted:
            entering = self._start_next(now, computing)
            if entering is None:
                break
            row = self._work(entering, min(entering.num_behind, budget), ())
            joins.append(_join(entering))
            work.append(row)
            computing.append(entering)
            budget -= row.num_tokens
        if not work:
            return None
        if self.limits.max_drafts:
            self._speculation.extend(work, self.running)
        self._scheduled_at = now
        leave = tuple(self._rows - self.running.keys())
        if leave or joins:
            self._rows = set(self.running)
        self._num_steps += 1
        self._batch = Batch(self._num_steps, leave, tuple(joins), tuple(work))
        return self._batch

    def update(self, output: StepOutput, now: float) -> Update:
        """Give each sequence its tokens and text; end those that are done and free their blocks."""
        batch = self._take_batch(output.step)
        num_prefill_tokens = batch.num_prefill_tokens
        self.history.add(now, len(batch.work), num_prefill_tokens)
        if self._pace is not None:
            num_streaming = len(batch.work) - len(batch.prefill)
            self._pace.add(now - self._scheduled_at, num_streaming, num_prefill_tokens)
        update = Update()
        for work, row in zip(batch.work, output.rows, strict=True):
            assert work.sequence_id == row.sequence_id, "This is a bug. Rows are out of order."
            sequence = self.running.get(row.sequence_id)
            if sequence is not None:
                delta = self._update_row(sequence, work, row, now, update)
                if delta is not None:
                    update.gains.append((sequence, delta))
        return update

    def fail(self, error: EngineError, now: float) -> Update:
        """End every sequence of the step that raised; the others are not touched."""
        batch = self._batch
        assert batch is not None, "This is a bug. No step is computing."
        self._batch = None
        update = Update()
        for work in batch.work:
            sequence = self.running.get(work.sequence_id)
            if sequence is not None:
                finish = self._finish(sequence, FinishReason.ERROR, now, error=error)
                update.gains.append((sequence, Delta((), finish)))
        return update

    def abort(
        self, sequence: Sequence, now: float, error: EngineError | None = None
    ) -> Gain | None:
        """End a sequence at once, whatever it is doing; None when it had ended by itself."""
        if sequence.state is State.FINISHED:
            return None
        reason = FinishReason.ABORT if error is None else FinishReason.ERROR
        return sequence, Delta((), self._finish(sequence, reason, now, error=error))

    def expire(self, now: float) -> list[Gain]:
        """End those that have waited too long."""
        limit = self.waiting.max_queue_s
        gains = []
        for sequence in self.waiting.expired(now):
            error = Overloaded(f"no room came free within the {limit} s a request may wait")
            if (gain := self.abort(sequence, now, error)) is not None:
                gains.append(gain)
        return gains

    def check(self) -> None:
        """Assert the invariants; tests call it after every move."""
        self.pool.check(b for sequence in self.running.values() for b in sequence.blocks)
        for sequence in self.running.values():
            assert sequence.state is State.RUNNING, f"{sequence!r} is among the running"
            assert sequence.num_computed <= sequence.num_tokens, f"{sequence!r} is ahead of itself"
            room = len(sequence.blocks) * self.limits.block_size
            assert sequence.num_computed <= room, f"{sequence!r} computed more than it has room for"
            assert sequence.awaited is None, f"{sequence!r} waits for a prefix and runs"
        if self._batch is None:
            older = list(self.running.values())[:-1]
            assert all(s.num_behind == 1 for s in older), "a prompt is not whole before the last"
        for sequence in self.waiting:
            assert sequence.state is State.WAITING, f"{sequence!r} is among the waiting"
            assert not sequence.blocks, f"{sequence!r} waits with blocks"
            assert sequence.sequence_id not in self.running, f"{sequence!r} is in two places"
            awaited = sequence.awaited
            is_older = awaited is None or awaited.sequence.sequence_id < sequence.sequence_id
            assert is_older, f"{sequence!r} waits for a later one"
        num_new = sum(s.num_prompt for s in self.waiting if s.started_at is None)
        assert self.waiting.num_tokens == num_new, "the waiting room has miscounted"
        assert len(self.running) <= self.limits.max_batch_size

    # -- schedule

    def _budget(self) -> int:
        """Say how many tokens the next step may hold: one of each that streams, and prompts'."""
        limit = self.limits.max_batch_tokens
        if self._pace is None or not self.running:
            return limit
        num_entering = min(len(self.waiting), self.limits.max_batch_size - len(self.running))
        is_partial = next(reversed(self.running.values())).num_behind > 1
        num_streaming = len(self.running) - is_partial
        room = self._pace.room(num_streaming, num_entering + is_partial)
        return min(limit, num_streaming + room)

    def _continue(self, sequence: Sequence, budget: int) -> RowWork | None:
        """Plan a running sequence's share, preempting the newest while blocks are missing.

        The budget holds a token for each row. Only the newest row can have more than one to
        compute: nobody starts behind a prompt that is not yet whole.
        """
        num_behind = len(sequence.token_ids) - sequence.num_computed
        num_tokens = num_behind if num_behind < budget else budget
        if not num_tokens:
            return None
        end = sequence.num_computed + num_tokens
        missing = -(-end // self.limits.block_size) - len(sequence.blocks)
        if missing <= 0:
            return sequence.decode if num_behind == 1 else self._work(sequence, num_tokens, ())
        while missing > self.pool.num_free:
            newest = next(reversed(self.running.values()))
            self._preempt(newest)
            if newest is sequence:
                return None
        new_blocks = self.pool.take(missing)
        sequence.blocks += new_blocks
        return self._work(sequence, num_tokens, tuple(new_blocks))

    def _start_next(self, now: float, computing: list[Sequence]) -> Sequence | None:
        """Start the first in line, if a row and the blocks for all its tokens are free.

        Who waits for a prefix that one of `computing` is about to know is passed over.
        """
        for sequence in islice(self.waiting, _MAX_PASSED):
            if self._prefixes.is_waiting(sequence):
                continue
            if len(self.running) >= self.limits.max_batch_size:
                self._keep_waiting(sequence, WaitedFor.ROW)
                return None
            chain = self._prefixes.find(sequence)
            if self._prefixes.must_wait(sequence, chain, computing):
                self._keep_waiting(sequence, WaitedFor.PREFIX)
                continue
            num_blocks = -(-sequence.num_tokens // self.limits.block_size)
            if num_blocks - len(chain) > self.pool.num_free_after(chain):
                self._keep_waiting(sequence, WaitedFor.BLOCKS)
                return None
            self._start(sequence, chain, num_blocks, now)
            return sequence
        self._wanted = None
        return None

    def _start(self, sequence: Sequence, chain: list[Prefix], num_blocks: int, now: float) -> None:
        self.waiting.remove(sequence)
        sequence.move("start")
        self.running[sequence.sequence_id] = sequence
        shared = self.pool.share(chain)
        sequence.blocks = shared + self.pool.take(num_blocks - len(chain))
        sequence.num_computed = len(chain) * self.limits.block_size
        sequence.num_remembered = len(chain)
        sequence.prefix = chain[-1] if chain else self._prefixes.root(sequence)
        if sequence.started_at is not None:
            sequence.resume(now)
            return
        self._note_line(sequence)
        sequence.started_at = now
        sequence.num_cached = sequence.num_computed
        self.started.append(sequence)
        if self._prefixes.may_share(sequence):
            self.lookups.append(Lookup(sequence.num_prompt, sequence.num_computed))

    def _keep_waiting(self, sequence: Sequence, what: WaitedFor) -> None:
        """Note what the first in line cannot have yet, for its first start."""
        if what is not WaitedFor.PREFIX:
            self._wanted = what  # nobody behind it waits for that
        if sequence.started_at is None:
            sequence.waited_for = what

    def _note_line(self, sequence: Sequence) -> None:
        """Let a new sequence have waited for what those before it in line could not have."""
        if sequence.waited_for is None and sequence.num_ahead:
            sequence.waited_for = self._wanted

    def _work(self, sequence: Sequence, num_tokens: int, new_blocks: tuple[int, ...]) -> RowWork:
        is_sampled = sequence.num_computed + num_tokens == sequence.num_tokens
        num_logits = num_tokens if sequence.wants_prompt_logprobs else int(is_sampled)
        return RowWork(sequence.sequence_id, num_tokens, num_logits, is_sampled, new_blocks)

    def _preempt(self, sequence: Sequence) -> None:
        """Send a sequence back to the head of the line; it goes on from its own tokens later."""
        sequence.move("preempt")
        self._give_up_blocks(sequence)
        self.waiting.push_front(sequence)
        sequence.num_preempted += 1
        self.num_preempted += 1

    def _give_up_blocks(self, sequence: Sequence, *, is_broken: bool = False) -> None:
        del self.running[sequence.sequence_id]
        self.pool.release(sequence.blocks, is_broken=is_broken)
        sequence.blocks = []
        sequence.num_computed = 0
        sequence.num_remembered = 0
        sequence.prefix = None
        if sequence.wants_prompt_logprobs:
            sequence.prompt_logprobs = []

    # -- update

    def _take_batch(self, step: int) -> Batch:
        batch, self._batch = self._batch, None
        assert batch is not None, "This is a bug. No step is computing."
        assert batch.step == step, "This is a bug. The answer is another step's."
        return batch

    def _update_row(
        self, sequence: Sequence, work: RowWork, row: RowOutput, now: float, update: Update
    ) -> Delta | None:
        if row.error is not None:
            failed = GenerationFailed(row.error)
            return Delta((), self._finish(sequence, FinishReason.ERROR, now, error=failed))
        sequence.num_computed += work.num_tokens - len(work.drafts)
        if row.prompt_logprobs:
            sequence.prompt_logprobs += row.prompt_logprobs
        if (sequence.num_remembered + 1) * self.limits.block_size <= sequence.num_computed:
            self._prefixes.remember(sequence)
        tokens: tuple[Token, ...] = ()
        finish = None
        for sampled in row.sampled:
            gap = sequence.append(sampled.token_id, now)
            if gap is None:
                sequence.first_token_mark = self.history.mark()
                update.first_token_s.append(now - sequence.submitted_at)
            else:
                update.gaps_s.append(gap)
            token, reason, stop = self._reader.read(sequence, sampled)
            tokens += (token,)
            if reason is not None:
                finish = self._finish(sequence, reason, now, stop=stop)
                break
        if work.drafts:
            self._learn(sequence, work, len(tokens) - 1, update)
        return _new(Delta, (tokens, finish)) if tokens else None

    def _learn(self, sequence: Sequence, work: RowWork, num_accepted: int, update: Update) -> None:
        """Count the drafts that were right as computed; the slots of the others are written again.

        Blocks that they filled become known to the prefix cache after the next step.
        """
        update.num_draft_tokens += len(work.drafts)
        update.num_accepted.append(num_accepted)
        if sequence.state is State.RUNNING:
            sequence.num_computed += num_accepted
            assert sequence.drafts is not None, "This is a bug. Nobody guessed."
            sequence.drafts.learn(num_accepted)

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        now: float,
        stop: str | None = None,
        error: EngineError | None = None,
    ) -> Finish:
        """End a sequence, the one place that does, and free what it held."""
        prompt = self._reader.prompt_tokens(sequence)
        if sequence.state is State.WAITING:
            self._note_line(sequence)
            self.waiting.remove(sequence)
        else:
            self._give_up_blocks(sequence, is_broken=reason is FinishReason.ERROR)
        sequence.move("finish")
        usage = sequence.usage(now, self.history)
        return Finish(reason, sequence.detokenizer.text, usage, stop, error, prompt)


def _join(sequence: Sequence) -> Join:
    """Tell a runner all that it must know of a sequence that starts."""
    return Join(
        sequence_id=sequence.sequence_id,
        token_ids=tuple(sequence.token_ids),
        num_prompt_tokens=sequence.num_prompt,
        num_computed_tokens=sequence.num_computed,
        blocks=tuple(sequence.blocks),
        params=sequence.params,
    )
