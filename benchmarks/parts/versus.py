"""The engine with sixteen requests at a time beside transformers' generate one by one."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from parts.one_by_one import OneByOne

from engine import Engine, EngineConfig, SamplingParams, TokenStream
from engine.load import load
from server.cpu import CpuMeter, CpuUse
from server.metrics import Metrics
from server.report import spread, table

NUM_CLIENTS = 16
NUM_REQUESTS = 16
NUM_PROMPT_TOKENS = 128
NUM_OUTPUT_TOKENS = 32

Prompts = list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both on the same requests, one after the other."""

    engine_tokens_per_s: float
    generate_tokens_per_s: float
    ratio: float
    cpu: CpuUse


def compare(model_dir: Path, times: int) -> list[Comparison]:
    """Compare so many times, with other prompts each time."""
    config = EngineConfig(model=str(model_dir), max_batch_size=NUM_CLIENTS, max_total_tokens=1024)
    return asyncio.run(_compare(load(config, Metrics()), OneByOne(model_dir), times))


def describe_comparison(comparisons: Sequence[Comparison]) -> str:
    """Write the medians, the least and the most."""
    head = ("tokens/s", f"engine, {NUM_CLIENTS} at a time", "generate, one by one", "ratio")
    row = [
        f"{NUM_PROMPT_TOKENS} + {NUM_OUTPUT_TOKENS} tokens",
        spread([c.engine_tokens_per_s for c in comparisons], 1),
        spread([c.generate_tokens_per_s for c in comparisons], 1),
        spread([c.ratio for c in comparisons], 2),
    ]
    return table(head, [row])


async def _compare(engine: Engine, one_by_one: OneByOne, times: int) -> list[Comparison]:
    comparisons = []
    async with engine:
        await _serve(engine, _make_prompts(0)[:2])  # what is slow only once
        await asyncio.to_thread(one_by_one.serve, _make_prompts(0)[:1], 4)
        for seed in range(1, times + 1):
            prompts = _make_prompts(seed)
            meter = CpuMeter()
            start = time.perf_counter()
            num_ours = await _serve(engine, prompts)
            middle = time.perf_counter()
            num_theirs = await asyncio.to_thread(one_by_one.serve, prompts, NUM_OUTPUT_TOKENS)
            end = time.perf_counter()
            assert num_ours == num_theirs == NUM_REQUESTS * NUM_OUTPUT_TOKENS
            ours, theirs = num_ours / (middle - start), num_theirs / (end - middle)
            comparisons.append(
                Comparison(
                    engine_tokens_per_s=ours,
                    generate_tokens_per_s=theirs,
                    ratio=ours / theirs,
                    cpu=meter.stop(),
                )
            )
    return comparisons


def _make_prompts(seed: int) -> Prompts:
    dice = random.Random(seed)
    return [dice.choices(range(300, 2000), k=NUM_PROMPT_TOKENS) for _ in range(NUM_REQUESTS)]


async def _serve(engine: Engine, prompts: Prompts) -> int:
    """Let the clients share the prompts; count the tokens."""
    waiting = iter(prompts)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(_client(engine, waiting)) for _ in range(NUM_CLIENTS)]
    return sum(client.result() for client in clients)


async def _client(engine: Engine, waiting: Iterator[list[int]]) -> int:
    num_tokens = 0
    params = SamplingParams(max_new_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True)
    for prompt in waiting:
        with TokenStream() as stream:
            engine.submit(prompt, params, stream)
            async for burst in stream:
                num_tokens += sum(len(delta.tokens) for _, delta in burst)
    return num_tokens
