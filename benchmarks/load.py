"""A load over HTTP: on a server that runs, or on one that is started for it.

    python benchmarks/load.py --serve engine/demo --clients 16
    python benchmarks/load.py --url http://127.0.0.1:3000 --dialect chat --rate 4
    python benchmarks/load.py --serve engine/demo --arrival

Without --url or --serve the built-in model is served. Every answer must have exactly the tokens
asked for, by the server's own count and by its events, and its end; else it counts as failed.
"""

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop
from parts.arrival import Arrivals, describe_arrivals, measure_arrivals
from parts.child import free_port, run_server
from parts.conditions import write_result

import engine
from server.loadgen import Load, Target, measure, warm_up
from server.question import Dialect, Question
from server.report import Figures, describe

BUILT_IN_MODEL = Path(engine.__file__).parent / "demo"


@contextmanager
def find_server(args: Namespace) -> Iterator[tuple[Target, int | None]]:
    """Take the server that was named, or start one; its process id where it is known."""
    if args.url is not None:
        yield Target.parse(args.url, args.key), args.server_pid
        return
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--port", str(port)]
    command += ["--hostname", "127.0.0.1", "--model-id", str(args.serve or BUILT_IN_MODEL)]
    with run_server([*command, *args.serve_option], port) as child:
        yield Target.parse(child.url, args.key), child.pid


async def repeat_load(
    target: Target, load: Load, server_pid: int | None, times: int
) -> list[Figures]:
    """Warm up with one request, then put the load on, with other prompts each time."""
    await warm_up(target, load)
    runs = []
    for number in range(times):
        runs.append(await measure(target, replace(load, seed=load.seed + number), server_pid))
    return runs


async def repeat_arrivals(
    target: Target, question: Question, server_pid: int | None, times: int, num_arrivals: int
) -> list[Arrivals]:
    """Warm up with one round, then measure."""
    await measure_arrivals(target, question, server_pid, seed=0, num_arrivals=2)
    return [
        await measure_arrivals(target, question, server_pid, number + 1, num_arrivals)
        for number in range(times)
    ]


def read_question(args: Namespace) -> Question:
    question = Question(
        dialect=args.dialect,
        model=args.model,
        num_prompt_words=args.prompt,
        num_output_tokens=args.output,
        ignore_eos=not args.may_stop,
    )
    path = args.words
    if path is None and args.serve is not None:
        path = Path(args.serve) / "bench_words.json"
    if path is not None and path.exists():
        return replace(question, words=tuple(json.loads(path.read_text())))
    return question


def run(args: Namespace) -> tuple[dict[str, object], bool]:
    """Measure what the options ask for, print it; tell whether every request was answered."""
    question = read_question(args)
    with find_server(args) as (target, server_pid):
        if args.arrival:
            arrivals = uvloop.run(
                repeat_arrivals(target, question, server_pid, args.repeat, args.requests)
            )
            print(describe_arrivals(arrivals))
            return {"question": _without_words(question), "arrival": arrivals}, True
        load = Load(
            question=question,
            num_requests=args.requests,
            num_clients=None if args.rate else args.clients,
            rate=args.rate,
            seed=args.seed,
            timeout_s=args.timeout,
        )
        runs = uvloop.run(repeat_load(target, load, server_pid, args.repeat))
    loop = f"{args.rate} requests/s" if args.rate else f"{args.clients} clients"
    print(
        f"{question.dialect}: {loop}, {args.requests} requests of {args.prompt} words for "
        f"{args.output} tokens; {args.repeat} runs"
    )
    print(describe(runs))
    asked = {"question": _without_words(question), "num_requests": args.requests}
    asked |= {"num_clients": load.num_clients, "rate": load.rate}
    return {"load": asked, "runs": runs}, all(r.num_answered == r.num_requests for r in runs)


def _without_words(question: Question) -> Question:
    return replace(question, words=())


def parse_args(words: Sequence[str] | None = None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="a server that runs: http://host:port")
    where.add_argument("--serve", metavar="MODEL", help="start a server with this model directory")
    parser.add_argument(
        "--serve-option", action="append", default=[], help="an option for the started server"
    )
    parser.add_argument("--server-pid", type=int, help="whose processor time is the server's")
    parser.add_argument("--key", help="the API key to send")
    parser.add_argument("--dialect", type=Dialect, choices=list(Dialect), default=Dialect.TGI)
    parser.add_argument("--model", default="model", help="the name that OpenAI's routes are sent")
    parser.add_argument("--words", type=Path, help="JSON list of words of one token each")
    parser.add_argument("--clients", type=int, default=16, help="closed loop")
    parser.add_argument("--rate", type=float, help="open loop: requests per second, Poisson")
    parser.add_argument("--requests", type=int, help="of one run [64; 20 arrivals]")
    parser.add_argument("--prompt", type=int, default=128, help="words of each prompt")
    parser.add_argument("--output", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--may-stop", action="store_true", help="let answers be shorter than asked")
    parser.add_argument("--repeat", type=int, default=3, help="runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one answer")
    parser.add_argument(
        "--arrival",
        action="store_true",
        help="measure the first token of a request that arrives while 16 others decode",
    )
    parser.add_argument("--short", action="store_true", help="two small runs")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args(words)
    if args.requests is None:
        args.requests = 20 if args.arrival else 64
    if args.short:
        args.requests, args.repeat = min(args.requests, 32), min(args.repeat, 2)
    return args


def main() -> None:
    args = parse_args()
    result, is_answered = run(args)
    if args.json is not None:
        write_result(args.json, result)
    sys.exit(0 if is_answered else 1)


if __name__ == "__main__":
    main()
