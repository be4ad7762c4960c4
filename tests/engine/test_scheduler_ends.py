import pytest
from fakes import EOS, FakeVocabulary
from world import World, shares

from engine.batch import RowOutput, Sampled, StepOutput
from engine.errors import Overloaded
from engine.outputs import FinishReason, TopToken
from engine.sampling_params import LogprobsMode
from engine.sequence import State


@pytest.mark.parametrize(
    ("params", "reason", "text", "stop"),
    [
        ({"max_new_tokens": 9}, "eos_token", "hello", None),
        ({"max_new_tokens": 6}, "eos_token", "hello", None),
        ({"max_new_tokens": 5}, "length", "hello", None),
        ({"max_new_tokens": 6, "length_first": True}, "length", "hello", None),
        ({"max_new_tokens": 7, "length_first": True}, "eos_token", "hello", None),
        ({"max_new_tokens": 7, "ignore_eos": True}, "length", "hello", None),
        ({"max_new_tokens": 9, "stop": ("ll",)}, "stop_sequence", "he", "ll"),
        ({"max_new_tokens": 9, "stop": ("lo",)}, "stop_sequence", "hel", "lo"),
        ({"max_new_tokens": 9, "stop": ("ll",), "keep_stop": True}, "stop_sequence", "hell", "ll"),
        ({"max_new_tokens": 4, "stop": ("ll",)}, "stop_sequence", "he", "ll"),
        (
            {"max_new_tokens": 4, "stop": ("ll",), "keep_stop": True, "length_first": True},
            "length",
            "hell",
            "ll",
        ),
        ({"max_new_tokens": 9, "stop": ("oo",)}, "eos_token", "hello", None),
        ({"max_new_tokens": 5, "stop": ("oo",)}, "length", "hello", None),
        ({"max_new_tokens": 9, "stop": ("xyz",)}, "eos_token", "hello", None),
        ({"max_new_tokens": 9, "stop": ("</s>",)}, "eos_token", "hello", "</s>"),
        (
            {"max_new_tokens": 9, "stop": ("</s>",), "ignore_eos": True},
            "stop_sequence",
            "hello",
            "",
        ),
        ({"max_new_tokens": 9, "stop": ("h",)}, "stop_sequence", "", "h"),
        ({"max_new_tokens": 9, "stop": ("h",), "min_new_tokens": 1}, "eos_token", "hello", None),
        ({"max_new_tokens": 9, "stop": ("l",), "min_new_tokens": 3}, "stop_sequence", "hel", "l"),
        ({"max_new_tokens": 9, "stop": ("l",), "min_new_tokens": 4}, "eos_token", "hello", None),
        ({"max_new_tokens": 9, "min_new_tokens": 5}, "eos_token", "hello", None),
        ({"max_new_tokens": 9, "min_new_tokens": 6}, "eos_token", "hello", None),
        ({"max_new_tokens": 4, "min_new_tokens": 9, "stop": ("h",)}, "length", "hell", None),
    ],
)
def test_the_end_comes_with_one_reason_and_the_text_before_it(params, reason, text, stop):
    world = World("hello")
    sequence = world.add("a", **params)
    world.run()
    finish = world.finish(sequence)
    assert (finish.reason, finish.text) == (reason, text)
    assert finish.stop == (stop if stop != "" else "</s>")


def test_an_end_token_before_min_new_tokens_is_part_of_the_answer():
    world = World([EOS, EOS, 97, EOS])
    sequence = world.add("a", 9, min_new_tokens=2)
    world.run()
    assert [token.id for token in world.tokens[1]] == [EOS, EOS, 97, EOS]
    assert world.reason(sequence) == FinishReason.EOS_TOKEN
    assert world.text(sequence) == "a"


def test_special_tokens_have_text_and_show_nothing():
    world = World([2, 97])
    world.add("a", 9)
    world.run()
    shown = [(token.text, token.visible, token.is_special) for token in world.tokens[1]]
    assert shown == [("<|im_end|>", "", True), ("a", "a", False), ("</s>", "", True)]


def test_held_text_is_shown_with_the_token_that_ends_the_sequence():
    world = World("heo", words=["oo"])
    world.add("a", 9, stop=("oops",))
    world.run()
    assert [token.visible for token in world.tokens[1]] == ["h", "e", "", "o"]


