"""Production's server over a model, that notes when its steps ran and how late its loop woke.

`python watched.py MODEL PORT NOTES` serves until a signal, then writes the notes: `steps`, each
with begin, end, rows that decoded and prompt tokens, and `lags`, each with its moment and the
seconds. Moments are those of CLOCK_MONOTONIC, which all processes share.
"""

import json
import sys
import time
from pathlib import Path

from engine import Batch, Engine, EngineConfig, Observer, StepOutput
from engine.load import load
from server import logs, serving
from server.config import ServerConfig
from server.metrics import Metrics

_LAG_INTERVAL_S = 0.005


class Notes:
    """What is written at the end."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int, int]] = []
        self.lags: list[tuple[float, float]] = []

    def load(self, config: EngineConfig, observer: Observer) -> Engine:
        """Load a model whose steps are noted."""
        engine = load(config, observer)
        execute = engine._runner.execute

        def noted(batch: Batch) -> StepOutput:
            begin = time.monotonic()
            output = execute(batch)
            num_prefill = batch.num_prefill_tokens
            num_rows = batch.num_tokens - num_prefill
            self.steps.append((begin, time.monotonic(), num_rows, num_prefill))
            return output

        engine._runner.execute = noted  # type: ignore[method-assign]
        return engine

    def lagged(self, _: Metrics, lag_s: float) -> None:
        """Note how late the loop woke a task."""
        self.lags.append((time.monotonic(), lag_s))


def main() -> int:
    _, model, port, path = sys.argv
    notes = Notes()
    logs.configure(is_json=False, level="warning")
    serving._LAG_INTERVAL_S = _LAG_INTERVAL_S
    Metrics.loop_lagged = lambda self, lag_s: notes.lagged(self, lag_s)  # type: ignore[method-assign]
    config = ServerConfig(hostname="127.0.0.1", port=int(port), compute_type="cpu")
    code = serving.run(config, EngineConfig(model=model, max_batch_size=64), notes.load)
    Path(path).write_text(json.dumps({"steps": notes.steps, "lags": notes.lags}))
    return code


if __name__ == "__main__":
    sys.exit(main())
