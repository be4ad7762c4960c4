"""What a JSON schema costs: the time of a step, and to the first token; without HTTP.

    python benchmarks/guided.py --models-dir DIR          # a random model of Qwen2.5-0.5B's shape
    python benchmarks/guided.py --model MODEL

Rounds take turns: some steps of rows without a schema, as many of rows with one, in either order.
A row whose answer has ended asks again at once; only steps count in which every row gained a token
and none a prompt. The last line is over all rounds, with the 95 % interval of the mean.
The first token is that of a lone request; of one with a schema that nobody has sent before it holds
trying the schema in a process, compiling it, and its first mask.
"""

import asyncio
import json
import math
import statistics
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from events import interval
from models import BUILT_IN_MODEL, SHAPES, make_model
from parts.conditions import write_result
from parts.schemas import SCHEMAS, Schema

from engine import (
    Engine,
    EngineConfig,
    Grammar,
    GrammarKind,
    SamplingParams,
    StepStats,
    TokenStream,
)
from engine.load import load
from server.metrics import Metrics
from server.report import percentile, spread, table

PROMPT = "Give me an example of this, as JSON: "
MAX_NEW_TOKENS = 200
GOAL = 1.1
"""Of a step's time, by one without a schema; 16 rows of the 0.5 B shape."""


