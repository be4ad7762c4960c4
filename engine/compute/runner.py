"""ModelRunner: keeps the rows; turns a Batch into tensors, a forward pass, and sampled tokens.

The rows live in kept arrays that each Batch's changes update, so describing a step costs little
however many rows there are. Runs on the model's thread; knows nothing of the event loop.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.batch import Batch, Join, RowOutput, RowWork, Sampled, StepOutput
from engine.compute.attention import Context
from engine.compute.kv_cache import KVCache
from engine.compute.model import Model
from engine.compute.sampler import Sampler, SamplerRow

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@dataclass(eq=False, slots=True)
class _Row:
    """One running sequence; its tokens and blocks lie in the kept arrays at `place`."""

    place: int
    num_tokens: int
    num_computed: int
    num_blocks: int
    num_prompt_tokens: int
    sampling: SamplerRow


class ModelRunner:
    """Computes steps on one model, one at a time."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        sampler: Sampler,
        max_rows: int,
        max_tokens: int,
        num_threads: int,
    ) -> None:
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._num_threads = num_threads
        self._thread_id: int | None = None
        self._rows: dict[int, _Row] = {}
        self._free_places = list(range(max_rows - 1, -1, -1))
        max_blocks = -(-max_tokens // cache.block_size)
        # zeros are not touched before they are written, so long rows cost nothing until they come
        self._tokens = np.zeros((max_rows, max_tokens + 1), dtype=np.int64)
        self._blocks = np.zeros((max_rows, max_blocks), dtype=np.int64)

    def execute(self, batch: Batch) -> StepOutput:
        """Run one forward pass over the batch's rows and sample; blocks until it is done."""
        self._set_threads()
        for sequence_id in batch.leave:
            self._free_places.append(self._rows.pop(sequence_id).place)
        for join in batch.join:
            self._join(join)
        with torch.inference_mode():
            return StepOutput(batch.step, self._compute(batch))

    def close(self) -> None:
        """Forget every row."""
        self._rows.clear()

    def _join(self, join: Join) -> None:
        place = self._free_places.pop()
        tokens = self._tokens[place]
        tokens[: len(join.token_ids)] = join.token_ids
        self._blocks[place, : len(join.blocks)] = join.blocks
        num_tokens = len(join.token_ids)
        self._rows[join.sequence_id] = _Row(
            place,
            num_tokens,
            join.num_computed_tokens,
            len(join.blocks),
            join.num_prompt_tokens,
            SamplerRow(join.params, tokens[:num_tokens], join.num_prompt_tokens),
        )

    def _compute(self, batch: Batch) -> tuple[RowOutput, ...]:
        self._clear_new_blocks(batch)
        if not batch.work:
            return ()
        work = sorted(batch.work, key=self._layout)
        rows = [self._rows[item.sequence_id] for item in work]
        logits, starts = self._forward(work, rows)
        sampled = self._sample(work, rows, logits, starts)
        outputs = {}
        for item, row, start in zip(work, rows, starts, strict=True):
            token = sampled.get(item.sequence_id)
            outputs[item.sequence_id] = self._output(item, row, token, logits, start)
        return tuple(outputs[item.sequence_id] for item in batch.work)

    def _layout(self, work: RowWork) -> tuple[bool, int]:
        """Order a step as attention wants it: decodes, longest first, then chunks."""
        return work.num_tokens > 1, -self._rows[work.sequence_id].num_computed

    def _clear_new_blocks(self, batch: Batch) -> None:
        """Append the blocks that rows were given, and zero them."""
        size = self._cache.block_size
        cleared = [
            b for join in batch.join for b in join.blocks[join.num_computed_tokens // size :]
        ]
        for work in batch.work:
            if work.new_blocks:
                row = self._rows[work.sequence_id]
                end = row.num_blocks + len(work.new_blocks)
                self._blocks[row.place, row.num_blocks : end] = work.new_blocks
                row.num_blocks = end
                cleared += work.new_blocks
        if cleared:
            self._cache.clear(torch.tensor(cleared, device=self._model.device))

    def _forward(self, work: Sequence[RowWork], rows: Sequence[_Row]) -> tuple[Tensor, list[int]]:
        """Run the model; return logits `[wanted, vocab]` and where each row's begin."""
        ids, positions, contexts, wanted, starts = [], [], [], [], []
        first = num_wanted = 0
        for item, row in zip(work, rows, strict=True):
            start, end = row.num_computed, row.num_computed + item.num_tokens
            ids.append(self._tokens[row.place, start:end])
            positions.append(np.arange(start, end))
            num_blocks = -(-end // self._cache.block_size)
            contexts.append(Context(self._blocks[row.place, :num_blocks], start, item.num_tokens))
            first += item.num_tokens
            wanted.append(np.arange(first - item.num_logits, first))
            starts.append(num_wanted)
            num_wanted += item.num_logits
        self._model.attention.plan(contexts)
        logits = self._model.forward(
            self._tensor(np.concatenate(ids)),
            self._tensor(np.concatenate(positions)),
            self._tensor(np.concatenate(wanted)),
        )
        return logits, starts

    def _sample(
        self, work: Sequence[RowWork], rows: Sequence[_Row], logits: Tensor, starts: Sequence[int]
    ) -> dict[int, Sampled | str]:
        """Sample the rows whose known tokens are all computed with this step."""
        chosen = [i for i, item in enumerate(work) if item.is_sampled]
        if not chosen:
            return {}
        last = [starts[i] + work[i].num_logits - 1 for i in chosen]
        if last != list(range(len(logits))):
            logits = logits[self._tensor(np.array(last))]
        for i in chosen:
            rows[i].sampling.token_ids = self._tokens[rows[i].place, : rows[i].num_tokens]
        results = self._sampler.sample(logits, [rows[i].sampling for i in chosen])
        return {work[i].sequence_id: result for i, result in zip(chosen, results, strict=True)}

    def _output(
        self, work: RowWork, row: _Row, token: Sampled | str | None, logits: Tensor, start: int
    ) -> RowOutput:
        """Move the row on and say what it gained."""
        first = row.num_computed
        row.num_computed += work.num_tokens
        prompt: tuple[float, ...] = ()
        if work.num_logits > 1 or (work.num_logits and not work.is_sampled):
            next_ids = self._tokens[row.place, first + 1 : row.num_prompt_tokens][: work.num_tokens]
            part = logits[start : start + len(next_ids)]
            prompt = tuple(self._sampler.prompt_logprobs(part, next_ids.tolist()))
        if isinstance(token, str):
            return RowOutput(work.sequence_id, error=token)
        if token is None:
            return RowOutput(work.sequence_id, prompt_logprobs=prompt)
        self._tokens[row.place, row.num_tokens] = token.token_id
        row.num_tokens += 1
        return RowOutput(work.sequence_id, (token,), prompt)

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._model.device)

    def _set_threads(self) -> None:
        """Give the computing thread its cores: torch keeps the number for each thread."""
        if self._thread_id != threading.get_ident():
            self._thread_id = threading.get_ident()
            torch.set_num_threads(self._num_threads)


def keep_freed_memory() -> None:
    """Tell glibc not to unmap large tensors when they are freed.

    Each would fault in all its pages again at the next step: 64 rows of 150,000 logits to float32
    take 8.4 ms so, 2.1 without. Elsewhere than glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
