"""Pace: the room for prompts follows what steps take, on machines made up here."""

import random
import statistics

import pytest
from world import World

from engine.pace import Pace

STREAMS = 16


class Machine:
    """Steps of made-up length under a Pace."""

    def __init__(
        self, pace, decode_s=0.040, start_s=0.004, token_s=0.001, context_s=0.0, noise=0.0
    ):
        self.pace = pace
        self.decode_s, self.start_s, self.token_s = decode_s, start_s, token_s
        self.context_s = context_s
        """What each 1,000 tokens of a prompt that are computed add to every step of the others."""
        self.noise, self.dice = noise, random.Random(1)
        pace.add(512 * token_s, 0, 512)
        pace.add(decode_s, 1, 0)

    def step(self, num_streams, num_tokens, num_computed=0):
        """Take a step; return its seconds."""
        seconds = self.decode_s if num_streams else 0.0
        if num_tokens:
            seconds += self.start_s + self.token_s * num_tokens
            seconds += self.context_s * num_computed / 1000
        seconds *= 1.0 + self.noise * self.dice.uniform(-1.0, 1.0)
        self.pace.add(seconds, num_streams, num_tokens)
        return seconds

    def enter(self, num_tokens, num_streams=STREAMS, num_entering=1):
        """Let a prompt in; return the seconds and the tokens of each step."""
        for _ in range(20):
            self.step(num_streams, 0)
        steps, num_computed = [], 0
        while num_computed < num_tokens:
            room = self.pace.room(num_streams, num_entering)
            share = min(room, num_tokens - num_computed)
            steps.append((self.step(num_streams, share, num_computed), share))
            num_computed += share
            assert len(steps) < 10_000, "the prompt starves"
        return steps


def machine(max_step_s=None, min_tokens=16, max_tokens=512, **kind):
    return Machine(Pace(max_step_s, min_tokens, max_tokens), **kind)


