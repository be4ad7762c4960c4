"""What no kernel can take is refused with what was given, before anything is done."""

import pytest
import torch
from kernel_tensors import paged_of, random, rope_table_of
from tiny_models import native_kernels

from engine.compute.kernels.native import Native
from engine.compute.kernels.onednn import OneDnn
from engine.compute.kernels.table import (
    AdapterTokens,
    Heads,
    Layer,
    LayerAdapter,
    Paged,
)
from engine.compute.logits import Logits


@pytest.fixture(scope="module", params=[Native, OneDnn])
def native(request):
    return native_kernels(request.param)


def test_what_a_kernel_cannot_take_is_refused_with_what_was_given(native):
    weight = native.pack(random(32, 64))
    with pytest.raises(ValueError, match=r"wants torch.bfloat16 \[2, 64\].* Given: torch.float32"):
        native.linear(torch.randn(2, 64), weight, random(2, 32))
    with pytest.raises(ValueError, match=r"\[2, 32\] without gaps\. Given: .*\[2, 31\]"):
        native.linear(random(2, 64), weight, random(2, 31))
    with pytest.raises(ValueError, match="without gaps"):
        native.linear(random(64, 2).T, weight, random(2, 32))
    with pytest.raises(ValueError, match=r"width is even\. Given: \[32, 63\]"):
        native.pack(random(32, 63))
    with pytest.raises(ValueError, match=r"a multiple of four\. Given: \[32, 62\]"):
        native.pack(random(32, 62), is_int8=True)
    with pytest.raises(ValueError, match=r"\[32\] without gaps\. Given: .*\[31\]"):
        native.pack(random(32, 64), random(31))
    with pytest.raises(ValueError, match=r"of one width\. Given: \[\[32, 64\], \[32, 66\]\]"):
        native.pack([random(32, 64), random(32, 66)])
    k = random(1, 2, 32, 64)
    for v in (random(1, 2, 32, 32), random(1, 2, 64, 32).transpose(2, 3), k.view(1, 2, 16, 128)):
        with pytest.raises(ValueError, match=r"keys and values \[1, 2, 32, 64\] that lie alike\."):
            native.write(random(1, 1, 64), random(1, 1, 64), torch.tensor([0]), k, v)
    paged, num_blocks = paged_of([9], 32)
    k = random(1, num_blocks, 32, 64)
    short = Paged(paged.positions, paged.slots[:0], paged.rows, paged.tables)
    with pytest.raises(ValueError, match=r"torch.int64 \[1\] without gaps\. Given: .*\[0\]"):
        native.attend(random(1, 1, 64), k, k, short, None, 1.0, random(1, 1, 64))
    with pytest.raises(ValueError, match=r"wants torch.bfloat16 .* Given: torch.float32"):
        native.attend(torch.randn(1, 1, 64), k, k, paged, None, 1.0, torch.randn(1, 1, 64))
    two = random(2, num_blocks, 32, 64)
    with pytest.raises(ValueError, match="no kernel attends with 5 heads"):
        native.attend(random(1, 5, 64), two, two, paged, None, 1.0, random(1, 5, 64))
    heads, none = Heads(1, 1, 64), (None, None)
    norms = (random(64), random(32))
    with pytest.raises(ValueError, match=r"\[64\] without gaps\. Given: .*\[32\]"):
        native.rope_write(random(1, 192), heads, norms, 1e-6, rope_table_of(64, 9), paged, k, k)
    with pytest.raises(ValueError, match="positions beyond the RoPE table"):
        native.rope_write(random(1, 192), heads, none, 1e-6, rope_table_of(64, 8), paged, k, k)


@pytest.mark.parametrize("value", [-1, 64])
@pytest.mark.parametrize("name", ["slots", "rows", "tables", "positions"])
def test_what_would_lead_outside_of_the_cache_is_refused_before_it_is_done(native, name, value):
    """A block of a row's table that no token of it needs may be anything."""
    k = random(1, 2, 32, 64)
    numbers = {"positions": 40, "slots": 40, "rows": 0}
    parts = {each: torch.tensor([number]) for each, number in numbers.items()}
    around = torch.zeros(200, 2, dtype=torch.int64)  # what lies about the table would do as well
    around[100, 1] = 1
    paged = Paged(**parts, tables=around[100:101])
    out, before, qkv = random(1, 1, 64), k.clone(), random(1, 192)
    rope_table, heads = rope_table_of(64, 128), Heads(1, 1, 64)

    def write():
        native.write(out.clone(), out.clone(), paged.slots, k, k)

    def rope_write():
        native.rope_write(qkv, heads, (None, None), 1e-6, rope_table, paged, k, k)

    def attend():
        native.attend(out.clone(), k, k, paged, None, 1.0, out)

    calls = {"slots": [write, rope_write], "positions": [attend]}.get(name, [attend])
    for call in calls:
        call()
    before = [each.clone() for each in (k, out, qkv)]
    getattr(paged, name).view(-1)[0] = value
    for call in calls:
        with pytest.raises(ValueError, match="positions are not within the cache"):
            call()
    assert all(map(torch.equal, before, (k, out, qkv)))
    spare = Paged(
        **{each: torch.tensor([20]) for each in ("positions", "slots")},
        rows=torch.tensor([0]),
        tables=torch.tensor([[0, -7]]),
    )
    native.attend(out.clone(), k, k, spare, None, 1.0, out)


def test_caches_and_adapters_that_do_not_fit_are_refused():
    native = native_kernels()
    k, heads = random(1, 1, 32, 32), Heads(1, 1, 32)
    qkv, square = native.pack(random(96, 32)), native.pack(random(32, 32))
    gate_up, norm = native.pack(random(64, 32)), random(32)
    layer = Layer(norm, qkv, None, None, None, 1.0, square, norm, gate_up, square)

    def join(rank, width):
        part = native.low_rank(random(rank, 32), random(width, rank + rank % 2), qkv)
        adapter = LayerAdapter(part, None, None, None)
        return native.decoder(heads, 1e-6, [layer], [k], [k], [[adapter]])

    apart = random(1, 2, 32, 32)[:, :1]
    with pytest.raises(ValueError, match="the caches of all layers to lie alike"):
        native.decoder(heads, 1e-6, [layer] * 2, [k, apart], [k, apart])
    for rank, width in ((4, 64), (3, 96)):
        with pytest.raises(ValueError, match=r"an adapter of a weight \[96, 32\] has other sizes"):
            join(rank, width)
    paged, _ = paged_of([9, 3], 32)
    for tokens in ([2], [-1, 0]):
        adapted = [AdapterTokens(0, torch.tensor(tokens))]
        with pytest.raises(ValueError, match="a kernel wants some of 2 tokens"):
            join(4, 96).add(random(2, 32), paged, rope_table_of(32, 9), adapted)


def test_a_mask_for_fewer_columns_is_refused(native):
    out = Logits(torch.zeros(1, 33), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"a mask of 33 bits\. Given: 32"):
        native.mask(torch.zeros(33), torch.zeros(1, dtype=torch.int32), out)


def test_what_no_attention_kernel_is_made_for_is_known(native):
    k = random(2, 4, 32, 64)
    assert native.can_attend(4, k, k)
    assert not native.can_attend(4, k[..., :40].contiguous(), k[..., :40].contiguous())
    assert not native.can_attend(4, k[:, :, :16].contiguous(), k[:, :, :16].contiguous())
    assert not native.can_attend(5, k, k)
    assert not native.can_attend(4, k, k[..., :32])
    assert not native.can_attend(4, k.float(), k.float())
