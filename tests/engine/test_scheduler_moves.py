import itertools
import random

import pytest
from fakes import EOS
from hypothesis import settings, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import World

from engine.batch import Batch, RowOutput, StepOutput
from engine.errors import GenerationFailed, Overloaded
from engine.outputs import FinishReason
from engine.pace import Pace
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, State


def test_a_step_is_answered_before_the_next_is_chosen():
    world = World()
    world.add("a", 1)
    world.schedule()
    with pytest.raises(AssertionError, match="This is a bug"):
        world.scheduler.schedule(0.0)


@pytest.mark.parametrize(
    "output",
    [
        StepOutput(7, (RowOutput(1), RowOutput(2))),
        StepOutput(1, (RowOutput(2), RowOutput(1))),
    ],
)
def test_an_answer_to_another_question_is_a_bug(output):
    world = World()
    world.add("a", 1)
    world.add("b", 1)
    world.schedule()
    with pytest.raises(AssertionError, match="This is a bug"):
        world.scheduler.update(output, 0.0)


def test_an_answer_with_a_row_missing_is_a_bug():
    world = World()
    world.add("a", 1)
    world.schedule()
    with pytest.raises(ValueError, match="shorter"):
        world.scheduler.update(StepOutput(1, ()), 0.0)


def test_an_answer_without_a_question_is_a_bug():
    with pytest.raises(AssertionError, match="This is a bug"):
        World().scheduler.update(StepOutput(1, ()), 0.0)
    with pytest.raises(AssertionError, match="This is a bug"):
        World().scheduler.fail(GenerationFailed(""), 0.0)


LEGAL = {
    (State.NEW, "admit"): State.WAITING,
    (State.WAITING, "start"): State.RUNNING,
    (State.RUNNING, "preempt"): State.WAITING,
    (State.RUNNING, "finish"): State.FINISHED,
    (State.WAITING, "finish"): State.FINISHED,
}


@pytest.mark.parametrize(
    ("state", "event"),
    list(itertools.product(State, ["admit", "start", "preempt", "finish", "nap"])),
)
def test_a_sequence_moves_by_the_table_and_anything_else_is_a_bug(state, event):
    sequence = Sequence(1, [97], SamplingParams(max_new_tokens=1), None)
    sequence.state = state
    if (state, event) in LEGAL:
        sequence.move(event)
        assert sequence.state is LEGAL[state, event]
    else:
        with pytest.raises(RuntimeError, match="This is a bug"):
            sequence.move(event)
        assert sequence.state is state


def test_a_sequence_tells_its_status_in_a_line():
    world = World("xyz")
    sequence = world.add("abc", 2)
    lines = [repr(sequence)]
    for _ in range(2):
        world.step()
        lines.append(repr(sequence))
    assert lines == [
        "<1 waiting 0/3 tokens, 0 out, 0 blocks>",
        "<1 running 3/4 tokens, 1 out, 2 blocks>",
        "<1 finished 0/5 tokens, 2 out, 0 blocks>",
    ]


