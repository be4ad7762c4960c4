from dataclasses import replace

import pytest
from world import World, shares

from engine.errors import Overloaded
from engine.outputs import FinishReason, PromptToken
from engine.scheduler import Lookup
from engine.sequence import State


def test_nothing_to_do_is_no_batch():
    assert World().schedule() is None


def test_a_prompt_within_the_budget_is_computed_whole_and_sampled():
    world = World("xx")
    world.add("abc", 2)
    assert shares(world.step()) == [(1, 3, 1)]
    assert shares(world.step()) == [(1, 1, 1)]
    assert world.step() is None


def test_a_long_prompt_comes_in_chunks_beside_the_decodes_of_others():
    world = World({1: "xxxxxxxx", 2: "y"}, max_batch_tokens=4)
    world.add("ab", 8)
    world.step()
    world.add("cdefghij", 1)
    assert shares(world.step()) == [(1, 1, 1), (2, 3, 0)]
    assert shares(world.step()) == [(1, 1, 1), (2, 3, 0)]
    assert shares(world.step()) == [(1, 1, 1), (2, 2, 1)]
    assert world.finishes.keys() == {2}


def test_what_the_budget_leaves_starts_the_next_prompt_in_the_same_step():
    world = World(max_batch_tokens=5)
    for prompt in ("abc", "defg", "hi"):
        world.add(prompt, 1)
    assert shares(world.step()) == [(1, 3, 1), (2, 2, 0)]
    assert shares(world.step()) == [(2, 2, 1), (3, 2, 1)]


def test_two_chunked_prompts_share_a_budget_first_come_first_served():
    world = World(max_batch_tokens=4, max_batch_size=2)
    world.add("abcdefghij", 1)
    assert shares(world.step()) == [(1, 4, 0)]
    world.scheduler.limits = replace(world.scheduler.limits, max_batch_tokens=8)
    world.add("klmnopqrst", 1)
    assert shares(world.step()) == [(1, 6, 1), (2, 2, 0)]
    world.scheduler.limits = replace(world.scheduler.limits, max_batch_tokens=4)
    assert shares(world.step()) == [(2, 4, 0)]


def test_new_ones_join_at_the_next_step_while_others_run():
    world = World({1: "xxxx", 2: "yy"})
    world.add("a", 4)
    world.schedule()
    world.add("b", 2)
    world.update()
    batch = world.step()
    assert [join.sequence_id for join in batch.join] == [2]
    assert shares(batch) == [(1, 1, 1), (2, 1, 1)]
    world.run()
    assert world.runner.batches[2].join == ()


def test_a_join_says_all_that_a_runner_must_know():
    world = World({1: "x"})
    sequence = world.add("abc", 2, seed=7)
    (join,) = world.step().join
    assert join.token_ids == (97, 98, 99)
    assert join.num_prompt_tokens == 3
    assert join.num_computed_tokens == 0
    assert len(join.blocks) == 2
    assert join.params is sequence.params


def test_no_more_rows_than_the_batch_holds():
    world = World("xx", max_batch_size=2)
    for _ in range(3):
        world.add("a", 2)
    assert len(world.step().work) == 2
    world.step()
    assert shares(world.step()) == [(3, 1, 1)]


def test_the_first_in_line_is_not_overtaken_by_a_smaller_one():
    world = World({1: "xxxxx"}, num_blocks=4, block_size=2)
    world.add("abcd", 4)
    world.step()
    world.add("efghij", 1)
    world.add("k", 1)
    assert shares(world.step()) == [(1, 1, 1)]
    world.run()
    assert world.start_order == [1, 2, 3]


def test_rows_of_the_ended_leave_with_the_next_batch():
    world = World({2: "yy"})
    world.add("a", 1)
    world.add("b", 3)
    assert world.step().leave == ()
    assert world.step().leave == (1,)
    assert world.step().leave == ()
    world.add("c", 1)
    assert world.step().leave == (2,)


def test_blocks_grow_with_the_output_and_are_told_to_the_runner():
    world = World({1: "xxxxxx"}, block_size=2)
    sequence = world.add("ab", 6)
    new = []
    for _ in range(6):
        new.append(len(world.schedule().work[0].new_blocks))
        world.update()
    assert new == [0, 1, 0, 1, 0, 1]
    assert world.reason(sequence) == FinishReason.LENGTH


def test_a_full_waiting_room_refuses_and_free_rows_widen_it():
    world = World("xxx", max_batch_size=2, max_waiting=1)
    for _ in range(3):
        world.add("a", 3)
    with pytest.raises(Overloaded):
        world.add("a", 3)
    world.step()
    with pytest.raises(Overloaded):
        world.add("a", 3)
    world.run()


# -- preemption