class Steps(Metrics):
    """Notes how long the steps took that only decoded, all rows of them."""

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.num_rows = num_rows
        self._times: list[float] = []
        self._num_wanted = 0
        self._has_enough = asyncio.Event()

    def on_step(self, stats: StepStats) -> None:
        """Hear about one step."""
        if stats.num_decode_tokens == self.num_rows and not stats.num_prefill_tokens:
            self._times.append(stats.duration_s)
            if len(self._times) == self._num_wanted:
                self._has_enough.set()

    async def next(self, count: int) -> list[float]:
        """Wait for so many steps; return their seconds."""
        self._num_wanted = count
        self._times.clear()
        self._has_enough.clear()
        await self._has_enough.wait()
        return self._times[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One schema; milliseconds."""

    schema: str
    num_characters: int
    free_step_ms: float
    step_ms: float
    rounds: list[float]
    """A step with the schema by one without."""
    p99_step_ms: float
    free_first_ms: float
    new_first_ms: float
    known_first_ms: float


class Bench:
    """An engine whose steps are timed."""

    def __init__(self, engine: Engine, steps: Steps) -> None:
        self._engine = engine
        self._steps = steps
        self._num_asked = 0

    async def warm_up(self) -> None:
        """Have everything loaded and started before it is timed."""
        await self._first_s(Grammar(GrammarKind.JSON_OBJECT))
        await self._step_times(None, 10)

    async def measure(self, name: str, schema: Schema, num_rounds: int, num_steps: int) -> Row:
        """Compare with and without a schema, in turns."""
        free_first, new_first, known_first = [], [], []
        free, bound, rounds = [], [], []
        for number in range(num_rounds):
            titled = Grammar(
                GrammarKind.JSON_SCHEMA, json.dumps({"title": f"{name} {number}", **schema})
            )
            free_first.append(await self._first_s(None))
            new_first.append(await self._first_s(titled))
            known_first.append(await self._first_s(titled))
            either = [None, titled][:: (-1) ** number]
            timed = {each: await self._step_times(each, num_steps) for each in either}
            free += timed[None]
            bound += timed[titled]
            rounds.append(statistics.median(timed[titled]) / statistics.median(timed[None]))
        return Row(
            schema=name,
            num_characters=len(json.dumps(schema)),
            free_step_ms=statistics.median(free) * 1e3,
            step_ms=statistics.median(bound) * 1e3,
            rounds=rounds,
            p99_step_ms=percentile(sorted(bound), 0.99) * 1e3,
            free_first_ms=statistics.median(free_first) * 1e3,
            new_first_ms=statistics.median(new_first) * 1e3,
            known_first_ms=statistics.median(known_first) * 1e3,
        )

    async def _step_times(self, grammar: Grammar | None, num_steps: int) -> list[float]:
        """Keep all rows busy until so many steps were timed; a row that fails ends it."""
        num_rows = self._steps.num_rows
        async with asyncio.TaskGroup() as group:
            rows = [group.create_task(self._ask_for_ever(grammar)) for _ in range(num_rows)]
            times = await self._steps.next(num_steps)
            for row in rows:
                row.cancel()
        return times

    async def _ask_for_ever(self, grammar: Grammar | None) -> None:
        while True:
            async for _ in self._ask(grammar, MAX_NEW_TOKENS):
                pass

    async def _first_s(self, grammar: Grammar | None) -> float:
        start = time.perf_counter()
        async for moment in self._ask(grammar, 1):
            return moment - start
        raise RuntimeError("there was no token")

    async def _ask(self, grammar: Grammar | None, max_new_tokens: int) -> AsyncIterator[float]:
        """Sample an answer; yield when bursts come."""
        if grammar is not None:
            await self._engine.check_grammar(grammar)
        self._num_asked += 1
        params = SamplingParams(
            max_new_tokens=max_new_tokens,
            ignore_eos=True,
            do_sample=True,
            seed=self._num_asked,
            grammar=grammar,
        )
        prompt_ids = await self._engine.encode(PROMPT)
        with TokenStream() as tokens:
            self._engine.submit(prompt_ids, params, tokens)
            async for burst in tokens:
                for _, delta in burst:
                    if delta.finish is not None and delta.finish.error is not None:
                        raise delta.finish.error
                if burst:
                    yield time.perf_counter()


def describe_rows(rows: Sequence[Row]) -> str:
    """Write a line for each schema."""
    head = ("schema", "characters", "free ms", "with ms", "times", "p99 ms")
    lines = [
        [
            row.schema,
            str(row.num_characters),
            f"{row.free_step_ms:.2f}",
            f"{row.step_ms:.2f}",
            spread(row.rounds, 3),
            f"{row.p99_step_ms:.2f}",
            f"{row.free_first_ms:.1f}",
            f"{row.new_first_ms:.1f}",
            f"{row.known_first_ms:.1f}",
        ]
        for row in rows
    ]
    return table((*head, "first: free", "new", "known"), lines)


def over_all(rows: Sequence[Row]) -> dict[str, float]:
    """Compare steps with and without over all rounds: the geometric mean and its interval."""
    logs = [math.log(times) for row in rows for times in row.rounds]
    mean, low, high = map(math.exp, (statistics.fmean(logs), *interval(logs)))
    return {
        "times": mean,
        "times_low": low,
        "times_high": high,
        "num_rounds": len(logs),
        "least": math.exp(min(logs)),
        "most": math.exp(max(logs)),
    }


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory")
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen-0.5b", help="of the random")
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--rounds", type=int, default=3, help="in turns, for each schema")
    parser.add_argument("--steps", type=int, default=50, help="of a round, each way")
    parser.add_argument("--schemas", type=int, default=len(SCHEMAS), help="how many of the ten")
    parser.add_argument("--threads", type=int, help="of the forward pass; by default all cores")
    parser.add_argument("--short", action="store_true", help="two schemas on the built-in model")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if args.short:
        args.rounds, args.steps, args.schemas = 2, 20, 2
    elif args.model is None and args.models_dir is None:
        parser.error("give --model, --models-dir or --short")
    return args


async def measure(args: Namespace, model_dir: Path) -> list[Row]:
    """Time each schema."""
    steps = Steps(args.rows)
    config = EngineConfig(
        model=str(model_dir),
        max_batch_size=args.rows,
        max_total_tokens=512,
        num_threads=args.threads,
    )
    async with load(config, steps) as engine:
        bench = Bench(engine, steps)
        await bench.warm_up()
        chosen = list(SCHEMAS.items())[: args.schemas]
        return [await bench.measure(*named, args.rounds, args.steps) for named in chosen]


def main() -> None:
    args = parse_args()
    model_dir = args.model or BUILT_IN_MODEL
    if args.model is None and args.models_dir is not None:
        model_dir = make_model(args.shape, args.models_dir)
    rows = asyncio.run(measure(args, model_dir))
    total = over_all(rows)
    print(
        f"{model_dir.name}: {args.rounds} rounds of {args.steps} steps of {args.rows} rows each way"
    )
    print(describe_rows(rows))
    print(
        f"with a schema: x {total['times']:.3f} ({total['times_low']:.3f} to "
        f"{total['times_high']:.3f}) over {total['num_rounds']} rounds; goal: at most {GOAL}"
    )
    if args.json is not None:
        shape = {"model": model_dir.name, "num_rows": args.rows, "num_steps": args.steps}
        write_result(args.json, {**shape, "all": total, "rows": rows})


if __name__ == "__main__":
    main()
