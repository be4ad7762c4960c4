"""StepHistory, and what a sequence tells of its circumstances."""

import pytest
from world import World

from engine.history import StepHistory
from engine.outputs import Circumstances, LongStep, WaitedFor


def history(*durations, rows=1):
    """Steps of these durations, from 0 on; the first has nothing to last from."""
    made, now = StepHistory(), 0.0
    made.add(now, rows, 0)
    for duration in durations:
        now += duration
        made.add(now, rows, round(duration * 100))
    return made


@pytest.mark.parametrize(
    ("since", "longest"),
    [(0.0, 5.0), (1.0, 5.0), (5.9, 5.0), (6.0, 3.0), (9.9, 3.0), (10.0, 2.0), (13.0, None)],
)
def test_the_longest_step_since_a_moment_is_found(since, longest):
    # ends: 0, 1, 6, 7, 10, 11, 13
    found = history(1.0, 5.0, 1.0, 3.0, 1.0, 2.0).longest_since(since)
    assert (found and found.duration_s) == longest


def test_the_longest_step_knows_its_rows_and_prompt_tokens():
    assert history(1.0, 2.0, rows=3).longest_since(0.0) == LongStep(2.0, 3, 200)


def test_of_equal_steps_the_last_is_remembered():
    assert history(1.0, 1.0).longest_since(1.0) is not None


def test_a_history_of_ever_shorter_steps_stays_bounded():
    made = history(*(1.0 / n for n in range(1, 2000)))
    assert len(made._longest) == 256
    assert made.num_steps == 2000


def test_rows_are_averaged_from_a_mark_on():
    made = history(1.0, rows=8)
    mark = made.mark()
    assert made.mean_rows_since(mark) is None
    made.add(3.0, 1, 0)
    made.add(4.0, 4, 0)
    assert made.mean_rows_since(mark) == 2.5


def circumstances(world, sequence) -> Circumstances:
    return world.finish(sequence).usage.around


def test_a_sequence_alone_has_nothing_to_tell():
    world = World("xyz")
    alone = world.add("a", 3)
    world.run()
    assert circumstances(world, alone) == Circumstances(mean_rows=1.0)


def test_who_waits_for_a_row_says_so_and_how_many_were_ahead():
    world = World(lambda row: 97, max_batch_size=1)
    first, second, third = (world.add("a", 4) for _ in range(3))
    world.run()
    assert [circumstances(world, s).waited_for for s in (first, second, third)] == [
        None,
        WaitedFor.ROW,
        WaitedFor.ROW,
    ]
    assert [circumstances(world, s).num_ahead for s in (first, second, third)] == [0, 1, 2]


def test_who_waits_for_blocks_says_so():
    world = World(lambda row: 97, num_blocks=4, block_size=2, is_prefix_caching=False)
    first, second = world.add("abcde", 2), world.add("fghij", 2)
    world.run()
    assert circumstances(world, first).waited_for is None
    assert circumstances(world, second).waited_for is WaitedFor.BLOCKS


def test_company_is_counted_from_the_first_token_on():
    world = World(lambda row: 97)
    first = world.add("a", 5)
    for _ in range(3):
        world.step()
    second = world.add("a", 2)
    world.run()
    assert circumstances(world, first).mean_rows == (1 + 1 + 2 + 2) / 4
    assert circumstances(world, second).mean_rows == 2.0


def test_a_newcomers_prompt_is_the_cause_of_a_pause():
    world = World(lambda row: 97)
    first = world.add("a", 5)
    for _ in range(3):
        world.clock.advance(0.01)
        world.step()
    world.add("bcdef", 1)
    world.schedule()
    world.clock.advance(2.0)
    world.update()
    world.run()
    assert circumstances(world, first).longest_step == LongStep(2.0, 2, 5)


def test_a_preempted_sequence_counts_it_and_the_time_it_lost():
    world = World(lambda row: 97, num_blocks=6, block_size=2, is_prefix_caching=False)
    first, second = world.add("ab", 8), world.add("cd", 8)
    while not world.scheduler.num_preempted:
        world.step()
    left_at = second.last_token_at
    world.clock.advance(3.0)
    world.run()
    assert circumstances(world, first).num_preempted == 0
    lost = circumstances(world, second)
    assert lost.num_preempted == 1
    assert lost.preempted_s == world.clock.now - left_at == 3.0
    assert lost.waited_for is None


def test_progress_follows_a_sequence_from_the_line_to_its_tokens():
    world = World(lambda row: 97, max_batch_size=1)
    first, second = world.add("abc", 4), world.add("abc", 4)
    assert not first.progress().is_running
    world.clock.advance(1.0)
    world.step()
    world.clock.advance(1.0)
    world.step()
    running, waiting = first.progress(), second.progress()
    assert (running.is_running, running.num_prompt_tokens, running.num_output_tokens) == (
        True,
        3,
        2,
    )
    assert running.num_computed_tokens == 4
    assert (running.started_at, running.first_token_at) == (101.0, 101.0)
    assert (waiting.is_running, waiting.num_output_tokens, waiting.started_at) == (False, 0, None)
    assert waiting.submitted_at == 100.0


def test_who_never_was_first_in_line_waited_for_what_the_first_could_not_have():
    world = World(lambda row: 97, max_batch_size=2)
    running = [world.add("a", 8), world.add("a", 8)]
    world.step()
    first, second, gone = (world.add("a", 1) for _ in range(3))
    world.step()
    for sequence in (gone, *running):
        world.abort(sequence)
    world.run()
    assert first.started_at == second.started_at
    for sequence in (first, second, gone):
        assert circumstances(world, sequence).waited_for is WaitedFor.ROW


def test_who_waits_for_the_next_step_only_waits_for_nothing():
    world = World(lambda row: 97, max_batch_size=1)
    world.add("a", 1)
    world.add("a", 1)
    world.run()
    later = [world.add("a", 1), world.add("a", 1)]
    world.run()
    assert [circumstances(world, s).waited_for for s in later] == [None, WaitedFor.ROW]