def test_out_of_blocks_the_newest_is_preempted_and_goes_on_from_its_own_tokens():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, block_size=2)
    one, two = world.add("12", 8), world.add("34", 8)
    while not world.scheduler.num_preempted:
        world.step()
    assert repr(two) == "<2 waiting 0/7 tokens, 5 out, 0 blocks>"
    assert repr(one) == "<1 running 7/8 tokens, 6 out, 4 blocks>"
    sent = world.text(two)
    assert sent == "abcde"
    world.run()
    assert (world.text(one), world.text(two)) == ("ABCDEFGH", "abcdefgh")
    assert world.num_rejoined == 1
    (join,) = [
        join
        for batch in world.runner.batches
        for join in batch.join
        if join.sequence_id == 2 and len(join.token_ids) > 2
    ]
    assert join.token_ids == tuple(map(ord, "34abcde"))
    assert join.num_prompt_tokens == 2


def test_a_preempted_row_leaves_and_joins_again_first_in_line():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, block_size=2)
    world.add("12", 8)
    world.add("34", 8)
    while not world.scheduler.num_preempted:
        batch = world.step()
    assert batch.leave == (2,)
    world.add("5", 1)
    world.run()
    assert [join.sequence_id for b in world.runner.batches for join in b.join] == [1, 2, 2, 3]


def test_as_many_as_needed_are_preempted_newest_first():
    world = World({1: "x" * 6, 2: "y" * 6, 3: "z" * 6}, num_blocks=3, block_size=4)
    for prompt in ("1234", "567", "890"):
        world.add(prompt, 6)
    world.step()
    batch = world.step()
    assert [work.sequence_id for work in batch.work] == [1, 2]
    assert [s.sequence_id for s in world.scheduler.waiting] == [3]
    world.run()
    assert all(finish.text in {"xxxxxx", "yyyyyy", "zzzzzz"} for finish in world.finishes.values())


def test_the_newest_preempts_itself_when_it_is_the_one_that_needs_a_block():
    world = World({1: "xxxx", 2: "yyyyyy"}, num_blocks=2, block_size=4)
    world.add("1", 3)
    two = world.add("567", 5)
    world.step()
    assert shares(world.step()) == [(1, 1, 1), (2, 1, 1)]
    assert shares(world.step()) == [(1, 1, 1)]
    assert two.state is State.WAITING
    world.run()
    assert world.text(two) == "yyyyy"


def test_a_preempted_prompt_begins_again():
    world = World({1: "x" * 9}, num_blocks=6, max_batch_tokens=4, is_prefix_caching=False)
    world.add("ab", 9)
    world.step()
    two = world.add("cdefghij", 1)
    world.step()
    assert two.num_computed == 3
    while two.state is State.RUNNING:
        world.step()
    assert world.scheduler.num_preempted == 1
    assert (two.num_computed, two.num_output) == (0, 0)
    world.run()


def next_letter(row):
    """Say what depends on every token so far, and nothing else."""
    return 97 + row.mark(len(row.token_ids) - 1) % 26


@pytest.mark.parametrize("is_prefix_caching", [True, False])
def test_texts_are_the_same_with_and_without_preemption_chunks_and_cache(is_prefix_caching):
    prompts = ["abcabc", "abcabd", "x", "abcabcabc", "abcabc"]
    alone = []
    for prompt in prompts:
        world = World(next_letter)
        sequence = world.add(prompt, 12)
        alone.append(world.run().text(sequence))
    assert len(set("".join(alone))) >= 8
    world = World(
        next_letter, num_blocks=11, max_batch_tokens=5, is_prefix_caching=is_prefix_caching
    )
    sequences = [world.add(prompt, 12) for prompt in prompts]
    world.run()
    assert [world.text(sequence) for sequence in sequences] == alone
    assert world.scheduler.num_preempted > 2
    assert world.num_chunks > 2
    assert (world.num_evicted > 0) == is_prefix_caching


# -- the prefix cache


@pytest.mark.parametrize(
    ("prompt", "num_cached"),
    [
        ("abcdef", 4),
        ("abcdefg", 6),
        ("abcd", 2),
        ("abc", 2),
        ("ab", 0),
        ("abxdef", 2),
        ("cdef", 0),
        ("bcdef", 0),
    ],
)
def test_whole_blocks_of_a_known_prefix_are_not_computed_again(prompt, num_cached):
    world = World()
    world.add("abcdef", 1)
    world.run()
    world.add(prompt, 1)
    (join,) = world.schedule().join
    assert join.num_computed_tokens == num_cached
    assert shares(world.batch) == [(2, len(prompt) - num_cached, 1)]
    assert world.scheduler.lookups == [Lookup(len(prompt), num_cached)]
    world.update()
    assert world.finishes[2].usage.num_cached_tokens == num_cached


def test_a_whole_history_is_found_again_but_for_its_last_token():
    world = World({1: "efgh"})
    world.add("abcd", 4)
    world.run()
    world.add("abcdefgh", 1)  # the last answer's last token was never computed
    assert shares(world.step()) == [(2, 2, 1)]


