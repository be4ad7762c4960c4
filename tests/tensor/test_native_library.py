"""Which library of kernels is opened, and whose products are taken."""

import logging
import subprocess
from ctypes import CDLL

import pytest
from tiny_models import native_kernels, save_model

from engine import load as load_file
from engine.compute import model as model_file
from engine.compute.kernels.native import KernelsMissing, Native
from engine.compute.kernels.onednn import OneDnn, is_faster
from engine.compute.kernels.table import Epilogue
from engine.config import EngineConfig
from engine.errors import LoadError


def test_a_library_that_is_none_is_told(tmp_path):
    path = tmp_path / "native.so"
    path.write_text("not a library")
    with pytest.raises(KernelsMissing, match=r"does not load \(.*native\.so"):
        Native(path)


@pytest.mark.parametrize(
    ("version", "missing", "reason"),
    [
        (10, '"AVX-512 BF16"', "this processor has no AVX-512 BF16"),
        (0, "nullptr", "another version's: install again"),
    ],
)
def test_a_library_that_cannot_run_here_is_told(tmp_path, version, missing, reason):
    names = "greedy mask pack linear pack_int8 linear_int8 int8_workspace rms_norm rope_write write"
    names += " has_amx attend attend_can attend_workspace decode"
    lines = [f"void millrace_{name}() {{}}" for name in names.split()]
    lines += [f"long millrace_version() {{ return {version}; }}"]
    lines += [f"const char* millrace_missing() {{ return {missing}; }}"]
    source, library = tmp_path / "stub.cpp", tmp_path / "stub.so"
    source.write_text('extern "C" {\n' + "\n".join(lines) + "\n}\n")
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    assert CDLL(str(library)).millrace_version() == version
    with pytest.raises(KernelsMissing, match=reason):
        Native(library)


class _Slow(Native):
    """Takes ten times as long."""

    def linear(self, x, weight, out, epilogue=Epilogue.STORE):
        for _ in range(10):
            super().linear(x, weight, out, epilogue)


def test_the_faster_products_are_known():
    kernels, slow = native_kernels(), native_kernels(_Slow)
    assert is_faster(kernels, slow, num_rows=(1, 16))
    assert not is_faster(slow, kernels, num_rows=(1, 16))


@pytest.fixture
def loaded(tmp_path, caplog):
    """Load a model that the decoder takes; give its kernels' class and what load said."""
    native_kernels()
    settings = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 1}
    settings |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    path = save_model("qwen2", settings, tmp_path / "wide")

    def load_it(**options):
        caplog.clear()
        with caplog.at_level(logging.INFO, "engine.load"):
            engine = load_file.load(
                EngineConfig(model=str(path), dtype="bfloat16", **options), None
            )
        runner = engine._runner
        return type(runner._model._kernels), runner, caplog.text

    return load_it


def test_they_run_where_they_can_on_the_cores_that_may_be_used(loaded, monkeypatch):
    monkeypatch.setattr(load_file, "usable_cores", lambda: 3)
    kind, runner, said = loaded()
    assert kind is Native
    assert runner._model._decoder is not None
    assert runner._num_threads == 3
    assert "kernels" not in said
    assert load_file.describe_kernels() == "run here, for bfloat16 and 8 bits"


def test_without_the_library_a_line_says_so_and_plain_torch_runs(loaded, monkeypatch):
    def find_none():
        raise KernelsMissing("nobody built them")

    monkeypatch.setattr(load_file, "find_native", find_none)
    kind, runner, said = loaded()
    assert kind is type(None)
    assert runner._model._decoder is None
    assert said.count("without the C++ kernels, more slowly: nobody built them") == 1
    assert load_file.describe_kernels() == "none: nobody built them"


def test_they_can_be_turned_off(loaded):
    kind, _, said = loaded(has_kernels=False)
    assert kind is type(None)
    assert said.count("without the C++ kernels, as asked for") == 1


@pytest.mark.parametrize(
    ("can_pack", "is_faster", "expected"),
    [(True, True, OneDnn), (True, False, Native), (False, True, Native)],
)
def test_with_amx_the_faster_products_are_taken(loaded, monkeypatch, can_pack, is_faster, expected):
    asked = []
    monkeypatch.setattr(Native, "has_amx", True)
    monkeypatch.setattr(load_file, "can_pack", lambda: can_pack)
    monkeypatch.setattr(load_file, "is_faster", lambda *kinds: asked.append(kinds) or is_faster)
    kind, runner, said = loaded()
    assert kind is expected
    assert runner._model._decoder is not None
    assert ("products by oneDNN" in said) == (expected is OneDnn)
    assert len(asked) == can_pack


def test_a_model_whose_sizes_no_kernel_knows_is_read_once(loaded, monkeypatch):
    reads = []
    read = model_file._from_pretrained
    monkeypatch.setattr(
        model_file, "_from_pretrained", lambda *args, **kw: reads.append(args) or read(*args, **kw)
    )
    _, runner, _ = loaded(block_size=16)
    assert runner._model._decoder is None
    weights = [kind for kind, *_ in reads if kind is model_file.AutoModelForCausalLM]
    assert len(weights) == 1


def test_a_limit_that_leaves_no_token_is_refused(loaded):
    with pytest.raises(LoadError, match=r"^max_total_tokens must be at least 2, .*\. Given: 1$"):
        loaded(max_total_tokens=1)
