"""A step that is chosen while the one before it computes: when, of what, and how taken back."""

import pytest
from world import World, shares

from engine.outputs import FinishReason


def streaming(scripts="xxxxxx", prompt="a", max_new_tokens=6, **limits):
    """Make a world in which one sequence has its first token and computes its second."""
    world = World(scripts, **limits)
    sequence = world.add(prompt, max_new_tokens)
    world.step()
    world.schedule()
    return world, sequence


def test_the_rows_that_stream_go_on():
    world, sequence = streaming()
    other = world.add("b", 6)
    world.update()
    world.schedule()
    ahead = world.foresee()
    assert ahead.step == world.batch.step + 1
    assert shares(ahead) == [(1, 1, 1), (2, 1, 1)]
    world.run()
    assert [world.text(s) for s in (sequence, other)] == ["xxxxxx"] * 2


def test_it_brings_the_blocks_that_will_be_needed():
    world, _ = streaming(prompt="abc")
    assert len(world.scheduler.running[1].blocks) == 2  # of two tokens
    (work,) = world.foresee().work
    assert len(work.new_blocks) == 1
    world.update()
    world.update()
    assert world.scheduler.running[1].num_computed == 5


def test_who_will_have_ended_by_length_is_left_out():
    world = World("xxxxxx")
    world.add("a", 2)
    world.add("b", 5)
    world.step()
    world.schedule()
    assert shares(world.foresee()) == [(2, 1, 1)]


@pytest.mark.parametrize("max_new_tokens", [1, 2])
def test_after_the_last_token_of_all_nothing_follows(max_new_tokens):
    world = World("xx")
    world.add("a", max_new_tokens)
    for _ in range(max_new_tokens - 1):
        world.step()
    world.schedule()
    assert world.foresee() is None


def test_where_somebody_waits_nothing_is_foreseen():
    world, _ = streaming(max_batch_size=1)
    world.add("b")
    assert world.foresee() is None


def test_before_a_prompt_is_whole_nothing_is_foreseen():
    world = World("xxxxxx", max_batch_tokens=4)
    world.add("abcdef", 2)
    world.schedule()
    assert not world.batch.work[-1].is_sampled
    assert world.foresee() is None
    world.update()
    world.schedule()
    assert shares(world.foresee()) == [(1, 1, 1)]


def test_with_speculation_nothing_is_foreseen():
    world, _ = streaming(max_drafts=2)
    assert world.foresee() is None


def test_without_blocks_nothing_is_foreseen_and_nobody_is_preempted():
    world = World("xxxxxx", num_blocks=2)
    world.add("a", 3)
    world.add("b", 3)
    world.step()
    world.schedule()
    assert world.scheduler.pool.num_free == 0
    assert world.foresee() is None
    assert world.scheduler.num_preempted == 0


def test_one_step_is_foreseen_not_two():
    world, _ = streaming()
    assert world.foresee() is not None
    assert world.scheduler.foresee() is None


def test_what_is_taken_back_gives_its_blocks_and_its_number_back():
    world, _ = streaming(prompt="abc")
    ahead = world.foresee()
    world.revoke()
    world.add("b", 2)
    world.update()
    assert world.schedule().step == ahead.step
    assert [work.sequence_id for work in world.batch.work] == [1, 2]
    world.run()


@pytest.mark.parametrize("how", ["end", "error", "abort"])
def test_who_ends_otherwise_gains_nothing_more(how):
    world, sequence = streaming("x" if how == "end" else "xxxxxx")  # and then EOS
    world.foresee()
    if how == "error":
        world.runner.row_errors = {1: "nan"}
    if how == "abort":
        world.abort(sequence)
    world.update()
    reasons = {"end": FinishReason.EOS_TOKEN, "error": FinishReason.ERROR}
    assert world.reason(sequence) is reasons.get(how, FinishReason.ABORT)
    num_tokens = len(world.tokens[1])
    newcomer = world.add("b", 3)
    world.update()
    assert world.num_in_vain == 1
    assert len(world.tokens[1]) == num_tokens
    world.runner.scripts = "yyy"
    world.run()
    assert world.text(newcomer) == "yyy"


def test_blocks_of_who_ended_go_to_others_while_its_last_token_is_computed_in_vain():
    scripts = {1: "x", 2: "yyyyyyyy"}
    world = World(scripts, num_blocks=5, max_total_tokens=16)
    world.add("abc", 6)
    world.add("b", 8)
    world.step()
    world.schedule()
    world.foresee()
    (ended, _) = world.batch.work
    blocks = set(world.scheduler.running[ended.sequence_id].blocks)
    world.update()
    for _ in range(3):
        world.foresee()
        world.update()
    assert blocks & set(world.scheduler.running[2].blocks)
    world.run()
    assert world.text(world.sequences[2]) == "yyyyyyyy"