def test_a_stop_string_inside_a_word_cuts_it():
    vocabulary = FakeVocabulary("one two", " three")
    world = World([vocabulary.word("one two"), vocabulary.word(" three")], words=vocabulary.words)
    sequence = world.add("a", 9, stop=("o th",))
    world.run()
    assert world.text(sequence) == "one tw"
    assert [token.text for token in world.tokens[1]] == ["one two", " three"]


def test_tokens_past_the_end_of_a_row_that_gained_several_are_dropped():
    world = World()
    sequence = world.add("a", 9)
    batch = world.schedule()
    world.batch = None
    sampled = (Sampled(97), Sampled(EOS), Sampled(98))
    output = StepOutput(batch.step, (RowOutput(1, sampled),))
    world._hear(world.scheduler.update(output, world.clock()).gains)
    assert [token.id for token in world.tokens[1]] == [97, EOS]
    assert world.reason(sequence) == FinishReason.EOS_TOKEN


def test_logprobs_and_the_best_candidates_go_with_the_tokens():
    world = World([97, 2, 98])
    world.add("a", 9, logprobs=LogprobsMode.RAW, num_top_logprobs=2)
    world.run()
    token = world.tokens[1][0]
    assert token.logprob == -0.5
    assert token.top == (TopToken(97, "a", -0.5, False), TopToken(98, "b", -1.5, False))
    assert world.tokens[1][1].top[0] == TopToken(2, "<|im_end|>", -0.5, True)


def test_usage_counts_tokens_and_seconds():
    world = World("xyz")
    sequence = world.add("abc", 3)
    world.clock.advance(2.0)
    world.schedule()
    world.clock.advance(0.5)
    update = world.update()
    assert (update.first_token_s, update.gaps_s) == ([2.5], [])
    for gap in (0.25, 0.75):
        world.schedule()
        world.clock.advance(gap)
        update = world.update()
        assert (update.first_token_s, update.gaps_s) == ([], [gap])
    usage = world.finish(sequence).usage
    assert (usage.num_prompt_tokens, usage.num_output_tokens, usage.num_cached_tokens) == (3, 3, 0)
    assert (usage.queue_s, usage.inference_s, usage.first_token_s) == (2.0, 1.5, 2.5)


def test_the_usage_of_one_that_never_started_is_all_queue():
    world = World()
    sequence = world.add("abc", 3)
    world.clock.advance(2.0)
    world.abort(sequence)
    usage = world.finish(sequence).usage
    assert (usage.queue_s, usage.inference_s, usage.first_token_s) == (2.0, 0.0, None)
    assert usage.num_output_tokens == 0


# -- aborts, faults, expiry


def test_aborting_a_waiting_sequence_frees_its_place():
    world = World(max_batch_size=1, max_waiting=1)
    world.add("a", 3)
    world.step()
    two = world.add("b", 3)
    world.abort(two)
    assert world.reason(two) == FinishReason.ABORT
    world.add("c", 3)
    world.run()


def test_aborting_between_two_steps_frees_the_blocks_before_the_next():
    world = World("xxxx", num_blocks=4)
    one = world.add("abcdef", 2)
    world.step()
    two = world.add("ghijkl", 2)
    world.abort(one)
    assert world.scheduler.pool.num_free == 4
    batch = world.step()
    assert (batch.leave, [work.sequence_id for work in batch.work]) == ((1,), [2])
    world.run()
    assert world.text(two) == "xx"


@pytest.mark.parametrize("num_steps_before", [0, 1])
def test_aborting_while_a_step_computes_ends_it_at_once_and_its_answer_is_dropped(num_steps_before):
    world = World("xxxx")
    one, two = world.add("abc", 4), world.add("xyz", 4)
    for _ in range(num_steps_before):
        world.step()
    world.schedule()
    world.abort(one)
    assert world.reason(one) == FinishReason.ABORT
    assert one.blocks == []
    update = world.update()
    assert [sequence for sequence, _ in update.gains] == [two]
    assert world.step().leave == (1,)
    world.run()
    assert (world.text(one), world.text(two)) == ("x" * num_steps_before, "xxxx")


