"""Millrace beside its peers: the same model, the same loads, the same machine, in turn.

    python benchmarks/peers.py --models-dir DIR --llama-cpp FOLDER --openvino PYTHON
    python benchmarks/peers.py --models-dir DIR --only 30m --short
    python benchmarks/peers.py --models-dir DIR --other FOLDER

The models are random, written to --models-dir and converted there for the peers that need it. Each
server is asked through OpenAI's completions route, greedily, with words of one token each that are
new in every round. An answer counts when it has exactly the tokens asked for. A peer that is not
found is a missing row. With --other two builds of Millrace are compared instead.
"""

import signal
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from ceilings import use_all_cores
from models import make_model
from parts.conditions import write_result
from parts.contenders import BUILDS, KINDS, OURS, Absent, Contender, add_options
from parts.families import FAMILIES, Family
from parts.rounds import run_rounds
from parts.side_by_side import compare, describe, is_disturbed

from server.report import spread


def run_family(name: str, family: Family, args: Namespace) -> dict[str, object]:
    """Measure one family of loads; print it, and return what goes into the file."""
    model_dir = make_model(family.model, args.models_dir)
    contenders, absent = find_contenders(family, model_dir, args)
    print(
        f"\n{family.title}: {family.num_prompt_tokens} tokens in"
        f"{f', {family.num_shared_tokens} of them shared' if family.num_shared_tokens else ''}, "
        f"{family.num_output_tokens} out; {args.repeat} rounds",
        flush=True,
    )
    result: dict[str, object] = {"name": name, "family": family}
    if OURS not in absent:
        log = args.models_dir / "peers.log"
        rounds = run_rounds(family, model_dir, contenders, args.repeat, log)
        absent |= rounds.absent
        comparisons = compare(family, family.work(model_dir), rounds)
        print(describe(comparisons))
        if any(map(is_disturbed, comparisons)):
            print("disturbed: others kept the processors busy; see the last column")
        bytes_per_s = [ceiling.bytes_per_s / 1e9 for ceiling in rounds.ceilings]
        flops_per_s = [ceiling.flops_per_s / 1e12 for ceiling in rounds.ceilings]
        print(
            f"bounds from {spread(bytes_per_s, 1)} GB/s and {spread(flops_per_s, 2)} T operations/s"
        )
        result |= {"comparisons": comparisons, "runs": rounds.runs, "ceilings": rounds.ceilings}
    for server, reason in absent.items():
        print(f"{server} is missing: {reason}")
    versions = {c.name: c.version for c in contenders if c.name not in absent}
    return result | {"servers": versions, "missing": absent}


def find_contenders(
    family: Family, model_dir: Path, args: Namespace
) -> tuple[list[Contender], dict[str, str]]:
    """Make ready who is there; say of the others why they take no part.

    Without ours there is nothing to compare, and nobody else is looked for.
    """
    contenders, absent = [], {}
    for name, find in (KINDS if args.other is None else BUILDS).items():
        if OURS in absent:
            break
        try:
            if name in args.without:
                raise Absent("left out by --without")
            contenders.append(find(args, model_dir, family))
        except Absent as reason:
            absent[name] = str(reason)
    return contenders, absent


def parse_args() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models-dir", type=Path, required=True, help="where models are written and kept"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="these loads"
    )
    parser.add_argument(
        "--without", nargs="+", choices=[name for name in KINDS if name != OURS], default=[]
    )
    parser.add_argument(
        "--other", type=Path, metavar="FOLDER", help="beside this checkout of it, not beside peers"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--short", action="store_true", help="few clients, a round of small loads")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    add_options(parser)
    args = parser.parse_args()
    if args.short:
        args.repeat = 1
    return args


def main() -> None:
    # So that the servers are stopped, too, when this is.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    args = parse_args()
    use_all_cores()
    results = []
    for name in args.only:
        family = FAMILIES[name].shortened() if args.short else FAMILIES[name]
        results.append(run_family(name, family, args))
        if args.json is not None:  # after each, for one that is stopped has measured, too
            write_result(args.json, {"families": results})


if __name__ == "__main__":
    main()
