"""TiledLogits: rows of logits read in tiles of 64; knows temperatures but no other parameter.

A vocabulary is read once or twice, in pieces that stay in the cache; what is decided afterwards
is decided on tile maxima and tile masses, a 64th of the size, in numpy on the host: its sorts
and partitions of integers are several times faster than torch's on a CPU, and wait for no thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.compute.draws import Floats, Ints, invert
from engine.compute.logits import PANEL, Logits

TILE = 64
_PIECE = 2**21
"""Floats converted at a time: 8 MiB, which mostly stay in the cache from pass to pass, and few
enough pieces that the threads seldom wait for each other."""
_ID_BITS = 32
_ID_MASK = 2**_ID_BITS - 1

Values = NDArray[np.float32]


class Reader:
    """Keeps the buffer through which logits of one vocabulary are read as float32."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size = vocab_size
        self.num_tiles = -(-vocab_size // TILE)
        width = self.num_tiles * TILE
        self._buffer = torch.empty(max(1, _PIECE // width), width, device=device)

    def read(self, logits: torch.Tensor, rows: Ints) -> Iterator[torch.Tensor]:
        """Yield the rows in order as float32 pieces [some rows, tiles * 64].

        A piece is good until the next, and the caller may write into it. Columns beyond the
        vocabulary read as -inf.
        """
        for start in range(0, len(rows), len(self._buffer)):
            part = rows[start : start + len(self._buffer)]
            piece = self._buffer[: len(part)]
            piece[:, : self.vocab_size].copy_(_select(logits, part)[:, : self.vocab_size])
            piece[:, self.vocab_size :] = -torch.inf
            yield piece

    def maxima(self, logits: Logits) -> Values:
        """Find the largest of each tile, [rows, tiles]; NaN where one is NaN."""
        if logits.tops is None:
            tiles = [_tiles(piece).amax(-1).cpu() for piece in self._look(logits.values)]
            return _to_numpy(torch.cat(tiles))
        tops = logits.tops.numpy()
        missing = self.num_tiles * TILE // PANEL - tops.shape[1]
        tops = np.pad(tops, ((0, 0), (0, missing)), constant_values=-np.inf)
        result: Values = tops.reshape(len(tops), self.num_tiles, -1).max(axis=2)
        return result

    def _look(self, logits: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield all rows as `read` does, but without a copy where they are so already."""
        is_so = logits.dtype is torch.float32 and logits.shape[1] == self.num_tiles * TILE
        if is_so and logits.shape[1] == self.vocab_size and logits.is_contiguous():
            yield logits
        else:
            yield from self.read(logits, np.arange(len(logits)))


class TiledLogits:
    """Some rows of logits, and their tile maxima."""

    def __init__(self, logits: Logits, reader: Reader) -> None:
        self._logits = logits.values
        self._reader = reader
        self.vocab_size = reader.vocab_size
        self._maxima = reader.maxima(logits)
        self.peaks: Values = self._maxima.max(axis=1)
        """[rows]: the largest logit; NaN where a row has a NaN."""

    def values(self, rows: Ints, ids: Ints) -> Values:
        """Read the logits of `ids` [rows, any]."""
        values = self._logits[self._index(rows)[:, None], self._index(ids)]
        return _to_numpy(values)

    def in_tiles(self, rows: Ints, tiles: Ints) -> tuple[Values, Ints]:
        """Read all of `tiles` [rows, any]: values and ids [rows, any * 64].

        An id beyond the vocabulary has the value -inf.
        """
        ids = (tiles[:, :, None] * TILE + np.arange(TILE)).reshape(len(tiles), -1)
        tiles_per_row, rest = divmod(self._logits.shape[1], TILE)
        if rest:
            values = self.values(rows, np.minimum(ids, self.vocab_size - 1))
        else:  # whole tiles are copied 25 to 80 times as fast as single values
            index = self._index((rows[:, None] * tiles_per_row + tiles).reshape(-1))
            picked = self._logits.reshape(-1, TILE).index_select(0, index)
            values = _to_numpy(picked).reshape(len(rows), -1)
        if self.vocab_size % TILE:
            values[ids >= self.vocab_size] = -np.inf
        return values, ids

    def argmax(self, rows: Ints) -> Ints:
        """Give each row's best id, the lowest among equals."""
        values, ids = self.in_tiles(rows, self._maxima[rows].argmax(axis=1)[:, None])
        return _pick(ids, values.argmax(axis=1))

    def best(self, rows: Ints, k: int) -> tuple[Values, Ints]:
        """Give the k best of each row, best first and equals by lower id: values and ids [rows, k].

        Exact: each of the k best tiles (by maximum, equals by lower number) holds an entry
        that is better than all of any other tile, so the k best entries lie in these.
        """
        if k * TILE < self.vocab_size:
            _, tiles = _first(_rank(self._maxima[rows], np.arange(self._reader.num_tiles)), k)
            return _first(_rank(*self.in_tiles(rows, tiles)), k)
        values = _to_numpy(_select(self._logits, rows)[:, : self.vocab_size])
        return _first(_rank(values, np.arange(self.vocab_size)), k)

    def softmax(self, rows: Ints, temperatures: Floats) -> "Softmax":
        """Take the softmax of the rows at their temperatures, kept as sums over tiles."""
        device = self._logits.device
        peaks = torch.from_numpy(self.peaks[rows]).to(device)[:, None]
        scales = torch.from_numpy(temperatures.astype(np.float32)).to(device)[:, None]
        best, masses, start = [], [], 0
        for piece in self._reader.read(self._logits, rows):
            end = start + len(piece)
            # Shifted first, so that what is near the peak keeps its digits.
            piece.sub_(peaks[start:end]).div_(scales[start:end])
            torch.softmax(piece, -1, out=piece)  # row by row: the same bits in any batch
            best.append(piece.amax(-1).cpu())
            masses.append(_tiles(piece).sum(-1).cpu())
            start = end
        best_probs, tile_masses = torch.cat(best).double(), torch.cat(masses).double()
        return Softmax(self, rows, temperatures, best_probs.numpy(), tile_masses.numpy())

    def _index(self, numbers: Ints) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self._logits.device)


@dataclass(frozen=True, slots=True, eq=False)
class Softmax:
    """The distribution of some rows over the whole vocabulary, at their temperatures."""

    logits: TiledLogits
    rows: Ints
    """[rows]: which rows of `logits`."""
    temperatures: Floats
    best_probs: Floats
    """[rows]: largest probability; with the largest logit it fixes all the others."""
    masses: Floats
    """[rows, tiles]: probability of each tile, but for a common factor near 1."""

    def draw(self, numbers: Floats) -> Ints:
        """Draw an id of each row by its number in [0, 1): inverse CDF in the vocabulary's order."""
        tiles, inside = invert(self.masses, numbers)
        values, ids = self.logits.in_tiles(self.rows, tiles[:, None])
        picks, _ = invert(np.exp(self._normalise(values)), inside)
        return _pick(ids, picks)

    def logprobs(self, ids: Ints) -> Floats:
        """Give the logprobs of `ids` [rows, any]."""
        return self._normalise(self.logits.values(self.rows, ids))

    def best(self, k: int) -> tuple[Ints, Floats]:
        """Give the k best of each row, best first: ids and logprobs [rows, k]."""
        values, ids = self.logits.best(self.rows, k)
        return ids, self._normalise(values)

    def _normalise(self, values: Values) -> Floats:
        shifted = values - self.logits.peaks[self.rows].astype(np.float64)[:, None]
        return shifted / self.temperatures[:, None] + np.log(self.best_probs)[:, None]


def _select(logits: torch.Tensor, rows: Ints) -> torch.Tensor:
    """Take rows, without a copy where they follow one another."""
    if (np.diff(rows) == 1).all():
        return logits[int(rows[0]) : int(rows[0]) + len(rows)]
    return logits.index_select(0, torch.from_numpy(rows).to(logits.device))


def _tiles(piece: torch.Tensor) -> torch.Tensor:
    return piece.view(len(piece), -1, TILE)


def _pick(ids: Ints, positions: Ints) -> Ints:
    return np.take_along_axis(ids, positions[:, None], axis=1)[:, 0]


def _to_numpy(values: torch.Tensor) -> Values:
    result: Values = values.float().cpu().numpy()
    return result


def _rank(values: Values, ids: Ints) -> Ints:
    """Make one integer of value and id that sorts as "larger value first, then lower id"."""
    bits = (values + np.float32(0.0)).view(np.int32)  # + 0.0: -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return ids - (ordered.astype(np.int64) << _ID_BITS)


def _first(ranks: Ints, k: int) -> tuple[Values, Ints]:
    """Give the values and ids of each row's k first ranks, in order."""
    if k < ranks.shape[1]:
        ranks = np.partition(ranks, k - 1, axis=1)[:, :k]
    ranks = np.sort(ranks, axis=1)
    ordered = (-(ranks >> _ID_BITS)).astype(np.int32)
    bits = ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))
    return bits.view(np.float32), ranks & _ID_MASK
