"""How long a newcomer waits for its first token while sixteen other streams are decoding.

The promise: within two steps plus its own prefill. The step is the median gap between tokens of the
sixteen; the prefill is the first token of a prompt of the same length on an idle server.
"""

import asyncio
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from server.cpu import CpuMeter, CpuUse
from server.loadgen import Stream, Target, ask
from server.question import Ending, Question
from server.recording import Recording, read_answer, read_events
from server.report import Percentiles, describe_cpu, spread, table

NUM_OTHERS = 16
MAX_OTHER_TOKENS = 2048
"""Long enough that none of the sixteen ends before the last newcomer."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """One round: newcomers one after another, among the same sixteen streams."""

    first_token_ms: Percentiles
    alone_ms: float
    """Median first token on the idle server, before and after."""
    step_ms: float
    limit_ms: float
    """Two steps and the prefill."""
    within: float
    """Share of the newcomers whose first token came within the limit."""
    num_arrivals: int
    cpu: CpuUse


async def measure_arrivals(
    target: Target, question: Question, server_pid: int | None, seed: int, num_arrivals: int
) -> Arrivals:
    """Measure one round."""
    dice = random.Random(seed)
    newcomer = replace(question, num_output_tokens=1)
    other = replace(question, num_output_tokens=MAX_OTHER_TOKENS)
    meter = CpuMeter(server_pid)
    alone = [await _first_token_s(target, newcomer, dice) for _ in range(5)]
    streams = [Stream(_request(target, other, dice)) for _ in range(NUM_OTHERS)]
    try:
        await asyncio.gather(*(stream.open(target) for stream in streams))
        await asyncio.gather(*(stream.begun for stream in streams))
        arrived = []
        for _ in range(num_arrivals):
            await asyncio.sleep(dice.uniform(0.05, 0.15))  # at no fixed moment of a step
            arrived.append(await _first_token_s(target, newcomer, dice))
        if any(stream.ended.done() for stream in streams):
            raise RuntimeError("a stream ended before the last newcomer came: let there be fewer")
    finally:
        for stream in streams:
            stream.close()
    await asyncio.gather(*(stream.ended for stream in streams))
    alone += [await _first_token_s(target, newcomer, dice) for _ in range(5)]
    step_s = statistics.median(gap for stream in streams for gap in _gaps(stream.recording))
    alone_s = statistics.median(alone)
    limit_s = 2 * step_s + alone_s
    first_token_ms = Percentiles.of(arrived)
    assert first_token_ms is not None
    return Arrivals(
        first_token_ms=first_token_ms,
        alone_ms=alone_s * 1e3,
        step_ms=step_s * 1e3,
        limit_ms=limit_s * 1e3,
        within=sum(delay <= limit_s for delay in arrived) / num_arrivals,
        num_arrivals=num_arrivals,
        cpu=meter.stop(),
    )


def describe_arrivals(rounds: Sequence[Arrivals]) -> str:
    """Write rounds as one line of medians, the least and the most."""
    head = ("first token ms", "p50", "p90", "max", "alone", "step", "limit", "within")
    row = [
        f"{NUM_OTHERS} others decode",
        *(spread([getattr(r.first_token_ms, p) for r in rounds], 1) for p in ("p50", "p90", "max")),
        spread([r.alone_ms for r in rounds], 1),
        spread([r.step_ms for r in rounds], 1),
        spread([r.limit_ms for r in rounds], 1),
        spread([r.within for r in rounds], 2),
    ]
    note = "limit: two steps and the first token of such a prompt alone"
    return "\n".join([table(head, [row]), note, describe_cpu([r.cpu for r in rounds])])


def _request(target: Target, question: Question, dice: random.Random) -> bytes:
    return target.request(question.dialect, question.body(question.prompt(dice)))


async def _first_token_s(target: Target, question: Question, dice: random.Random) -> float:
    outcome = question.outcome(await ask(target, _request(target, question, dice), TIMEOUT_S))
    if outcome.ending is not Ending.ANSWERED:
        raise RuntimeError(f"a newcomer {outcome.ending}: {outcome.error}")
    return outcome.token_times[0] - outcome.sent


def _gaps(recording: Recording) -> list[float]:
    """Read a stream that was hung up on: its events have all one token."""
    times = [when for when, _ in read_events(read_answer(recording).pieces)]
    return [after - before for before, after in pairwise(times)]
