"""Peers side by side: whose turn it is, what counts, and how far from the bound it is."""

import json
import os
import subprocess
import sys
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from server.cpu import CpuUse
from server.report import Figures, Percentiles, to_json

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child"]
CONFIG = {
    "hidden_size": 10,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "vocab_size": 100,
}
SERVER = '''
"""Answers completions; notes each prompt, and the states of the servers whose pids lie here."""

import json, os, sys
from pathlib import Path
from aiohttp import web

folder, name, num_missing, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
(folder / f"{name}.pid").write_text(str(os.getpid()))

def state(path):
    return Path("/proc", path.read_text(), "stat").read_text().rpartition(")")[2].split()[0]

async def complete(request):
    asked = await request.json()
    others = [state(path) for path in folder.glob("*.pid") if path.stem != name]
    with open(folder / "asked.jsonl", "a") as file:
        print(json.dumps([name, asked["prompt"], asked["max_tokens"], others]), file=file)
    count = asked["max_tokens"] - num_missing
    chunk = {"choices": [{"index": 0, "text": "x"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": count}}
    events = [*[json.dumps(chunk)] * count, json.dumps(usage), "[DONE]"]
    text = "".join(f"data: {event}\\n\\n" for event in events)
    return web.Response(text=text, content_type="text/event-stream")

async def health(request):
    return web.Response()

app = web.Application()
app.add_routes([web.get("/health", health), web.post("/v1/completions", complete)])
try:
    web.run_app(app, host="127.0.0.1", port=port, print=None)
finally:
    (folder / f"{name}.pid").unlink()
'''