class Moves(RuleBasedStateMachine):
    """Add, schedule, update, abort, expire and fail in any order; `World` checks every move."""

    @initialize(
        num_blocks=st.integers(2, 6),
        block_size=st.integers(1, 3),
        max_batch_size=st.integers(1, 4),
        more_tokens=st.integers(0, 4),
        max_waiting=st.integers(0, 3),
        max_queue_s=st.sampled_from([None, 3.0]),
        is_prefix_caching=st.sampled_from([True, True, False]),
        max_drafts=st.sampled_from([0, 1, 3]),
        is_paced=st.booleans(),
        max_step_s=st.sampled_from([None, 0.5, 2.0]),
    )
    def make(self, max_batch_size, more_tokens, is_paced, max_step_s, **limits):
        max_batch_tokens = max_batch_size + more_tokens
        self.world = World(
            lambda row: self.ids[row.sequence_id % len(self.ids)],
            max_batch_size=max_batch_size,
            max_batch_tokens=max_batch_tokens,
            pace=Pace(max_step_s, 1, max_batch_tokens) if is_paced else None,
            step_s=lambda batch: 0.01 * len(batch.work) + 0.02 * batch.num_prefill_tokens,
            **limits,
        )
        self.capacity = limits["num_blocks"] * limits["block_size"]
        self.ids = [97]

    @rule(
        prompt=st.text("ab", min_size=1, max_size=7),
        max_new_tokens=st.integers(1, 12),
        min_new_tokens=st.sampled_from([0, 0, 2]),
        ignore_eos=st.booleans(),
        stop=st.sampled_from([(), (), ("ba",), ("abb", "bb")]),
        prompt_logprobs=st.sampled_from([False, False, True]),
        is_prefix_cached=st.sampled_from([True, True, False]),
        adapter=st.sampled_from([None, None, "one", "other"]),
    )
    def add(self, prompt, max_new_tokens, **params):
        max_new_tokens = min(max_new_tokens, self.capacity - len(prompt))
        if max_new_tokens < 1:
            return
        limits, scheduler = self.world.scheduler.limits, self.world.scheduler
        num_free_rows = limits.max_batch_size - len(scheduler.running)
        is_full = len(scheduler.waiting) >= limits.max_waiting + num_free_rows
        try:
            self.world.add(prompt, max_new_tokens, **params)
        except Overloaded:
            assert is_full
        else:
            assert not is_full

    @precondition(lambda self: self.world.batch is None)
    @rule()
    def schedule(self):
        self.world.schedule()

    @precondition(lambda self: self.world.batch is not None)
    @rule(
        ids=st.lists(st.sampled_from([97, 98, 97, 98, EOS]), min_size=1, max_size=3),
        has_error=st.sampled_from([False] * 7 + [True]),
    )
    def update(self, ids, has_error):
        self.ids = ids
        if has_error:
            self.world.runner.row_errors[self.world.batch.work[-1].sequence_id] = "nan"
        self.world.update()

    @precondition(lambda self: self.world.batch is None)
    @rule(num_steps=st.integers(1, 6), ids=st.lists(st.sampled_from([97, 98]), min_size=1))
    def steps(self, num_steps, ids):
        self.ids = ids
        for _ in range(num_steps):
            self.world.step()

    @precondition(lambda self: self.world.batch is not None)
    @rule(is_sure=st.sampled_from([False, False, True]))
    def fail(self, is_sure):
        if is_sure:
            self.world.fail()

    @precondition(lambda self: self.world.sequences)
    @rule(data=st.data())
    def abort(self, data):
        sequence = data.draw(st.sampled_from(list(self.world.sequences.values())))
        had_ended = sequence.sequence_id in self.world.finishes
        assert (self.world.abort(sequence) is None) == had_ended

    @rule(seconds=st.sampled_from([0.5, 4.0]))
    def expire(self, seconds):
        self.world.clock.advance(seconds)
        self.world.expire()

    def teardown(self):
        world = getattr(self, "world", None)
        if world is None:
            return
        self.ids = [97]
        if world.batch is not None:
            world.update()
        world.run()
        assert world.finishes.keys() == world.sequences.keys()
        target(float(world.scheduler.num_preempted), label="preempted")
        target(float(world.num_hits), label="hits")
        target(float(world.num_evicted), label="evicted")
        target(float(world.num_passed), label="passed")
        target(float(world.num_pauses), label="pauses")
        target(float(world.num_accepted), label="accepted")
        target(float(world.num_refuted), label="refuted")


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=50, stateful_step_count=25)


def simulate(seed, max_drafts):
    """Make two thousand random moves in a tiny world, and let it end."""
    dice = random.Random(seed)
    world = World(
        lambda row: dice.choice([97, 97, 98, 98, 98, EOS]),
        num_blocks=5,
        max_batch_size=3,
        max_batch_tokens=5,
        max_waiting=2,
        max_queue_s=4.0,
        max_drafts=max_drafts,
        pace=Pace(None, 1, 5),
        step_s=lambda batch: 0.01 * len(batch.work) + 0.02 * batch.num_prefill_tokens,
    )
    world.num_refused = world.num_aborted_in_step = 0
    for _ in range(2000):
        world.clock.advance(1.0)
        world.expire()
        if dice.random() < 0.6:
            prompt = "".join(dice.choice("ab") for _ in range(dice.randint(1, 6)))
            try:
                world.add(prompt, dice.randint(1, 10 - len(prompt)))
            except Overloaded:
                world.num_refused += 1
        if world.schedule() is None:
            continue
        if dice.random() < 0.1:
            work = dice.choice(world.batch.work)
            world.abort(world.sequences[work.sequence_id])
            world.num_aborted_in_step += 1
        if dice.random() < 0.05:
            world.runner.row_errors[world.batch.work[0].sequence_id] = "nan"
        if dice.random() < 0.02:
            world.fail()
        else:
            world.update()
    world.run()
    return world


@pytest.mark.parametrize(("seed", "max_drafts"), [(0, 0), (1, 0), (2, 0), (0, 3), (2, 3), (3, 3)])
def test_random_moves_preempt_chunk_evict_find_abort_fail_expire_and_refuse(seed, max_drafts):
    world = simulate(seed, max_drafts)
    assert world.finishes.keys() == world.sequences.keys()
    assert {finish.reason for finish in world.finishes.values()} == {
        FinishReason.LENGTH,
        FinishReason.EOS_TOKEN,
        FinishReason.ABORT,
        FinishReason.ERROR,
    }
    errors = {type(f.error) for f in world.finishes.values() if f.error is not None}
    assert errors == {GenerationFailed, Overloaded}
    counts = (
        world.scheduler.num_preempted,
        world.num_rejoined,
        world.num_chunks,
        world.num_hits,
        world.num_evicted,
        world.num_passed,
        world.num_pauses,
        world.num_refused,
        world.num_aborted_in_step,
    )
    assert min(counts) >= 3, counts
    assert min(world.num_accepted, world.num_refuted) >= (3 if max_drafts else 0)


def test_batches_are_frozen():
    with pytest.raises(AttributeError):
        Batch(1, (), (), ()).step = 2
