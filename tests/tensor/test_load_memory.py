"""Loading needs little more memory than the weights: packed layers take the place of modules."""

import subprocess
import sys

import pytest
import torch
from tiny_models import native_kernels, save_byte_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

SETTINGS = {
    "vocab_size": 8000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
CHILD = """
import re, sys, threading, time
import torch
from engine.compute import model as model_file
from engine.compute.allocator import give_back_freed
from engine.config import EngineConfig
from engine.load import load

def num_bytes():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def watch():
    global peak
    while True:
        peak = max(peak, num_bytes())
        time.sleep(0.001)

take_over = model_file.take_over

def changed(module, *args, **options):
    module.model.layers[-1].mlp.up_proj.weight.mul_(1.5)
    return take_over(module, *args, **options)

small = dict(num_threads=1, max_batch_size=2, max_total_tokens=64, max_cache_tokens=128)
small["dtype"] = "bfloat16"
light, heavy, way = sys.argv[1:]
load(EngineConfig(model=light, **small), None)  # what any model needs: code, threads
if way == "modules":
    model_file.take_over = changed
give_back_freed()
before = peak = num_bytes()
threading.Thread(target=watch, daemon=True).start()
model = load(EngineConfig(model=heavy, **small), None)._runner._model
print(model._decoder is not None, (peak - before) / (2 * model.num_parameters))
"""


def _save(path, num_layers, dtype):
    config = AutoConfig.for_model("qwen2", **SETTINGS, num_hidden_layers=num_layers)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(path)
    save_byte_tokenizer(path)
    return str(path)


@pytest.mark.parametrize(
    ("way", "dtype"),
    [("decoder", torch.bfloat16), ("decoder", torch.float32), ("modules", torch.float32)],
)
def test_loading_needs_at_most_a_third_more_than_the_weights(way, dtype, tmp_path):
    """Also where the decoder turns out to differ in its last layer, and the model is read again.

    Weights whose type is the file's stay in its pages; others are memory of their own.
    """
    native_kernels()
    paths = [_save(tmp_path / str(count), count, dtype) for count in (1, 12)]
    words = [sys.executable, "-c", CHILD, *paths, way]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=100).stdout
    is_decoded, times = said.split()
    assert is_decoded == str(way == "decoder")
    assert 0.9 < float(times) < 1.35