@pytest.fixture(scope="module")
def parts():
    """Import the scripts as they import each other: by the folder they lie in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("ceilings", "plots", "parts.contenders", "parts.families", "parts.lane")
        found = {name.rpartition(".")[2]: import_module(name) for name in names}
        for name in ("rounds", "side_by_side"):
            found[name] = import_module(f"parts.{name}")
        patch.setattr(found["ceilings"], "_MIN_S", 0.01)
        yield SimpleNamespace(**found)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "bench_words.json").write_text(json.dumps(WORDS))
    (tmp_path / "server.py").write_text(SERVER)
    return tmp_path


def family_of(parts, *points, **options):
    lengths = {"num_prompt_tokens": 10, "num_output_tokens": 6, **options}
    points = tuple(parts.families.Point(*point) for point in points)
    return parts.families.Family(title="small", model="none", points=points, **lengths)


def contender(parts, folder, name, num_missing=0):
    command = (sys.executable, str(folder / "server.py"), str(folder), name, str(num_missing))
    return parts.contenders.Contender(name=name, version="1", command=command)


def figures(tokens_per_s, first_token_ms=10.0, gap_ms=5.0, num_answered=4):
    return Figures(
        num_requests=4,
        num_answered=num_answered,
        num_refused=0,
        num_failed=4 - num_answered,
        errors={} if num_answered == 4 else {"the answer was cut off": 1},
        num_tokens=24,
        prompt_tokens=(10, 10),
        wall_s=1.0,
        tokens_per_s=tokens_per_s,
        requests_per_s=4.0,
        first_token_ms=Percentiles(*[first_token_ms] * 4),
        gap_ms=Percentiles(*[gap_ms] * 4),
        per_token_ms=None,
        whole_ms=None,
        sent_late_ms=0.0,
        cpu=CpuUse(wall_s=1.0, own_s=0.1, server_s=1.0, other_s=0.0),
    )


def rounds_of(parts, **servers):
    """Make up rounds of one client: the figures of each server in turn."""
    runs = [
        parts.lane.Run(server=server, num_clients=1, round=number, figures=found)
        for server, several in servers.items()
        for number, found in enumerate(several)
    ]
    # the machine is twice as fast in each server's second round
    ceilings = [
        parts.ceilings.Ceiling(1e6 * (1 + run.round), 1e8 * (1 + run.round)) for run in runs
    ]
    return parts.rounds.Rounds(runs=runs, ceilings=ceilings, absent={})


def test_servers_take_turns_on_the_same_new_words_while_the_others_are_stopped(parts, folder):
    family = family_of(parts, (1, 2), (2, 4), num_shared_tokens=7)
    names = ["millrace", "openvino", "vllm"]
    servers = [contender(parts, folder, name) for name in names]
    rounds = parts.rounds.run_rounds(family, folder, servers, 2, folder / "log")
    assert [(run.round, run.num_clients, run.server) for run in rounds.runs] == [
        (number, clients, name) for number in (0, 1) for clients in (1, 2) for name in names
    ]
    assert all(run.figures.num_answered == run.figures.num_requests for run in rounds.runs)
    asked = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
    asked = asked[3 * 3 * 5 :]  # less the first answers of each
    assert {state for *_, others in asked for state in others} == {"T"}
    turns = [[*turn] for _, turn in groupby(asked, key=lambda request: request[0])]
    assert len(turns) == 12
    prompts = [sorted(prompt for _, prompt, count, _ in turn if count == 6) for turn in turns]
    assert prompts[0] == prompts[1] == prompts[2]
    assert {len(prompt.split()) for turn in prompts for prompt in turn} == {10}
    shared = [{tuple(prompt.split()[:7]) for _, prompt, *_ in turn} for turn in turns]
    assert [len(each) for each in shared] == [1] * 12, "waking up did not fill the cache"
    assert len({prefix for each in shared for prefix in each}) == 4, "rounds repeat their words"


def test_a_server_that_does_not_come_or_answers_too_little_is_missing(parts, folder):
    family = family_of(parts, (1, 2))
    good = contender(parts, folder, "millrace")
    short = contender(parts, folder, "vllm", num_missing=1)
    broken = parts.contenders.Contender(
        name="openvino", version="1", command=(sys.executable, "-c", "raise SystemExit('no room')")
    )
    rounds = parts.rounds.run_rounds(family, folder, [short, broken, good], 1, folder / "log")
    assert rounds.absent == {
        "vllm": "it does not answer as asked: 16 tokens were asked for, 15 came",
        "openvino": "the server ended with code 1 at its start: no room",
    }
    assert [run.server for run in rounds.runs] == ["millrace"]


def test_a_peer_far_slower_than_the_best_at_first_is_not_asked_again_but_we_are(parts, folder):
    family = family_of(parts, (1, 2))
    servers = [contender(parts, folder, name) for name in ("millrace", "openvino", "vllm")]
    with pytest.MonkeyPatch.context() as patch:
        rates = iter([9.0, 9.0, 9.0, 1.0, 100.0, 50.0, 1.0, 3.0, 19.0])  # three times each
        patch.setattr(parts.lane.Lane, "answer_first", lambda lane: next(rates))
        rounds = parts.rounds.run_rounds(family, folder, servers, 1, folder / "log")
    assert rounds.absent == {"vllm": "too slow: 19.0 tokens/s at first, where openvino has 100.0"}
    assert [run.server for run in rounds.runs] == ["millrace", "openvino"]


def test_a_peer_that_is_not_named_or_lacks_its_package_is_absent_with_its_reason(parts, folder):
    family = family_of(parts, (1, 2))
    none = SimpleNamespace(llama_cpp=None, openvino=None, vllm=None, transformers=None)
    for name in ("llama.cpp", "openvino", "vllm", "transformers"):
        with pytest.raises(parts.contenders.Absent, match="was not given"):
            parts.contenders.KINDS[name](none, folder, family)
    ours = SimpleNamespace(vllm=Path(sys.executable))
    with pytest.raises(parts.contenders.Absent, match="has no vllm"):
        parts.contenders.vllm(ours, folder, family)


def test_another_build_runs_its_own_code(parts, folder, tmp_path):
    family = family_of(parts, (1, 2))
    with pytest.raises(parts.contenders.Absent, match="--other names nothing that is there"):
        parts.contenders.other_build(SimpleNamespace(other=tmp_path / "no"), folder, family)
    (tmp_path / "server").mkdir()
    for name in ("__init__.py", "__main__.py"):
        (tmp_path / "server" / name).write_text("print(__file__)" if "main" in name else "")
    other = parts.contenders.other_build(SimpleNamespace(other=tmp_path), folder, family)
    env = {**os.environ, **other.env}
    command = [*other.command, "8080"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=ROOT)
    assert said.stdout.strip() == str(tmp_path / "server" / "__main__.py")


def test_ratios_pair_the_rounds_with_the_best_peer_of_each_measure(parts, folder):
    family = family_of(parts, (1, 4))
    rounds = rounds_of(
        parts,
        millrace=[figures(30, 10, 4), figures(33, 12, 4)],
        vllm=[figures(20, 40, 2), figures(22, 40, 2)],
        openvino=[figures(10, 20, 8), figures(10, 20, 8)],
    )
    (comparison,) = parts.side_by_side.compare(family, family.work(folder), rounds)
    assert {ratio.measure: (ratio.peer, ratio.values) for ratio in comparison.ratios} == {
        "tokens/s": ("vllm", [1.5, 1.5]),
        "first token ms": ("openvino", [0.5, 0.6]),
        "gap p99 ms": ("vllm", [2.0, 2.0]),
    }
    told = parts.side_by_side.describe([comparison])
    assert "1.50 vllm" in told
    assert "0.55 (0.50-0.60) openvino" in told


def test_who_fails_one_request_wins_and_loses_nothing(parts, folder):
    family = family_of(parts, (1, 4))
    rounds = rounds_of(
        parts,
        millrace=[figures(30)],
        vllm=[figures(100, num_answered=3)],
        openvino=[figures(20)],
    )
    (comparison,) = parts.side_by_side.compare(family, family.work(folder), rounds)
    assert {ratio.peer for ratio in comparison.ratios} == {"openvino"}
    told = parts.side_by_side.describe([comparison])
    reason = "1 of 4 requests failed: the answer was cut off"
    assert f"vllm with 1 clients does not count: {reason}" in told
    ours = rounds_of(parts, millrace=[figures(30, num_answered=3)], openvino=[figures(20)])
    assert parts.side_by_side.compare(family, family.work(folder), ours)[0].ratios == []


def test_who_sends_all_at_once_has_no_gaps_to_win_by(parts, folder):
    family = family_of(parts, (1, 4))
    rounds = rounds_of(
        parts,
        millrace=[figures(30, 10, 4)],
        vllm=[figures(20, 20, 0.0)],
        openvino=[figures(10, 40, 8)],
    )
    (comparison,) = parts.side_by_side.compare(family, family.work(folder), rounds)
    ratios = {ratio.measure: (ratio.peer, ratio.median) for ratio in comparison.ratios}
    assert ratios["gap p99 ms"] == ("openvino", 0.5)
    assert ratios["tokens/s"] == ("vllm", 1.5)
    alone = rounds_of(parts, millrace=[figures(30)], vllm=[figures(20, 20, 0.0)])
    compared = parts.side_by_side.compare(family, family.work(folder), alone)
    assert parts.side_by_side.describe(compared).splitlines()[-1].split()[-1] == "-"


def test_the_bound_reads_all_once_a_step_and_computes_what_no_cache_holds(parts, folder):
    # 2 layers: q, o 10 x 10, k, v 2 x 10, three of 10 x 20; the head 100 x 10
    layers, head = 2 * (100 + 100 + 20 + 20 + 600), 1000
    kv_bytes = 2 * 2 * 2 * 2
    family = family_of(parts, (4, 8), num_shared_tokens=6)
    ceiling = parts.ceilings.Ceiling(1e6, 1e9)  # reading decides the decode steps
    prefill_s = max((layers + head) * 2 / 1e6, (4 * 4 * 2 * layers + 4 * 2 * head) / 1e9)
    decode_s = ((layers + head) * 2 + (6 + 4 * (4 + 3)) * kv_bytes) / 1e6
    (point,) = family.points
    bound = family.bound_tokens_per_s(point, family.work(folder), ceiling)
    assert bound == pytest.approx(4 * 6 / (prefill_s + 5 * decode_s))
    slow = parts.ceilings.Ceiling(1e9, 1e5)  # multiplying decides all of them
    bound = family.bound_tokens_per_s(point, family.work(folder), slow)
    flops = 4 * 4 * 2 * layers + 4 * 2 * head + 5 * 4 * 2 * (layers + head)
    assert bound == pytest.approx(4 * 6 / (flops / 1e5))


def test_pictures_show_every_server_that_counts_and_say_it_in_words(parts, folder, capsys):
    family = family_of(parts, (1, 4))
    rounds = rounds_of(
        parts,
        millrace=[figures(30), figures(36)],
        vllm=[figures(100, num_answered=3)] * 2,
        openvino=[figures(20), figures(20)],
    )
    comparisons = parts.side_by_side.compare(family, family.work(folder), rounds)
    measured = {"name": "small", "family": family, "comparisons": comparisons}
    measured |= {"servers": {"millrace": "1"}, "missing": {"llama.cpp": "it was not given"}}
    read = json.loads(to_json(measured))
    svg = ElementTree.fromstring(parts.plots.draw(read))
    space = {"s": "http://www.w3.org/2000/svg"}
    assert "millrace 33, openvino 20" in svg.findtext("s:desc", namespaces=space)
    titles = [title.text for title in svg.findall(".//s:g/s:title", space)]
    assert titles[:2] == ["millrace: 33", "openvino: 20"]
    assert len(titles) == 2 * 3
    told = parts.plots.summarise(read, "results/small.svg")
    point, work = family.points[0], family.work(folder)
    slow = family.bound_tokens_per_s(point, work, parts.ceilings.Ceiling(1e6, 1e8))
    assert comparisons[0].bound_tokens_per_s == pytest.approx(1.5 * slow)
    low, high = 36 / (2 * slow), 30 / slow
    ratios = "1.65 (1.50-1.80) openvino | 1.00 (1.00-1.00) openvino | 1.00 (1.00-1.00) openvino"
    assert f"| 1 | 33 | {(low + high) / 2:.2f} ({low:.2f}-{high:.2f}) | {ratios} |" in told
    assert "llama.cpp is missing: it was not given." in told
