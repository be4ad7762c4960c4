"""Figures of a load, and the processor time that it took."""

import json
import subprocess
import sys
import time

from loads import NO_CPU

from server.cpu import CpuMeter
from server.question import Ending, Outcome
from server.report import Percentiles, describe, figures_of, spread, table, to_json


def answered(due, sent, *times, end=None):
    return Outcome(
        ending=Ending.ANSWERED,
        due=due,
        sent=sent,
        token_times=times,
        end=times[-1] if end is None else end,
        num_prompt_tokens=5,
        num_tokens=len(times),
    )


def test_delays_count_from_when_a_request_was_due():
    figures = figures_of([answered(1.0, 3.0, 4.0, 4.5, 6.0, end=7.0)], NO_CPU)
    assert figures.first_token_ms == Percentiles(3000.0, 3000.0, 3000.0, 3000.0)
    assert figures.whole_ms.max == 6000.0
    assert (figures.gap_ms.p50, figures.gap_ms.max) == (1000.0, 1500.0)
    assert figures.per_token_ms.p50 == 1000.0
    assert figures.sent_late_ms == 2000.0
    assert figures.tokens_per_s == 1.5


def test_one_token_has_no_gap_and_no_time_per_token():
    figures = figures_of([answered(1.0, 1.0, 2.0)], NO_CPU)
    assert figures.gap_ms is None
    assert figures.per_token_ms is None
    assert figures.first_token_ms.p50 == 1000.0


def test_percentiles_lie_between_the_ranked_values():
    assert Percentiles.of(n / 1000 for n in range(101)) == Percentiles(50.0, 90.0, 99.0, 100.0)
    assert Percentiles.of([0.003, 0.001]) == Percentiles(2.0, 2.8, 2.98, 3.0)
    assert Percentiles.of([]) is None


def test_repeated_runs_are_shown_with_their_spread():
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert spread([2.0, 2.0], 0) == "2"
    assert spread([], 1) == "-"
    runs = [
        figures_of([answered(0.0, 0.0, 1.0, 2.0)], NO_CPU),
        figures_of([answered(0.0, 0.0, 3.0, 4.0)], NO_CPU),
    ]
    failed = Outcome(ending=Ending.FAILED, due=0.0, sent=0.0, error="boom")
    text = describe([*runs, figures_of([failed, failed], NO_CPU)])
    assert "2000.0 (1000.0-3000.0)" in text
    assert "1 (0-1)" in text
    assert "2 x boom" in text
    assert "others 0.50 cores" in text


def test_a_table_has_its_first_column_to_the_left_and_the_others_to_the_right():
    assert table(("a", "bb"), [["ccc", "1"], ["d", "100"]]) == "a     bb\nccc    1\nd    100"


def test_figures_are_written_as_json():
    figures = figures_of([answered(0.0, 0.0, 1.0, 2.0)], NO_CPU)
    read = json.loads(to_json({"runs": [figures]}))["runs"][0]
    assert read["first_token_ms"] == {"p50": 1000.0, "p90": 1000.0, "p99": 1000.0, "max": 1000.0}
    assert read["cpu"]["other_s"] == 1.0


BURN = """
import time
print("ready", flush=True)
input()
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""


def test_the_processor_time_of_a_server_is_told_from_that_of_others():
    command = [sys.executable, "-I", "-c", BURN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        unaware, aware = CpuMeter(), CpuMeter(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        without, use = unaware.stop(), aware.stop()
        process.stdin.write("end\n")
    assert without.server_s is None
    if use.other_s is not None:  # where there is a /proc
        assert use.server_s > 0.3
        assert without.other_s > use.other_s + 0.2
        assert use.other_cores == use.other_s / use.wall_s


def test_the_meter_counts_its_own_processor_time():
    meter = CpuMeter()
    start = time.process_time()
    while time.process_time() < start + 0.1:
        pass
    assert meter.stop().own_s >= 0.1


def test_a_server_that_is_gone_has_no_processor_time():
    assert CpuMeter(2**22 + 1).stop().server_s is None
