"""Drafts in the scheduler: who gets them, what they may take, and that nobody can tell."""

import pytest
from fakes import EOS
from world import World, shares

from engine.outputs import FinishReason
from engine.pace import Pace
from engine.sampling_params import LogprobsMode


def drafts(batch):
    """Say for each row what is guessed for it."""
    return ["".join(map(chr, work.drafts)) for work in batch.work]


def test_what_followed_the_same_tokens_is_computed_with_the_last_one():
    world = World({1: "cdefgabh"}, max_drafts=3)
    sequence = world.add("xabcdefxab", 8)
    assert shares(world.step()) == [(1, 10, 1)]
    assert world.text(sequence) == "c"
    batch = world.step()
    assert (shares(batch), drafts(batch)) == ([(1, 4, 4)], ["def"])
    assert world.text(sequence) == "cdefg"
    assert world.num_accepted == 3
    # "fg", "ga" are new; after "ab" only the last token is missing, which is chosen, not guessed
    for text in ("cdefga", "cdefgab", "cdefgabh"):
        assert drafts(world.step()) == [""]
        assert world.text(sequence) == text
    assert world.reason(sequence) is FinishReason.LENGTH


def test_only_what_was_guessed_right_counts_as_computed_and_is_known_to_others():
    world = World({1: "cdzyx"}, max_drafts=3, block_size=1)
    sequence = world.add("xabcdefxab", 5)
    world.step()
    assert drafts(world.step()) == ["def"]
    assert (world.num_accepted, world.num_refuted) == (1, 2)
    assert world.text(sequence) == "cdz"
    assert sequence.num_computed == sequence.num_tokens - 1 == 12
    world.step()
    pool = world.scheduler.pool
    assert len(pool._prefix_of) == len(pool.find(sequence.token_ids, 13)) == 13


def test_prompts_come_before_drafts():
    world = World({1: "abababababab", 2: "x"}, max_drafts=4, max_batch_tokens=6)
    world.add("ab", 12)
    while not drafts(world.schedule())[0]:
        world.update()
    world.update()
    world.add("cdefghij", 1)
    batch = world.step()
    assert shares(batch) == [(1, 1, 1), (2, 5, 0)]
    batch = world.step()
    assert [work.num_tokens for work in batch.work] == [3, 3]
    assert batch.num_prefill_tokens == 3


def test_drafts_take_no_blocks_but_free_ones():
    world = World(lambda row: 97, max_drafts=6, num_blocks=4, block_size=4)
    world.add("aaaa", 9, is_prefix_cached=False)
    world.add("aaaa", 3, is_prefix_cached=False)
    world.step()
    # the blocks are all given out for the first tokens; three slots are left in the first row's
    assert shares(world.step()) == [(1, 4, 4), (2, 2, 2)]
    world.run()
    assert world.scheduler.num_preempted == 0


def test_the_pace_learns_nothing_of_prompts_from_drafts():
    class Heard(Pace):
        def add(self, duration_s, num_streaming, num_prompt_tokens):
            heard.append((num_streaming, num_prompt_tokens))

    heard = []
    world = World(lambda row: 97, max_drafts=3, pace=Heard(None, 1, 16))
    world.add("a", 8)
    world.run()
    assert world.num_accepted
    assert heard[0] == (1, 0) or heard[0] == (0, 1)
    assert set(heard[1:]) == {(1, 0)}


def test_an_end_token_within_a_burst_ends_it_there():
    world = World({1: [*map(ord, "ab"), EOS, *map(ord, "xab")]}, max_drafts=4)
    end = chr(EOS)
    sequence = world.add(f"xab{end}xab{end}x", 9)
    world.step()
    assert drafts(world.step()) == [f"b{end}xa"]
    assert world.reason(sequence) is FinishReason.EOS_TOKEN
    assert [token.id for token in world.tokens[1]] == [97, 98, EOS]
    assert world.num_accepted == 1  # of those that were right, what was given out


def test_a_failing_row_with_drafts_ends_with_its_error():
    world = World(lambda row: 97, max_drafts=3)
    sequence = world.add("a", 20)
    for _ in range(6):
        world.step()
    world.schedule()
    assert world.batch.work[0].drafts
    world.runner.row_errors[1] = "nan"
    world.update()
    assert world.reason(sequence) is FinishReason.ERROR


def chooser(seed):
    """Choose among few letters by all tokens before, seldom an end."""
    return lambda row: (97, 98, 97, 98, 97, 99, EOS)[
        hash((seed, tuple(row.token_ids[-3:]), row.num_output // 3 % 2)) % 7
    ]


ASKED = {
    "plainly": {},
    "to a stop string": {"stop": ("bab", "cc")},
    "past stop strings and ends": {"stop": ("ab",), "min_new_tokens": 12},
    "ignoring ends": {"ignore_eos": True},
    "with logprobs": {"logprobs": LogprobsMode.RAW, "num_top_logprobs": 2},
    "with the prompt's": {"prompt_logprobs": True},
    "without the cache": {"is_prefix_cached": False},
}
LIMITS = {
    "with room for all": {"num_blocks": 200, "max_batch_tokens": 64},
    "with too few blocks": {"num_blocks": 14, "max_total_tokens": 28, "max_batch_tokens": 64},
    "in chunks": {"num_blocks": 200, "max_batch_tokens": 7},
}


def run(max_drafts, limits, params, seed):
    world = World(chooser(seed), max_drafts=max_drafts, max_waiting=20, **limits)
    for number in range(6):
        world.add("abcab" + "abc"[number % 3] * number, 17, **params)
        world.step()
    return world.run()


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("params", ASKED.values(), ids=ASKED)
def test_every_token_and_end_is_as_without(limits, params):
    num_accepted = 0
    for seed in range(5):
        plain, guessing = (run(max_drafts, limits, params, seed) for max_drafts in (0, 4))
        assert plain.num_drafts == 0
        assert guessing.tokens == plain.tokens
        for sequence_id, finish in plain.finishes.items():
            other = guessing.finishes[sequence_id]
            assert (other.reason, other.stop, other.text) == (
                finish.reason,
                finish.stop,
                finish.text,
            )
            assert other.prompt == finish.prompt
            assert other.usage.num_output_tokens == finish.usage.num_output_tokens
        num_accepted += guessing.num_accepted
    assert num_accepted >= 20


def test_a_world_with_too_few_blocks_does_preempt_while_it_guesses():
    worlds = [run(4, LIMITS["with too few blocks"], {"ignore_eos": True}, s) for s in range(5)]
    assert sum(world.scheduler.num_preempted for world in worlds) >= 3
    assert sum(world.num_accepted for world in worlds) >= 20
