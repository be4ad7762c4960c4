import numpy as np
import pytest
import torch

from engine.compute.logits import Logits
from engine.compute.tiles import Reader, TiledLogits

CPU = torch.device("cpu")
BIG = 151_936


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width_beyond", [0, 1, 24])
@pytest.mark.parametrize("vocab_size", [70, 640, 1000, 5000])
def test_two_level_best_is_a_full_stable_sort(vocab_size, width_beyond, dtype):
    for seed, step in enumerate((1e-9, 0.5, 2.0)):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(4, vocab_size + width_beyond, generator=generator) * 3
        logits = ((logits / step).round() * step).to(dtype)
        logits[:, vocab_size:] = 99.0
        logits[1, : vocab_size // 2] = -torch.inf
        logits[2] = 1.0
        tiled = TiledLogits(Logits(logits), Reader(vocab_size, CPU))
        full = logits[:, :vocab_size].float().sort(descending=True, stable=True)
        for k in (1, 3, 64, 69):
            values, ids = tiled.best(np.array([0, 2, 3]), k)
            assert np.array_equal(ids, full.indices[[0, 2, 3], :k].numpy())
            assert np.array_equal(values, full.values[[0, 2, 3], :k].numpy())
            _, ids = tiled.best(np.array([1]), k)
            assert np.array_equal(ids, full.indices[1:2, :k].numpy())


@pytest.mark.parametrize("vocab_size", [1, 4096, BIG, 300_000])
def test_logits_are_read_at_most_eight_mebibytes_at_a_time(vocab_size):
    logits = torch.zeros(1, vocab_size, dtype=torch.bfloat16).expand(
        4096 if vocab_size < BIG else 9, -1
    )
    pieces = Reader(vocab_size, CPU).read(logits, np.arange(len(logits)))
    sizes = [(len(piece), piece.numel()) for piece in pieces]
    assert sum(num_rows for num_rows, _ in sizes) == len(logits)
    assert max(numel for _, numel in sizes) * 4 <= 2**23
