"""Each C++ kernel gives what its reference in plain torch gives; what none can take is refused."""

import subprocess
from ctypes import CDLL

import pytest
import torch

from engine.compute.kernels.native import KernelsMissing, Native, load_native
from engine.compute.kernels.packed import Epilogue, HeadShape, interleaved
from engine.compute.kernels.reference import Reference

TOLERANCE = 0.008
"""Two roundings to bfloat16."""


@pytest.fixture(scope="module")
def native():
    try:
        return load_native()
    except KernelsMissing as missing:
        if "this processor has no" in str(missing):
            pytest.skip(str(missing))
        raise


@pytest.fixture
def reference():
    return Reference(torch.float32)


def random(*shape):
    return torch.randn(*shape, dtype=torch.bfloat16)


def assert_near(got, expected):
    scale = expected.float().abs().max()
    assert torch.isfinite(got).all()
    assert (got.float() - expected.float()).abs().max() <= TOLERANCE * scale


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("epilogue", list(Epilogue))
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(
    ("num_rows", "n", "k"),
    [
        (1, 32, 2),
        (3, 96, 64),
        (14, 64, 898),
        (15, 160, 66),
        (29, 320, 48),
        (252, 32, 130),
        (600, 64, 32),
    ],
)
def test_a_product_is_the_references(native, reference, num_rows, n, k, has_bias, epilogue):
    x, weight, bias = random(num_rows, k), random(n, k), random(n) if has_bias else None
    width = n // 2 if epilogue is Epilogue.SILU_MUL else n
    before = random(num_rows, width)
    got = before.to(epilogue.dtype(torch.bfloat16), copy=True)
    native.linear(x, native.pack(weight, bias), got, epilogue)
    expected = before.float()
    packed = reference.pack(weight.float(), None if bias is None else bias.float())
    reference.linear(x.float(), packed, expected, epilogue)
    assert_near(got, expected)


@pytest.mark.parametrize("n", [1, 31, 33, 100, 151])
@pytest.mark.parametrize("epilogue", [Epilogue.STORE, Epilogue.ADD, Epilogue.FLOAT])
def test_a_product_of_any_width_writes_its_own_columns_only(native, reference, n, epilogue):
    x, weight, bias = random(17, 64), random(n, 64), random(n)
    room = torch.full((17 * n + 64,), 7.0, dtype=epilogue.dtype(torch.bfloat16))
    got = room[: 17 * n].view(17, n)
    native.linear(x, native.pack(weight, bias), got, epilogue)
    expected = torch.full((17, n), 7.0)
    reference.linear(x.float(), reference.pack(weight.float(), bias.float()), expected, epilogue)
    assert_near(got, expected)
    assert (room[17 * n :] == 7.0).all()


def test_a_row_has_the_same_bits_among_any_others(native):
    x, weight = random(40, 256), native.pack(random(96, 256))
    together = random(40, 96)
    native.linear(x, weight, together)
    for row in (0, 13, 14, 39):
        alone = random(1, 96)
        native.linear(x[row : row + 1], weight, alone)
        assert torch.equal(alone[0], together[row])


def test_gate_and_factor_are_interleaved_by_groups():
    gate, other = torch.arange(32)[:, None], 100 + torch.arange(32)[:, None]
    expected = [*range(16), *range(100, 116), *range(16, 32), *range(116, 132)]
    assert interleaved(gate, other)[:, 0].tolist() == expected


@pytest.mark.parametrize("shape", [(1, 16), (3, 33), (20, 896), (2, 4097)])
def test_a_norm_is_the_references(native, reference, shape):
    x, weight = random(*shape), random(shape[1])
    got, expected = random(*shape), torch.empty(shape)
    native.rms_norm(x, weight, 1e-6, got)
    reference.rms_norm(x.float(), weight.float(), 1e-6, expected)
    assert_near(got, expected)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "dim"), [(4, 2, 8), (7, 1, 64), (3, 3, 130)])