KINDS = {
    "a CPU": {},
    "a small model": {"decode_s": 0.009, "start_s": 0.005, "token_s": 0.0003},
    "dear contexts": {"context_s": 0.005},
    "a GPU": {"decode_s": 0.010, "start_s": 0.0, "token_s": 0.00004},
    "a noisy one": {"noise": 0.05},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_long_prompt_among_streams_stretches_their_gaps_to_two_and_a_half_at_most(kind):
    world = machine(**kind)
    steps = world.enter(4000)
    late = sorted(seconds for seconds, _ in steps)[int(0.99 * len(steps))]
    assert late <= 2.5 * world.decode_s
    assert statistics.median(seconds for seconds, _ in steps) >= 1.5 * world.decode_s


def test_a_target_bounds_the_steps_that_hold_prompts_and_streams():
    for target_s in (0.06, 0.1, 0.2):
        steps = machine(max_step_s=target_s).enter(4000)[5:]
        assert max(seconds for seconds, _ in steps) <= 1.05 * target_s
        assert statistics.median(seconds for seconds, _ in steps) >= 0.75 * target_s


def test_a_target_that_no_step_can_meet_starves_no_prompt():
    for target_s in (0.001, 0.041):
        tokens = [tokens for _, tokens in machine(max_step_s=target_s).enter(400)]
        assert set(tokens) - {0} == {16}


def test_an_endless_target_lets_prompts_fill_every_step():
    tokens = [tokens for _, tokens in machine(max_step_s=float("inf")).enter(4096)]
    assert tokens == [512] * 8


def test_a_prompt_that_disturbs_nobody_enters_as_fast_as_it_can():
    world = machine(max_step_s=0.001)
    for _ in range(50):
        assert world.pace.room(0, 1) == 512
        world.step(0, 512)


@pytest.mark.parametrize(("num_entering", "times"), [(1, 1.75), (2, 2.5), (3, 2.5), (14, 2.5)])
def test_a_step_is_longer_by_three_quarters_for_each_that_enters_up_to_two(num_entering, times):
    steps = machine().enter(4000, num_entering=num_entering)
    assert statistics.median(seconds for seconds, _ in steps) / 0.04 == pytest.approx(times, 0.1)


def test_prompt_tokens_come_in_multiples_of_eight():
    tokens = [tokens for _, tokens in machine(decode_s=0.05).enter(4000)][:-1]
    assert {number % 8 for number in tokens} == {0}
    assert len(set(tokens)) > 1


def test_the_room_follows_a_machine_that_becomes_slower_and_faster_again():
    world = machine()
    rooms = []
    for token_s in (0.001, 0.004, 0.0005):
        world.token_s = token_s
        rooms.append(statistics.median(tokens for _, tokens in world.enter(2000)[15:]))
    assert rooms[0] == pytest.approx(26, abs=8)
    assert rooms[1] == 16
    assert rooms[2] == pytest.approx(54, abs=8)


def test_one_stall_of_the_machine_is_not_taken_at_its_word():
    world = machine(token_s=0.0003)
    world.enter(4000)
    world.step(STREAMS, 0)
    before = world.pace.room(STREAMS, 1)
    assert before >= 64
    world.pace.add(5.0, STREAMS, before)
    assert world.pace.room(STREAMS, 1) >= before / 2.5
    world.enter(4000)
    world.step(STREAMS, 0)
    assert world.pace.room(STREAMS, 1) == pytest.approx(before, rel=0.2)


def test_the_last_few_tokens_of_a_prompt_say_nothing_of_its_next_ones():
    world = machine(start_s=0.010, token_s=0.0005)
    world.enter(4000)
    world.step(STREAMS, 0)
    before = world.pace.room(STREAMS, 1)
    for _ in range(10):
        world.step(STREAMS, 3)
    assert world.pace.room(STREAMS, 1) == before


def test_prompts_that_enter_alone_say_nothing_about_those_beside_streams():
    world = machine()
    world.enter(2000)
    world.step(STREAMS, 0)
    before = world.pace.room(STREAMS, 1)
    for _ in range(50):
        world.pace.add(0.05, 0, 512)
    assert world.pace.room(STREAMS, 1) == before


def test_prompts_without_end_leave_a_step_out_now_and_then_so_that_its_length_stays_known():
    world = machine()
    world.enter(64)
    world.decode_s = 0.060
    tokens, seconds = [], []
    for _ in range(200):
        tokens.append(world.pace.room(STREAMS, 8))
        seconds.append(world.step(STREAMS, tokens[-1]))
    assert tokens.count(0) == 6
    assert all(tokens[at + 1] for at, number in enumerate(tokens[:-1]) if number == 0)
    assert seconds[-2] == pytest.approx(2.5 * 0.060, rel=0.1)


@pytest.mark.parametrize("num_streams", [33, 7])
def test_another_number_of_streams_is_looked_at_without_prompts_first(num_streams):
    world = machine()
    world.enter(640)
    assert world.pace.room(num_streams, 1) == 0
    world.step(num_streams, 0)
    assert world.pace.room(num_streams, 1) > 0


def test_what_is_not_known_yet_limits_nothing():
    pace = Pace(0.01, 16, 512)
    assert pace.room(4, 1) == 512
    pace.add(0.1, 0, 100)
    assert pace.room(4, 1) == 512
    pace.add(0.0, 4, 0)  # a clock that stands still
    assert pace.room(4, 1) == 512


def test_prompts_that_were_free_for_long_are_soon_known_to_cost_something():
    world = machine(start_s=0.0, token_s=0.0)
    for _ in range(500):
        world.step(STREAMS, 0)
        world.step(STREAMS, 512)
    world.token_s = 0.001
    assert [tokens for _, tokens in world.enter(4000)][12] <= 64


# -- with the scheduler


def cost(batch):
    """Take 40 ms for the streams of a step, and for prompts as many again for 40 tokens."""
    return 0.04 * (len(batch.work) > len(batch.prefill)) + 0.001 * batch.num_prefill_tokens


def busy_world(pace, **limits):
    """Sixteen streams that decode, in a world whose steps take what they cost."""
    limits = {"num_blocks": 400, "block_size": 32, "max_batch_size": 20, **limits}
    limits = {"max_batch_tokens": 512, "max_waiting": 40, "max_waiting_tokens": 10_000, **limits}
    world = World(lambda row: 97, pace=pace, step_s=cost, **limits)
    for number in range(STREAMS):
        world.add(chr(1000 + number) * 3, 300)
    for _ in range(10):
        world.step()
    return world


def test_sixteen_streams_keep_their_rhythm_while_a_prompt_of_four_thousand_enters():
    ratios = {}
    for name, pace in {"paced": Pace(None, 16, 512), "unpaced": None}.items():
        world = busy_world(pace)
        newcomer = world.add("".join(chr(2000 + at) for at in range(4000)), 2)
        gaps = []
        while newcomer.first_token_at is None:
            world.schedule()
            gaps += world.update().gaps_s
        ratios[name] = sorted(gaps)[int(0.99 * len(gaps))] / 0.04
        assert newcomer.first_token_at - newcomer.submitted_at < 4000 * 0.001 * 2.8
        assert len(gaps) % STREAMS == 0, "a stream missed a step"
    assert ratios["paced"] <= 2.5
    assert ratios["unpaced"] > 10


def test_the_hard_limit_of_a_step_holds_whatever_the_pace_allows():
    world = busy_world(Pace(float("inf"), 16, 512), max_batch_tokens=50)
    newcomer = world.add("x" * 400, 2)
    batch = world.step()
    assert batch.num_tokens == 50
    assert newcomer.num_computed == 50 - STREAMS
    world.run()


def test_a_step_that_leaves_a_prompt_out_gives_every_stream_its_token():
    world = busy_world(Pace(0.06, 16, 512))
    newcomer = world.add("".join(chr(2000 + at) for at in range(2000)), 2)
    while not world.num_pauses:
        world.step()
    assert newcomer.num_behind > 1
    assert len(world.runner.batches[-1].work) == STREAMS
    world.run()


def test_a_prompt_that_has_begun_counts_among_those_that_enter():
    limits = {"num_blocks": 400, "block_size": 32, "max_batch_size": 4, "max_batch_tokens": 512}
    limits |= {"max_waiting": 40, "max_waiting_tokens": 10_000}
    world = World(lambda row: 97, pace=Pace(None, 16, 512), step_s=cost, **limits)
    world.add("a" * 100, 300)
    for _ in range(10):
        world.step()
    for first in (2000, 5000, 8000):
        world.add("".join(chr(first + at) for at in range(1500)), 2)
    num_tokens = [world.step().num_prefill_tokens for _ in range(10)]
    assert num_tokens[-1] == 56