def test_blocks_freed_while_a_step_computes_are_given_out_by_the_next_schedule_alone():
    world = World("xxxx", num_blocks=4)
    one = world.add("abcdef", 2)
    world.schedule()
    world.abort(one)
    two = world.add("ghijkl", 2)
    assert two.blocks == []
    world.update()
    assert two.blocks == []
    world.step()
    assert len(two.blocks) == 3


def test_aborting_what_was_preempted_takes_it_out_of_the_line():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, block_size=2)
    world.add("12", 8)
    two = world.add("34", 8)
    while not world.scheduler.num_preempted:
        world.step()
    world.abort(two)
    assert world.finish(two).text == "abcde"
    assert len(world.scheduler.waiting) == 0
    world.run()


def test_aborting_what_has_ended_is_nothing():
    world = World()
    one, two = world.add("a", 1), world.add("b", 2)
    world.abort(two)
    world.run()
    assert world.reason(one) == FinishReason.EOS_TOKEN
    assert world.abort(one) is None
    assert world.abort(two) is None


def test_aborting_all_while_a_step_computes_leaves_nothing_to_do():
    world = World()
    sequences = [world.add("abc", 4) for _ in range(3)]
    world.schedule()
    for sequence in sequences:
        world.abort(sequence)
    assert world.update().gains == []
    assert world.schedule() is None
    assert world.scheduler.pool.num_free == 16


def test_an_abort_with_an_error_is_an_error():
    world = World()
    sequence = world.add("a", 3)
    error = Overloaded("no")
    world.abort(sequence, error)
    assert world.reason(sequence) == FinishReason.ERROR
    assert world.finish(sequence).error is error


def test_a_row_with_an_error_ends_alone():
    world = World("xyz")
    one, two, three = (world.add(prompt, 3) for prompt in ("ab", "cd", "ef"))
    world.step()
    world.runner.row_errors[2] = "the logits are not numbers"
    world.step()
    assert world.reason(two) == FinishReason.ERROR
    assert repr(world.finish(two).error) == "GenerationFailed('the logits are not numbers')"
    assert world.finish(two).text == "x"
    assert world.step().leave == (2,)
    assert (world.text(one), world.text(three)) == ("xyz", "xyz")


def test_what_a_row_with_an_error_computed_is_not_found_again():
    world = World("xyz")
    world.add("abcdef", 3)
    world.step()
    world.runner.row_errors[1] = "the logits are not numbers"
    world.step()
    world.add("abcdef", 1)
    assert shares(world.step()) == [(2, 6, 1)]


def test_a_failed_step_ends_its_rows_and_nobody_else():
    world = World("xyz", max_batch_size=2)
    one, two, three = (world.add(prompt, 3) for prompt in ("abc", "cd", "ef"))
    world.step()
    world.schedule()
    world.fail()
    for sequence in (one, two):
        assert world.reason(sequence) == FinishReason.ERROR
        assert str(world.finish(sequence).error) == "out of memory"
        assert world.finish(sequence).text == "x"
    assert three.state is State.WAITING
    world.run()
    assert world.text(three) == "xyz"
    assert world.runner.batches[2].leave == (1, 2)


def test_a_failed_step_says_nothing_of_those_that_were_aborted_in_it():
    world = World("xyz")
    one = world.add("abc", 3)
    world.schedule()
    world.abort(one)
    world.fail()
    assert world.reason(one) == FinishReason.ABORT


def test_those_that_wait_too_long_end_as_overloaded_and_the_running_go_on():
    world = World("xyz", max_batch_size=1, max_queue_s=5.0)
    one, two = world.add("a", 3), None
    world.step()
    two = world.add("b", 3)
    world.clock.advance(5.0)
    world.expire()
    assert two.state is State.WAITING
    world.clock.advance(0.1)
    world.expire()
    assert isinstance(world.finish(two).error, Overloaded)
    assert str(world.finish(two).error) == "no room came free within the 5.0 s a request may wait"
    world.run()
    assert world.text(one) == "xyz"


def test_a_preempted_sequence_does_not_expire():
    world = World({1: "ABCDEFGH", 2: "abcdefgh"}, num_blocks=6, max_queue_s=5.0)
    world.add("12", 8)
    two = world.add("34", 8)
    while not world.scheduler.num_preempted:
        world.step()
    world.clock.advance(1000.0)
    world.expire()
    world.run()
    assert world.text(two) == "abcdefgh"