def test_turned_heads_and_the_cache_are_the_references(
    native, reference, num_heads, num_kv_heads, dim, has_norms
):
    num_tokens = 21
    norms = (random(dim), random(dim)) if has_norms else (None, None)
    heads = HeadShape(num_heads, num_kv_heads, dim, *norms, 1e-6)
    qkv = random(num_tokens, heads.width)
    angles = torch.rand(num_tokens, dim // 2) * 6
    turns = [torch.cat([f(angles), f(angles)], dim=1) for f in (torch.cos, torch.sin)]
    slots = torch.randperm(6 * 16)[:num_tokens]
    caches = [random(num_kv_heads, 6, 16, dim) for _ in range(2)]
    expected_caches = [cache.float() for cache in caches]
    expected = qkv.float()
    widened = (None if norm is None else norm.float() for norm in norms)
    floats = HeadShape(num_heads, num_kv_heads, dim, *widened, 1e-6)
    reference.rope_write(expected, floats, *turns, slots, *expected_caches)
    native.rope_write(qkv, heads, *turns, slots, *caches)
    assert_near(qkv, expected)
    for cache, expected_cache in zip(caches, expected_caches, strict=True):
        assert_near(cache, expected_cache)


@pytest.mark.parametrize("window", [None, 16, 33])
@pytest.mark.parametrize("block_size", [16, 32, 48])
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "dim"),
    [(4, 2, 32), (14, 2, 64), (9, 3, 64), (8, 8, 96), (8, 2, 128), (2, 1, 256)],
)
def test_attention_is_the_references(
    native, reference, num_heads, num_kv_heads, dim, block_size, window
):
    lengths = torch.tensor([1, 2, 15, 16, 17, 31, 33, 100, 257])
    num_each = -(-int(lengths.max()) // block_size)
    num_blocks = len(lengths) * num_each + 3
    k, v = (random(num_kv_heads, num_blocks, block_size, dim) for _ in range(2))
    tables = torch.randperm(num_blocks)[: len(lengths) * num_each].view(len(lengths), num_each)
    qkv = random(len(lengths), num_heads + 2 * num_kv_heads, dim)
    queries, got = qkv[:, :num_heads], random(len(lengths), num_heads, dim)
    assert native.can_attend(num_heads, k, v)
    native.attend(queries, k, v, tables, lengths, window, dim**-0.5, got)
    expected = torch.empty(got.shape)
    reference.attend(
        queries.float(), k.float(), v.float(), tables, lengths, window, dim**-0.5, expected
    )
    assert_near(got, expected)


def test_what_no_attention_kernel_is_made_for_is_known(native):
    k = random(2, 4, 16, 64)
    assert native.can_attend(4, k, k)
    assert not native.can_attend(4, k[..., :40].contiguous(), k[..., :40].contiguous())
    assert not native.can_attend(4, k[:, :, :8].contiguous(), k[:, :, :8].contiguous())
    assert not native.can_attend(2 * 65, k, k)
    assert not native.can_attend(4, k, k[..., :32])
    assert not native.can_attend(4, k.float(), k.float())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(native, bad):
    x = random(2, 64)
    x[1, 5] = bad
    out = random(2, 32)
    for epilogue in (Epilogue.STORE, Epilogue.SILU_MUL):
        out = random(2, 32 if epilogue is Epilogue.STORE else 16)
        native.linear(x, native.pack(torch.ones(32, 64, dtype=torch.bfloat16)), out, epilogue)
        assert torch.isfinite(out[0]).all()
        assert not torch.isfinite(out[1]).any()
    normed = random(2, 64)
    native.rms_norm(x, random(64), 1e-6, normed)
    assert torch.isfinite(normed[0]).all()
    assert normed[1].isnan().any()
    k = random(1, 2, 16, 64)
    attended = random(2, 1, 64)
    tables, lengths = torch.tensor([[0], [1]]), torch.tensor([9, 9])
    native.attend(x[:, None], k, k, tables, lengths, None, 0.125, attended)
    assert torch.isfinite(attended[0]).all()
    assert attended[1].isnan().all()


def test_what_a_kernel_cannot_take_is_refused_with_what_was_given(native):
    weight = native.pack(random(32, 64))
    with pytest.raises(ValueError, match=r"wants torch.bfloat16 \[2, 64\].* Given: torch.float32"):
        native.linear(torch.randn(2, 64), weight, random(2, 32))
    with pytest.raises(ValueError, match=r"\[2, 32\] without gaps\. Given: .*\[2, 31\]"):
        native.linear(random(2, 64), weight, random(2, 31))
    with pytest.raises(ValueError, match="without gaps"):
        native.linear(random(64, 2).T, weight, random(2, 32))


def test_a_library_that_is_none_is_told(tmp_path):
    path = tmp_path / "native.so"
    path.write_text("not a library")
    with pytest.raises(KernelsMissing, match=r"does not load \(.*native\.so"):
        Native(path)


@pytest.mark.parametrize(
    ("version", "missing", "reason"),
    [
        (1, '"AVX-512 BF16"', "this processor has no AVX-512 BF16"),
        (0, "nullptr", "another version's: install again"),
    ],
)
def test_a_library_that_cannot_run_here_is_told(tmp_path, version, missing, reason, native):
    names = ["pack", "linear", "rms_norm", "rope_write", "attend", "attend_can", "attend_scratch"]
    lines = [f"void millrace_{name}() {{}}" for name in names]
    lines += [f"long millrace_version() {{ return {version}; }}"]
    lines += [f"const char* millrace_missing() {{ return {missing}; }}"]
    source, library = tmp_path / "stub.cpp", tmp_path / "stub.so"
    source.write_text('extern "C" {\n' + "\n".join(lines) + "\n}\n")
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    assert CDLL(str(library)).millrace_version() == version
    with pytest.raises(KernelsMissing, match=reason):
        Native(library)
