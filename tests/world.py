"""World: a scheduler, its runner and its clients in one place, checked after every move."""

from dataclasses import replace
from itertools import takewhile

import msgspec
import pytest
from fakes import EOS, FakeClock, FakeVocabulary, ScriptedRunner

from engine.config import Limits
from engine.detokenizer import Detokenizer
from engine.errors import GenerationFailed
from engine.outputs import FinishReason
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.sequence import Sequence, State

LIMITS = Limits(
    num_blocks=16,
    block_size=2,
    max_batch_size=4,
    max_batch_tokens=16,
    max_waiting=4,
    max_waiting_tokens=1000,
    max_queue_s=None,
    max_input_tokens=31,
    max_total_tokens=32,
)


def resent(record):
    """Send a record through JSON and msgpack, as to a runner in another process."""
    for codec in (msgspec.json, msgspec.msgpack):
        again = codec.decode(codec.encode(record), type=type(record))
        assert again == record
    return again


class World:
    """A scheduler, its runner and its clients. Every move ends in a check."""

    def __init__(self, scripts="", *, words=(), pace=None, step_s=lambda batch: 0.0, **limits):
        self.vocabulary = FakeVocabulary(*words)
        self.scheduler = Scheduler(replace(LIMITS, **limits), self.vocabulary, [EOS], pace)
        self.step_s = step_s
        """How long a batch takes."""
        self.runner = ScriptedRunner(scripts, block_size=self.scheduler.limits.block_size)
        self.clock = FakeClock()
        self.sequences = {}
        self.tokens = {}
        self.finishes = {}
        self.batch = None
        self.start_order = []
        self.num_drafts = self.num_accepted = self.num_refuted = 0
        self.num_chunks = self.num_hits = self.num_evicted = self.num_rejoined = 0
        self.num_passed = self.num_pauses = 0
        """Times that one started while one before it waited for a prefix, and steps that left a
        prompt out."""

    def add(self, prompt="a", max_new_tokens=1, **params):
        sequence_id = len(self.sequences) + 1
        ids = self.vocabulary.ids(prompt)
        params = SamplingParams(max_new_tokens=max_new_tokens, **params)
        detokenizer = Detokenizer(self.vocabulary, ids, params.stop, keep_stop=params.keep_stop)
        sequence = Sequence(sequence_id, ids, params, detokenizer, self.clock())
        self.scheduler.add(sequence)
        self.sequences[sequence_id] = sequence
        self.tokens[sequence_id] = []
        self.scheduler.check()
        return sequence

    def schedule(self):
        assert self.batch is None
        before = list(self.scheduler.running)
        known = set(self.scheduler.pool._prefix_of)
        num_preempted = self.scheduler.num_preempted
        self.batch = self.scheduler.schedule(self.clock())
        self.scheduler.check()
        if self.batch is None:
            assert not self.scheduler.num_sequences, "nothing is computed and somebody waits"
            return None
        self.num_evicted += len(known - set(self.scheduler.pool._prefix_of))
        self.num_hits += sum(1 for lookup in self.scheduler.lookups if lookup.num_hit)
        self.num_chunks += sum(1 for work in self.batch.work if not work.is_sampled)
        self.num_rejoined += sum(
            1 for join in self.batch.join if len(join.token_ids) > join.num_prompt_tokens
        )
        self.num_drafts += sum(len(work.drafts) for work in self.batch.work)
        self._look(self.batch, before, self.scheduler.num_preempted - num_preempted)
        return self.batch

    def update(self):
        output = resent(self.runner.execute(resent(self.batch)))
        self.clock.advance(self.step_s(self.batch))
        self.batch = None
        update = self.scheduler.update(output, self.clock())
        self.num_accepted += sum(update.num_accepted)
        self.num_refuted += update.num_draft_tokens - sum(update.num_accepted)
        self._hear(update.gains)
        return update

    def fail(self):
        self.runner.raises = RuntimeError("out of memory")
        with pytest.raises(RuntimeError):
            self.runner.execute(self.batch)
        self.batch = None
        self._hear(self.scheduler.fail(GenerationFailed("out of memory"), self.clock()).gains)

    def step(self):
        batch = self.schedule()
        if batch is not None:
            self.update()
        return batch

    def run(self):
        """Step until all have ended; the oldest gains a token a step, so that is bounded."""
        live = [s for s in self.sequences.values() if s.state is not State.FINISHED]
        for _ in range(sum(s.num_prompt + s.params.max_new_tokens for s in live)):
            if self.step() is None:
                break
        assert not self.scheduler.num_sequences, "somebody starves"
        assert self.scheduler.pool.num_free == self.scheduler.pool.num_blocks
        return self

    def abort(self, sequence, error=None):
        gain = self.scheduler.abort(sequence, self.clock(), error)
        if gain is not None:
            self._hear([gain])
        return gain

    def expire(self):
        self._hear(self.scheduler.expire(self.clock()))

    def text(self, sequence):
        return "".join(token.visible for token in self.tokens[sequence.sequence_id])

    def finish(self, sequence):
        return self.finishes.get(sequence.sequence_id)

    def reason(self, sequence):
        finish = self.finish(sequence)
        return finish and finish.reason

    def _look(self, batch, before, num_preempted):
        """See that the batch keeps the limits, the line's order and the order of preemption."""
        limits, running = self.scheduler.limits, list(self.scheduler.running)
        assert batch.num_tokens <= limits.max_batch_tokens
        at_work = [work.sequence_id for work in batch.work]
        if self.scheduler._pace is not None and at_work == running[:-1]:
            assert self.scheduler.running[running[-1]].num_behind > 1, "a stream has no work"
            self.num_pauses += 1
        else:
            assert at_work == running, "a running row has no work"
        assert all(work.is_sampled for work in batch.work[:-1]), "a chunk is not the last row"
        stayed = [sequence_id for sequence_id in before if sequence_id in running]
        assert stayed == before[: len(stayed)], "another than the newest is preempted"
        assert len(before) - len(stayed) == num_preempted
        if num_preempted:
            line = [sequence.sequence_id for sequence in self.scheduler.waiting]
            assert line[:num_preempted] == before[len(stayed) :], "the line is out of order"
            assert not batch.join
        self.start_order += [sequence.sequence_id for sequence in self.scheduler.started]
        for sequence in self.scheduler.started:
            assert not self.lacks_what_another_computes(sequence), "a prefix is computed twice"
            for other in self.scheduler.waiting:
                is_passed = other.started_at is None and other.sequence_id < sequence.sequence_id
                if is_passed:
                    self.num_passed += 1
                    assert self.lacks_what_another_computes(other), "somebody was overtaken"

    def lacks_what_another_computes(self, sequence):
        """Look at every token: would an older prompt's blocks save it work?"""
        scheduler, size = self.scheduler, self.scheduler.limits.block_size
        is_sharing = scheduler.limits.is_prefix_caching and sequence.params.is_prefix_cached
        if not is_sharing or sequence.params.prompt_logprobs:
            return False
        ids = sequence.token_ids[: sequence.num_prompt - 1]
        root = scheduler._prefixes.root(sequence)
        num_known = sequence.num_computed or size * len(scheduler.pool.find(ids, len(ids), root))
        entering = {join.sequence_id for join in self.batch.join}
        for other in scheduler.running.values():
            is_computing = other.num_behind > 1 or other.sequence_id in entering
            if other.sequence_id >= sequence.sequence_id or not is_computing:
                continue
            if other.params.adapter != sequence.params.adapter:
                continue
            pairs = zip(ids, other.token_ids, strict=False)
            num_common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if num_common // size * size > max(num_known, other.num_computed):
                return True
        return False

    def _hear(self, gains):
        self.scheduler.check()
        for sequence, delta in gains:
            sequence_id = sequence.sequence_id
            assert sequence_id not in self.finishes, "news after the end"
            self.tokens[sequence_id] += delta.tokens
            finish = delta.finish
            if finish is None:
                assert delta.tokens
                assert sequence.state is State.RUNNING
                continue
            self.finishes[sequence_id] = finish
            assert sequence.state is State.FINISHED
            assert not sequence.blocks
            assert finish.usage.num_output_tokens == len(self.tokens[sequence_id])
            assert finish.text == self.text(sequence)
            assert (finish.error is not None) == (finish.reason is FinishReason.ERROR)


def shares(batch):
    """Say for each row what it computes: (id, tokens, logits)."""
    return [(work.sequence_id, work.num_tokens, work.num_logits) for work in batch.work]
