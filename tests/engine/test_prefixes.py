"""Who begins like one that is still computing waits for its blocks; nobody waits for ever."""

import pytest
from world import World, shares

from engine.outputs import WaitedFor
from engine.prefixes import Prefixes
from engine.scheduler import Lookup
from engine.sequence import State

LONG = "abcdefghijklmnop"
"""Eight blocks of two."""


def num_computed(world):
    """Count the tokens of all steps."""
    return sum(batch.num_tokens for batch in world.runner.batches)


def test_prompts_that_arrive_together_compute_their_prefix_once():
    world = World("x")
    sequences = [world.add("abcdefgh" + end, 1) for end in "1234"]
    assert shares(world.step()) == [(1, 9, 1)]
    assert shares(world.step()) == [(2, 1, 1), (3, 1, 1), (4, 1, 1)]
    assert [world.finish(s).usage.num_cached_tokens for s in sequences] == [0, 8, 8, 8]


def test_equal_prompts_compute_what_they_share_once():
    world = World("x")
    for _ in range(3):
        world.add("abcdef", 1)
    world.run()
    assert num_computed(world) == 6 + 2 + 2


def test_what_is_less_than_a_block_is_not_waited_for():
    world = World("x")
    world.add("abc", 1)
    world.add("axy", 1)
    assert shares(world.step()) == [(1, 3, 1), (2, 3, 1)]


def test_who_shares_the_beginning_of_a_long_prompt_need_not_wait_for_its_end():
    world = World("x", max_batch_tokens=6)
    first = world.add(LONG, 1)
    second = world.add("abcdefxy", 1)
    assert [shares(world.step()) for _ in range(2)] == [[(1, 6, 0)], [(1, 6, 0)]]
    assert shares(world.schedule()) == [(1, 4, 1), (2, 2, 1)]
    assert (first.num_computed, second.num_cached) == (12, 6)
    world.update()


def test_those_behind_one_that_waits_for_a_prefix_go_on():
    world = World("xx")
    world.add("abcdef", 2)
    second = world.add("abcdeg", 2)
    world.add("uvwxyz", 2)
    assert shares(world.step()) == [(1, 6, 1), (3, 6, 1)]
    assert second.state is State.WAITING
    assert world.num_passed == 1
    assert shares(world.step()) == [(1, 1, 1), (3, 1, 1), (2, 2, 1)]


def test_a_line_that_waits_for_a_prefix_is_looked_at_to_a_bounded_depth():
    limits = {"max_batch_size": 40, "max_waiting": 40, "num_blocks": 200, "max_batch_tokens": 64}
    world = World("x", **limits)
    for _ in range(17):
        world.add("abcdef", 1)
    behind = world.add("uvwxyz", 1)
    world.step()
    assert behind.state is State.WAITING
    world.step()
    assert behind.started_at is not None
    world.run()


def test_a_step_looks_at_no_more_of_a_longer_line(monkeypatch):
    """Where all rows are taken, and where one comes free in each step."""
    looked = []
    for name in ("is_waiting", "find", "must_wait"):
        method = getattr(Prefixes, name)
        monkeypatch.setattr(
            Prefixes, name, lambda *given, method=method: looked.append(1) or method(*given)
        )

    def num_looks(num_waiting):
        world = World("xy" * 8, max_batch_size=4, max_waiting=2000, max_waiting_tokens=99_999)
        for number in range(4):
            world.add(chr(ord("a") + number) * 3, 8 + number)
        world.step()
        for number in range(num_waiting):
            world.add("abcdefgh"[number % 8] * 4, 4)
        looked.clear()
        for _ in range(14):
            world.step()
        assert sum(s.state is State.FINISHED for s in world.sequences.values()) >= 4
        return len(looked)

    assert num_looks(1500) == num_looks(50) > 14


@pytest.mark.parametrize("what", ["abort", "abort in a step", "row error", "step error"])
def test_when_the_first_ends_the_second_computes_for_itself(what):
    world = World("x", max_batch_tokens=4)
    first = world.add(LONG, 1)
    second = world.add(LONG, 1)
    world.step()
    world.schedule()
    if what == "row error":
        world.runner.row_errors[1] = "nan"
    if what == "step error":
        world.fail()
    if what == "abort in a step":
        world.abort(first)
    if world.batch is not None:
        world.update()
    world.abort(first)
    num_known = {"abort": 8, "abort in a step": 4}.get(what, 0)
    assert shares(world.step()) == [(2, 4, 0)]
    assert second.num_cached == num_known
    world.run()
    assert world.text(second) == "x"


