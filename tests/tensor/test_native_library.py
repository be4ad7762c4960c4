"""Which library of kernels is opened, and whose products are taken."""

import subprocess
from ctypes import CDLL

import pytest
from tiny_models import native_kernels

from engine.compute.kernels.native import KernelsMissing, Native
from engine.compute.kernels.onednn import is_faster
from engine.compute.kernels.table import Epilogue


def test_a_library_that_is_none_is_told(tmp_path):
    path = tmp_path / "native.so"
    path.write_text("not a library")
    with pytest.raises(KernelsMissing, match=r"does not load \(.*native\.so"):
        Native(path)


@pytest.mark.parametrize(
    ("version", "missing", "reason"),
    [
        (6, '"AVX-512 BF16"', "this processor has no AVX-512 BF16"),
        (0, "nullptr", "another version's: install again"),
    ],
)
def test_a_library_that_cannot_run_here_is_told(tmp_path, version, missing, reason):
    names = "greedy mask pack linear pack_int8 linear_int8 int8_room rms_norm rope_write write"
    names += " has_amx attend attend_can attend_scratch decode"
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
