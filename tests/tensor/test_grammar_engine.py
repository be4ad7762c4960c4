"""A loaded engine takes grammars in off the loop, and refuses them rather than go on without."""

import asyncio
from pathlib import Path

import pytest

import engine
from engine import (
    EngineConfig,
    FinishReason,
    Grammar,
    GrammarKind,
    InvalidGrammar,
    Overloaded,
    SamplingParams,
    TokenStream,
)
from engine.load import load
from server.metrics import Metrics

BUILT_IN = str(Path(engine.__file__).parent / "demo")
GOOD = Grammar(GrammarKind.REGEX, "(ab){3}")
SLOW = Grammar(GrammarKind.REGEX, "(a{1000}){1000}")


def loaded(**changes):
    config = EngineConfig(model=BUILT_IN, num_threads=1, max_cache_tokens=4096, **changes)
    return load(config, Metrics())


async def answer(running, grammar):
    prompt_ids = await running.encode("Say it: ")
    params = SamplingParams(max_new_tokens=20, grammar=grammar)
    with TokenStream(is_streamed=False) as tokens:
        running.submit(prompt_ids, params, tokens)
        bursts = [burst async for burst in tokens]
    return bursts[-1][-1][1].finish


async def test_who_waits_too_long_for_slow_grammars_is_told_to_come_again(monkeypatch):
    async with loaded() as running:
        monkeypatch.setattr("engine.engine._MAX_GRAMMAR_WAIT_S", 60.0)
        await running.check_grammar(Grammar(GrammarKind.REGEX, "x"))  # the helper is ready
        monkeypatch.setattr("engine.engine._MAX_GRAMMAR_WAIT_S", 0.1)
        slow = asyncio.create_task(running.check_grammar(SLOW))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many grammars"):
            await running.check_grammar(GOOD)
        with pytest.raises(Overloaded):
            await slow
        monkeypatch.setattr("engine.engine._MAX_GRAMMAR_WAIT_S", 60.0)
        await running.check_grammar(GOOD)
        finish = await answer(running, GOOD)
        assert (finish.text, finish.reason) == ("ababab", FinishReason.EOS_TOKEN)


async def test_where_grammars_are_switched_off_none_is_followed_or_ignored():
    async with loaded(is_grammar_disabled=True) as running:
        with pytest.raises(InvalidGrammar, match="follows no grammars"):
            await running.check_grammar(GOOD)
        finish = await answer(running, GOOD)
        assert finish.reason is FinishReason.ERROR
        assert "grammar cannot be followed" in str(finish.error)
        assert (await answer(running, None)).error is None
