"""Times single steps of a runner, decode or prefill, without anything around it."""

import random
import time
from collections.abc import Iterator, Sequence

from engine import Batch, Join, RowWork, Runner, SamplingParams

BLOCK_SIZE = 32
_NUM_WARM_UP = 3


def num_cached_tokens(batch: int, context: int, num_steps: int) -> int:
    """Say how many tokens the cache must hold, in whole blocks."""
    return batch * _num_blocks(context + num_steps + _NUM_WARM_UP) * BLOCK_SIZE


def time_decode(runner: Runner, batch: int, context: int, num_steps: int) -> list[float]:
    """Give a token to each row so many times; return the seconds of each step.

    The rows join with nearly all of their context computed. A first step makes every block theirs
    and writes zeros to it, so that its memory is there to be read.
    """
    num_more = num_steps + _NUM_WARM_UP
    ids = range(batch)
    joins = [list(_joins(ids, context, num_more, computed)) for computed in (0, context - 1)]
    runner.execute(Batch(0, (), tuple(joins[0]), tuple(RowWork(i, 1, 0, False) for i in ids)))
    decode = tuple(RowWork(row, 1, 1, True) for row in ids)
    runner.execute(Batch(1, tuple(ids), tuple(joins[1]), decode))
    batches = [Batch(step, (), (), decode) for step in range(2, num_more)]
    times = _time(runner, batches)
    runner.execute(Batch(0, tuple(ids), (), ()))
    return times[_NUM_WARM_UP - 2 :]


def time_prefill(runner: Runner, num_prompts: int, num_tokens: int, num_steps: int) -> list[float]:
    """Take so many whole prompts in one step, again and again; return the seconds of each step."""
    batches: list[Batch] = []
    leaving: tuple[int, ...] = ()
    for step in range(num_steps + _NUM_WARM_UP):
        ids = tuple(range(step * num_prompts, (step + 1) * num_prompts))
        work = tuple(RowWork(i, num_tokens, 1, True) for i in ids)
        batches.append(Batch(step, leaving, tuple(_joins(ids, num_tokens, 1, 0)), work))
        leaving = ids
    times = _time(runner, batches)
    runner.execute(Batch(0, leaving, (), ()))
    return times[_NUM_WARM_UP:]


def _joins(ids: Sequence[int], num_tokens: int, num_more: int, num_computed: int) -> Iterator[Join]:
    """Let rows of random tokens join, their blocks anywhere."""
    dice = random.Random(1)
    num_each = _num_blocks(num_tokens + num_more)
    blocks = list(range(len(ids) * num_each))
    dice.shuffle(blocks)
    params = SamplingParams(max_new_tokens=num_more, ignore_eos=True)
    for at, row in enumerate(ids):
        yield Join(
            sequence_id=row,
            token_ids=tuple(dice.randrange(200) for _ in range(num_tokens)),
            num_prompt_tokens=num_tokens,
            num_computed_tokens=num_computed,
            blocks=tuple(blocks[at * num_each : (at + 1) * num_each]),
            params=params,
        )


def _num_blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_SIZE)


def _time(runner: Runner, batches: Sequence[Batch]) -> list[float]:
    times = []
    for batch in batches:
        start = time.perf_counter()
        runner.execute(batch)
        times.append(time.perf_counter() - start)
    return times
