"""How long a start takes until requests are answered.

    python benchmarks/start.py --models-dir DIR     # beside the built-in model, 0.5 B parameters

From the start of `millrace serve` until the port takes connections, which it does when the model is
loaded and warm. The first start of each model is not counted: it brings its files into the page
cache.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from models import BUILT_IN_MODEL, make_model
from parts.child import free_port, run_server
from parts.conditions import write_result

from server.report import spread, table

GOAL_S = 6.0


def ready_s(model: Path) -> float:
    """Start a server once; return the seconds until it was ready."""
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--model-id", str(model)]
    with run_server([*command, "--hostname", "127.0.0.1", "--port", str(port)], port) as child:
        return child.ready_s


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path, help="where random models are written and kept")
    parser.add_argument("--repeat", type=int, default=5, help="starts of each model")
    parser.add_argument("--short", action="store_true", help="one start of the built-in model")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    models = [BUILT_IN_MODEL]
    if args.models_dir is not None and not args.short:
        models.append(make_model("qwen-0.5b", args.models_dir))
    times = 1 if args.short else args.repeat
    starts = {model.name: [ready_s(model) for _ in range(1 + times)][1:] for model in models}
    lines = [[name, spread(seconds, 2)] for name, seconds in starts.items()]
    print(table(("model", "ready s"), lines))
    print(f"goal: within {GOAL_S:.0f} s with 0.5 B parameters, its files in the page cache")
    if args.json is not None:
        write_result(args.json, {"ready_s": starts})


if __name__ == "__main__":
    main()
