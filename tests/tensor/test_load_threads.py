"""Loading leaves no matrix threads behind: more of them than cores would make steps wait."""

import subprocess
import sys

from tiny_models import save_tiny_model

CHILD = """
import os, sys, time
import torch
from engine.config import EngineConfig
from engine.load import load

def num_threads():
    return len(os.listdir("/proc/self/task"))

def settled():
    seen = [num_threads()]
    while len(seen) < 20 or len(set(seen[-20:])) > 1:
        time.sleep(0.01)
        seen.append(num_threads())
    return seen[-1]

def load_once():
    load(EngineConfig(model=sys.argv[1], dtype="float32", num_threads=2), None)
    return settled()

first, second = load_once(), load_once()
torch.ones(2_000_000).add_(1)
print(first, second, num_threads())
"""


def test_the_team_of_loading_ends_with_it(tmp_path):
    path = save_tiny_model("qwen2", tmp_path)
    words = [sys.executable, "-c", CHILD, str(path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=100).stdout
    first, second, with_own_team = map(int, said.split())
    assert second == first, "each load leaves threads behind"
    assert with_own_team == first + 1, "who called load has matrix threads already"