def test_what_still_runs_is_shared_with_those_that_start():
    world = World({1: "xxxxxx", 2: "yyyyyy"})
    one, two = world.add("abcdef", 6), None
    world.step()
    two = world.add("abcdeg", 6)
    world.step()
    assert two.blocks[:2] == one.blocks[:2]
    assert two.blocks[2] != one.blocks[2]
    world.run()
    assert (world.text(one), world.text(two)) == ("xxxxxx", "yyyyyy")


def test_aborting_the_owner_leaves_shared_blocks_to_the_other():
    world = World({2: "yyyyyy"})
    one = world.add("abcdef", 6)
    world.step()
    two = world.add("abcdeg", 6)
    world.schedule()
    world.abort(one)
    world.update()
    world.add("zzzzzz", 2)
    world.run()
    assert world.text(two) == "yyyyyy"


def test_a_sequence_may_ask_for_nothing_from_the_cache():
    world = World("x")
    world.add("abcdef", 1)
    world.run()
    sequence = world.add("abcdef", 1, is_prefix_cached=False)
    assert shares(world.step()) == [(2, 6, 1)]
    world.run()
    assert world.finish(sequence).usage.num_cached_tokens == 0
    assert world.scheduler.lookups == []
    again = world.add("abcdef", 1)
    world.run()
    assert world.finish(again).usage.num_cached_tokens == 4


def test_without_the_prefix_cache_nothing_is_found():
    world = World(is_prefix_caching=False)
    world.add("abcdef", 1)
    world.run()
    world.add("abcdef", 1)
    assert shares(world.step()) == [(2, 6, 1)]
    assert world.scheduler.pool.num_cached == 0


def test_a_sequence_is_looked_up_once():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, block_size=2)
    world.add("12", 8)
    two = world.add("34", 8)
    lookups, started = [], []
    while world.step():
        lookups += world.scheduler.lookups
        started += world.scheduler.started
    assert world.num_rejoined == 1
    assert (len(lookups), len(started)) == (2, 2)
    assert world.finish(two).usage.num_cached_tokens == 0


# -- prompt logprobs


def prompt_logprobs(world, sequence):
    return [token.logprob for token in world.finish(sequence).prompt]


@pytest.mark.parametrize("max_batch_tokens", [16, 4, 5])
def test_prompt_logprobs_come_for_every_token_but_the_first(max_batch_tokens):
    world = World("x", max_batch_tokens=max_batch_tokens)
    sequence = world.add("abcdefghi", 2, prompt_logprobs=True)
    world.run()
    assert [token.id for token in world.finish(sequence).prompt] == sequence.token_ids[:9]
    assert "".join(token.text for token in world.finish(sequence).prompt) == "abcdefghi"
    assert prompt_logprobs(world, sequence) == [None, *(-float(at) for at in range(1, 9))]


def test_prompt_logprobs_of_one_token_are_none():
    world = World()
    sequence = world.add("a", 1, prompt_logprobs=True)
    world.run()
    assert world.finish(sequence).prompt == (PromptToken(97, "a", None),)


def test_prompt_logprobs_are_not_taken_from_the_cache():
    world = World("x")
    world.add("abcdef", 1)
    world.run()
    sequence = world.add("abcdef", 2, prompt_logprobs=True)
    assert shares(world.step()) == [(2, 6, 6)]
    world.run()
    assert world.finish(sequence).usage.num_cached_tokens == 0
    assert len(prompt_logprobs(world, sequence)) == 6


def test_prompt_logprobs_are_known_after_a_preemption_and_not_asked_for_again():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, is_prefix_caching=False)
    world.add("12", 8)
    two = world.add("34", 8, prompt_logprobs=True)
    world.run()
    assert world.scheduler.num_preempted == 1
    (work,) = [b.work[-1] for b in world.runner.batches if b.join and len(b.join[0].token_ids) > 2]
    assert (work.num_tokens, work.num_logits) == (7, 1)
    assert prompt_logprobs(world, two) == [None, -1.0]


def test_prompt_logprobs_begin_again_when_the_prompt_was_preempted():
    world = World({1: "x" * 9}, num_blocks=6, max_batch_tokens=4)
    world.add("ab", 9)
    world.step()
    two = world.add("cdefghij", 1, prompt_logprobs=True)
    while not world.scheduler.num_preempted:
        world.step()
    assert two.prompt_logprobs == []
    world.run()
    assert prompt_logprobs(world, two) == [None, *(-float(at) for at in range(1, 8))]


def test_prompt_logprobs_that_did_not_all_come_are_not_told():
    world = World(max_batch_tokens=4)
    sequence = world.add("abcdefgh", 1, prompt_logprobs=True)
    world.step()
    world.abort(sequence)
    assert world.finish(sequence).prompt == ()