def test_when_the_first_is_preempted_nobody_is_stuck():
    world = World({1: "x" * 14, 2: "y", 3: "z"}, num_blocks=10, max_batch_tokens=4)
    world.add("uvw", 14)
    world.step()
    first, second = world.add(LONG, 1), world.add(LONG[:15], 1)
    while not world.scheduler.num_preempted:
        world.step()
    assert first.state is second.state is State.WAITING
    world.run()
    assert (world.text(first), world.text(second)) == ("y", "z")


def test_a_later_one_that_computes_the_same_is_not_waited_for():
    world = World("xxx", max_batch_tokens=10)
    world.add("abcdef", 3)
    second = world.add("abcdefghi", 1)
    world.add("abcdefghi", 1, is_prefix_cached=False)
    assert shares(world.step()) == [(1, 6, 1), (3, 4, 0)]
    assert shares(world.step()) == [(1, 1, 1), (3, 5, 1), (2, 3, 1)]
    assert second.num_cached == 6


@pytest.mark.parametrize(
    ("limits", "params"),
    [
        ({}, {"prompt_logprobs": True}),
        ({}, {"is_prefix_cached": False}),
        ({"is_prefix_caching": False}, {}),
    ],
)
def test_who_may_not_share_waits_for_nobody(limits, params):
    world = World("x", **limits)
    world.add("abcdef", 1)
    world.add("abcdef", 1, **params)
    assert [number for number, *_ in shares(world.step())] == [1, 2]
    world.run()
    assert num_computed(world) == 12


def test_a_prompt_whose_logprobs_are_wanted_is_waited_for_as_any_other():
    world = World("x")
    world.add("abcdef", 1, prompt_logprobs=True)
    second = world.add("abcdef", 1)
    world.run()
    assert second.num_cached == 4


def test_who_waited_for_a_prefix_says_so_and_those_who_passed_do_not():
    world = World("xx")
    sequences = [world.add(prompt, 2) for prompt in ("abcdef", "abcdeg", "uvwxyz")]
    world.run()
    around = [world.finish(sequence).usage.around for sequence in sequences]
    assert [one.waited_for for one in around] == [None, WaitedFor.PREFIX, None]
    assert [one.num_ahead for one in around] == [0, 1, 2]


def test_a_lookup_counts_what_was_waited_for_as_found():
    world = World("x")
    world.add("abcdef", 1)
    world.add("abcdef", 1)
    lookups = []
    while world.step():
        lookups += world.scheduler.lookups
    assert lookups == [Lookup(6, 0), Lookup(6, 4)]


def test_the_next_turn_finds_the_prompt_and_the_answer_in_whole_blocks():
    world = World({1: "ijklmnop", 2: "x"}, block_size=4)
    first = world.add("abcdefgh", 8)
    world.run()
    history = "abcdefgh" + world.text(first)
    turn = world.add(history + "and now?", 1)
    world.run()
    # the answer's last token was never computed, so its block is not whole
    assert turn.num_cached == len(history) - 4
    third = world.add(history + "and now?", 1)
    world.run()
    assert third.num_cached == len(history) + 4


def test_an_adapter_finds_its_own_blocks_and_no_foreign_ones():
    world = World("x")
    cached = []
    for adapter in (None, "one", "other", None, "one", "other"):
        cached.append(world.add("abcdef", 1, adapter=adapter))
        world.run()
    assert [sequence.num_cached for sequence in cached] == [0, 0, 0, 4, 4, 4]


def test_who_computes_with_another_adapter_is_not_waited_for():
    world = World("x", max_batch_tokens=24)
    for adapter in (None, "one", "other", "one"):
        world.add("abcdef", 1, adapter=adapter)
    assert shares(world.step()) == [(1, 6, 1), (2, 6, 1), (3, 6, 1)]
    assert shares(world.step()) == [(4, 2, 1)]


def test_a_preempted_row_goes_on_with_its_adapter_from_its_own_blocks():
    world = World({1: "x" * 14, 2: "yy"}, num_blocks=10, max_batch_tokens=4)
    world.add("uvw", 14)
    world.step()
    second = world.add(LONG, 2, adapter="one")
    while not world.scheduler.num_preempted:
        world.step()
    world.run()
    assert world.text(second) == "yy"
    assert {row.params.adapter for b in world.runner.batches for row in b.join} == {None, "one"}
