"""Each C++ kernel gives what its reference in plain torch gives."""

import pytest
import torch
from kernel_tensors import paged_of, random, rope_table_of
from tiny_models import native_kernels

from engine.compute.kernels.native import Native
from engine.compute.kernels.onednn import OneDnn
from engine.compute.kernels.reference import Reference
from engine.compute.kernels.table import (
    AdapterTokens,
    Epilogue,
    Heads,
    Layer,
    LayerAdapter,
    Paged,
    interleaved,
)
from engine.compute.kv_cache import KVCache, LayerShape
from engine.compute.logits import Logits

TOLERANCE = 0.008
"""Two roundings to bfloat16."""


@pytest.fixture(scope="module", params=[Native, OneDnn])
def native(request):
    return native_kernels(request.param)


@pytest.fixture
def reference():
    return Reference(torch.float32)


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
    width = n // 2 if epilogue.is_gated else n
    before = random(num_rows, width)
    got = before.clone()
    native.linear(x, native.pack(weight, bias), got, epilogue)
    expected = before.float()
    packed = reference.pack(weight.float(), None if bias is None else bias.float())
    reference.linear(x.float(), packed, expected, epilogue)
    assert_near(got, expected)


def to_bytes(numbers, group):
    """Round to 8 bits with one scale for each group of a row; give what they stand for."""
    rows = []
    for part in numbers.float().split(group, dim=1):
        scale = part.abs().amax(1, keepdim=True) / 127
        rows.append((part / scale).nan_to_num().round() * scale)
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("epilogue", list(Epilogue))
@pytest.mark.parametrize(
    ("num_rows", "n", "k", "has_bias"),
    [
        (1, 32, 4, False),
        (3, 64, 128, True),
        (14, 96, 132, False),
        (15, 160, 896, True),
        (40, 320, 508, False),
        (260, 32, 1024, True),
    ],
)
def test_a_product_of_8_bits_is_that_of_the_rounded_numbers(
    native, reference, num_rows, n, k, has_bias, epilogue
):
    x, weight, bias = random(num_rows, k), random(n, k), random(n) if has_bias else None
    before = random(num_rows, n // 2 if epilogue.is_gated else n)
    before[0, 0] = 0.0
    got = before.clone()
    native.linear(x, native.pack(weight, bias, is_int8=True), got, epilogue)
    expected = before.float()
    packed = reference.pack(to_bytes(weight, k), None if bias is None else bias.float())
    reference.linear(to_bytes(x, 128), packed, expected, epilogue)
    assert_near(got, expected)


def test_8_bits_hold_a_row_and_a_column_of_zeros(native):
    x, weight = random(2, 64), random(33, 64)
    x[0], weight[32] = 0, 0
    out = Logits(torch.ones(2, 33), torch.ones(2, 2))
    native.logits(x, native.pack(weight, is_int8=True), out)
    assert (out.values[0] == 0).all()
    assert (out.values[:, 32] == 0).all()
    assert (out.values[1, :32] != 0).all()
    assert (out.tops[:, 1] == 0).all()


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize(("num_rows", "n", "k"), [(1, 32, 64), (15, 151, 128), (30, 320, 36)])
def test_logits_and_the_largest_of_their_panels_are_the_references(
    native, reference, num_rows, n, k, is_int8
):
    x, weight, bias = random(num_rows, k), random(n, k), random(n)
    if is_int8:
        x, weight = (to_bytes(numbers, k).bfloat16() for numbers in (x, weight))
    got, expected = (
        Logits(torch.empty(num_rows, n), torch.empty(num_rows, -(-n // 32))) for _ in range(2)
    )
    native.logits(x, native.pack(weight, bias, is_int8=is_int8), got)
    reference.logits(x.float(), reference.pack(weight.float(), bias.float()), expected)
    assert (got.values - expected.values).abs().max() < 0.02 * expected.values.abs().max()
    panels = torch.nn.functional.pad(got.values, (0, -n % 32), value=-torch.inf)
    assert torch.equal(got.tops, panels.unflatten(1, (-1, 32)).amax(-1))
    x[0, 3] = torch.nan
    native.logits(x, native.pack(weight, bias, is_int8=is_int8), got)
    assert got.tops[0].isnan().all()
    assert got.tops[1:].isfinite().all()


@pytest.mark.parametrize("n", [1, 31, 33, 100, 151])
@pytest.mark.parametrize("epilogue", [Epilogue.STORE, Epilogue.ADD])
def test_a_product_of_any_width_writes_its_own_columns_only(native, reference, n, epilogue):
    x, weight, bias = random(17, 64), random(n, 64), random(n)
    room = torch.full((17 * n + 64,), 7.0, dtype=torch.bfloat16)
    got = room[: 17 * n].view(17, n)
    native.linear(x, native.pack(weight, bias), got, epilogue)
    expected = torch.full((17, n), 7.0)
    reference.linear(x.float(), reference.pack(weight.float(), bias.float()), expected, epilogue)
    assert_near(got, expected)
    assert (room[17 * n :] == 7.0).all()


@pytest.mark.parametrize("is_int8", [False, True])
def test_a_row_has_the_same_bits_among_any_others(native, is_int8):
    # oneDNN's products may be others from 17 rows on
    num_rows = 16 if isinstance(native, OneDnn) and not is_int8 else 40
    x, weight = random(num_rows, 256), native.pack(random(96, 256), is_int8=is_int8)
    together = random(num_rows, 96)
    native.linear(x, weight, together)
    for row in (0, 13, 14, num_rows - 1):
        alone = random(1, 96)
        native.linear(x[row : row + 1], weight, alone)
        assert torch.equal(alone[0], together[row])


def test_gate_and_factor_are_interleaved_by_groups():
    gate, other = torch.arange(32)[:, None], 100 + torch.arange(32)[:, None]
    expected = [*range(16), *range(100, 116), *range(16, 32), *range(116, 132)]
    assert interleaved(gate, other)[:, 0].tolist() == expected


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("is_gated", [False, True])
def test_weights_are_packed_as_if_they_were_joined(native, is_gated, is_int8):
    if is_gated:
        parts = [random(48, 36), random(48, 36)]
        whole = interleaved(*parts)
    else:
        parts = [random(48, 36), random(7, 36), random(36, 9).T]  # not whole panels, with gaps
        whole = torch.cat(parts)
    x, got, expected = random(3, 36), random(3, len(whole)), random(3, len(whole))
    native.linear(x, native.pack(parts, is_gated=is_gated, is_int8=is_int8), got)
    native.linear(x, native.pack(whole, is_int8=is_int8), expected)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", [(1, 16), (3, 33), (20, 896), (2, 4097)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_is_the_references(native, reference, shape, offset):
    x, weight = random(*shape), random(shape[1])
    got, expected = random(*shape), torch.empty(shape)
    native.rms_norm(x, weight, 1e-6, got, offset)
    reference.rms_norm(x.float(), weight.float(), 1e-6, expected, offset)
    assert_near(got, expected)


def caches_of(kernels, num_kv_heads, num_blocks, block_size, dim, seed=1):
    """Fill a layer's cache in the kernels' own layout; the same numbers for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    size = (num_kv_heads, num_blocks * block_size, dim)
    new = [torch.randn(size, generator=generator).bfloat16().to(kernels.dtype) for _ in range(2)]
    shape = LayerShape(num_kv_heads, dim, dim)
    cache = KVCache([shape] * 2, num_blocks, block_size, kernels.dtype, torch.device("cpu"))
    caches = cache.k[1], cache.v[1]
    kernels.write(*new, torch.arange(size[1]), *caches)
    return caches


def in_plain_layout(cache, is_key):
    """Read a native cache as `[kv_heads, slots, dim]` by what cache.h says of a block's inside."""
    heads, blocks, size, dim = cache.shape
    numbers = cache.reshape(heads, blocks, -1)
    if is_key:
        panels = numbers.view(heads, blocks, size // 32, dim // 2, 32, 2)
        plain = panels.permute(0, 1, 2, 4, 3, 5)
    else:
        panels = numbers.view(heads, blocks, dim // 32, size // 2, 32, 2)
        plain = panels.permute(0, 1, 3, 5, 2, 4)
    return plain.reshape(heads, blocks * size, dim)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("block_size", [32, 64])
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "dim"), [(4, 2, 32), (7, 1, 64), (3, 3, 160)]
)
def test_turned_heads_and_the_cache_are_the_references(
    native, reference, num_heads, num_kv_heads, dim, block_size, has_norms
):
    heads = Heads(num_heads, num_kv_heads, dim)
    paged, num_blocks = paged_of([9, 1, 33, *range(40, 60)], block_size)
    rope_table = rope_table_of(dim, 64)
    norms = (random(dim), random(dim)) if has_norms else (None, None)
    qkv = random(23, heads.width)
    expected = qkv.float()
    widened = tuple(None if norm is None else norm.float() for norm in norms)
    size = (num_kv_heads, num_blocks, block_size, dim)
    caches, expected_caches = caches_of(native, *size), caches_of(reference, *size)
    reference.rope_write(expected, heads, widened, 1e-6, rope_table, paged, *expected_caches)
    native.rope_write(qkv, heads, norms, 1e-6, rope_table, paged, *caches)
    assert_near(qkv, expected)
    for cache, expected_cache, is_key in zip(caches, expected_caches, (True, False), strict=True):
        assert_near(in_plain_layout(cache, is_key), expected_cache.flatten(1, 2))


@pytest.mark.parametrize("window", [None, 16, 33])
@pytest.mark.parametrize("block_size", [32, 96])
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "dim"),
    [(4, 2, 32), (14, 2, 64), (9, 3, 64), (8, 8, 96), (8, 2, 128), (17, 1, 160), (2, 1, 256)],
)
def test_attention_is_the_references(
    native, reference, num_heads, num_kv_heads, dim, block_size, window
):
    paged, num_blocks = paged_of([1, 2, 15, 16, 17, 31, 33, 100, 257], block_size)
    queries = random(9, num_heads + 2 * num_kv_heads, dim)[:, :num_heads]
    got, expected = random(9, num_heads, dim), torch.empty(9, num_heads, dim)
    size, how = (num_kv_heads, num_blocks, block_size, dim), (paged, window, dim**-0.5)
    caches = caches_of(native, *size)
    assert native.can_attend(num_heads, *caches)
    native.attend(queries, *caches, *how, got)
    reference.attend(queries.float(), *caches_of(reference, *size), *how, expected)
    assert_near(got, expected)


def test_tokens_of_one_row_see_what_is_before_them(native, reference):
    paged, num_blocks = paged_of([50, 70], 32)
    rows, positions = torch.tensor([1, 0, 0, 1]), torch.tensor([69, 3, 40, 0])
    paged = Paged(positions, torch.zeros(4, dtype=torch.int64), rows, paged.tables)
    queries, got, expected = random(4, 4, 64), random(4, 4, 64), torch.empty(4, 4, 64)
    caches, plain = (caches_of(each, 2, num_blocks, 32, 64) for each in (native, reference))
    native.attend(queries, *caches, paged, None, 0.125, got)
    reference.attend(queries.float(), *plain, paged, None, 0.125, expected)
    assert_near(got, expected)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("is_biased", [False, True])
@pytest.mark.parametrize("window", [None, 20])
def test_layers_together_are_the_references(native, window, is_biased, is_int8):
    hidden, inner, heads = 64, 96, Heads(4, 2, 32)
    reference = Reference(torch.bfloat16)
    paged, num_blocks = paged_of([1, 40, 17, 90], 32)
    rope_table = rope_table_of(32, 90)
    weights = [
        [random(n, k) / k**0.5 for n, k in shapes]
        for shapes in 2
        * [[(heads.width, hidden), (hidden, 128), (2 * inner, hidden), (hidden, inner)]]
    ]
    biases = [[random(len(w)) if is_biased else None for w in each] for each in weights]
    norms = [[random(n) for n in (hidden, 32, 32, hidden)] for _ in range(2)]
    x, got = random(4, hidden), {}
    for kernels in (native, reference):
        layers = []
        for each, bias, (norm, q_norm, k_norm, mlp_norm) in zip(
            weights, biases, norms, strict=True
        ):
            pairs = zip(each, bias, strict=True)
            qkv, out, gate_up, down = (kernels.pack(*pair, is_int8=is_int8) for pair in pairs)
            head = (norm, qkv, q_norm, k_norm, window, 32**-0.5)
            layers.append(Layer(*head, out, mlp_norm, gate_up, down))
        k, v = zip(
            *(caches_of(kernels, 2, num_blocks, 32, 32, seed) for seed in (1, 2)), strict=True
        )
        got[kernels] = x.clone()
        kernels.decoder(heads, 1e-6, layers, k, v).add(got[kernels], paged, rope_table)
    assert (got[native] - x).abs().max() > 1
    difference = (got[native].float() - got[reference].float()).norm()
    tolerance = 0.05 if is_int8 else 0.02  # the reference rounds weights only
    assert difference < tolerance * (got[reference].float() - x.float()).norm()


@pytest.mark.parametrize("is_int8", [False, True])
def test_layers_with_adapters_are_the_references_and_each_token_is_by_itself(native, is_int8):
    hidden, inner, heads, rank = 64, 96, Heads(4, 2, 32), 6
    reference = Reference(torch.bfloat16)
    paged, num_blocks = paged_of([1, 40, 17, 90, 33], 32)
    rope_table = rope_table_of(32, 90)
    sizes = [(heads.width, hidden), (hidden, 128), (2 * inner, hidden), (hidden, inner)]
    weights = [random(n, k) / k**0.5 for n, k in sizes]
    pairs = [
        [(random(rank, k) / k**0.5, random(n, rank)) for n, k in sizes[: 1 + 3 * number]]
        for number in range(2)
    ]
    norm, x = random(hidden), random(5, hidden)
    of_both = [
        AdapterTokens(1, torch.tensor([0, 3])),
        AdapterTokens(0, torch.tensor([2])),
    ]
    of_one = [AdapterTokens(1, torch.tensor([3]))]

    def added(kernels, adapted):
        qkv, out, gate_up, down = (kernels.pack(weight, is_int8=is_int8) for weight in weights)
        layer = Layer(norm, qkv, None, None, None, 32**-0.5, out, norm, gate_up, down)
        adapters = []
        for own in pairs:
            beside = (qkv, out, gate_up, down)
            parts = [
                kernels.low_rank(*pair, weight) for pair, weight in zip(own, beside, strict=False)
            ]
            adapters.append([LayerAdapter(*parts, *[None] * (4 - len(parts)))])
        caches = [[cache] for cache in caches_of(kernels, 2, num_blocks, 32, 32)]
        y = x.clone()
        kernels.decoder(heads, 1e-6, [layer], *caches, adapters).add(y, paged, rope_table, adapted)
        return y

    both, one, none = (added(native, adapted) for adapted in (of_both, of_one, ()))
    assert torch.equal(both[[1, 4]], none[[1, 4]])
    assert torch.equal(one[[0, 1, 2, 4]], none[[0, 1, 2, 4]])
    assert torch.equal(one[3], both[3])
    assert ((both - none)[[0, 2, 3]].norm(dim=1) > 1).all()
    expected = added(reference, of_both)
    tolerance = 0.05 if is_int8 else 0.02  # the reference rounds weights only
    difference = (both.float() - expected.float()).norm()
    assert difference < tolerance * (expected.float() - x.float()).norm()


@pytest.mark.parametrize("is_in_place", [False, True])
@pytest.mark.parametrize("width", [1, 15, 31, 32, 33, 320, 40_000])
def test_a_masked_row_and_its_tops_are_the_references(native, reference, width, is_in_place):
    row = torch.randn(width)
    row[torch.randperm(width)[: width // 7]] = -torch.inf
    num_panels = -(-width // 32)
    mask = torch.randint(-(2**31), 2**31, (num_panels + 1,), dtype=torch.int32)
    mask[torch.randperm(num_panels)[: num_panels // 2]] = 0
    if width == 320:
        row[5], row[300], mask[0], mask[9] = torch.nan, torch.nan, -1, 0
    got, expected = (Logits(torch.zeros(1, width), torch.zeros(1, num_panels)) for _ in range(2))
    reference.mask(row, mask, expected)
    assert width < 33 or expected.values.isfinite().any()
    assert expected.values.isneginf().any() or width == 1
    given = row
    if is_in_place:
        got.values[0] = row
        given = got.values[0]
    native.mask(given, mask, got)
    for one, other in ((got.values, expected.values), (got.tops, expected.tops)):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(native, bad, is_int8):
    x = random(2, 64)
    x[1, 5] = bad
    out = random(2, 32)
    for epilogue in (Epilogue.STORE, Epilogue.SILU_MUL):
        out = random(2, 32 if epilogue is Epilogue.STORE else 16)
        ones = native.pack(torch.ones(32, 64, dtype=torch.bfloat16), is_int8=is_int8)
        native.linear(x, ones, out, epilogue)
        assert torch.isfinite(out[0]).all()
        assert not torch.isfinite(out[1]).any()
    normed = random(2, 64)
    native.rms_norm(x, random(64), 1e-6, normed)
    assert torch.isfinite(normed[0]).all()
    assert normed[1].isnan().any()
    k = random(1, 2, 32, 64)
    attended = random(2, 1, 64)
    zeros, rows = torch.zeros(2, dtype=torch.int64), torch.arange(2)
    paged = Paged(zeros + 8, zeros, rows, rows[:, None].contiguous())
    native.attend(x[:, None], k, k, paged, None, 0.125, attended)
    assert torch.isfinite(attended[0]).all()
    assert attended[1].isnan().all()
