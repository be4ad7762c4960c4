"""ModelRunner: keeps the rows; turns a Batch into tensors, a forward pass, and sampled tokens.

The rows live in kept arrays that each Batch's changes update, so describing a step costs little
however many rows there are. Runs on the model's thread; knows nothing of the event loop.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.batch import Batch, Join, RowOutput, RowWork, Sampled, StepOutput
from engine.compute.grammar import Constraint
from engine.compute.kernels.table import AdapterTokens
from engine.compute.kv_cache import KVCache
from engine.compute.logits import Logits
from engine.compute.model import Model
from engine.compute.plan import Context
from engine.compute.sampler import Sampler, SampleResult, SamplerRow
from engine.matchers import Matchers


@dataclass(eq=False, slots=True)
class _Row:
    """One running sequence; its tokens, blocks and counts lie in the kept arrays at `place`."""

    place: int
    num_blocks: int
    sampling: SamplerRow


@dataclass(frozen=True, slots=True)
class _Laid:
    """A step's work in the order of its tensors: decodes, longest row first, then chunks."""

    work: list[RowWork]
    rows: list[_Row]
    places: NDArray[np.int64]
    """`[rows]`, in the kept arrays."""
    num_tokens: NDArray[np.int64]
    """`[rows]`, of this step."""
    ends: NDArray[np.int64]
    """`[rows]`: where each row's logits end."""
    guessed: list[int]
    """Which rows have drafts."""


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
        matchers: Matchers | None = None,
    ) -> None:
        """Without matchers, rows with a grammar end with an error."""
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._num_threads = num_threads
        self._thread_id: int | None = None
        self._matchers = matchers
        self._masking = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._constraints: dict[int, Constraint] = {}
        """Of the rows that have a grammar."""
        self._adapters = {name: number for number, name in enumerate(model.adapters)}
        self._adapted: dict[int, int] = {}
        """The numbers of adapters, of the rows that have one."""
        self._rows: dict[int, _Row] = {}
        self._free_places = list(range(max_rows - 1, -1, -1))
        max_blocks = -(-max_tokens // cache.block_size)
        # zeros are not touched before they are written, so long rows cost nothing until they come
        self._tokens = np.zeros((max_rows, max_tokens + 1), dtype=np.int64)
        self._blocks = np.zeros((max_rows, max_blocks), dtype=np.int64)
        self._num_computed = np.zeros(max_rows, dtype=np.int64)

    def execute(self, batch: Batch) -> StepOutput:
        """Run one forward pass over the batch's rows and sample; blocks until it is done."""
        self._set_threads()
        for sequence_id in batch.leave:
            if (row := self._rows.pop(sequence_id, None)) is not None:  # its join may have failed
                self._free_places.append(row.place)
            self._constraints.pop(sequence_id, None)
            self._adapted.pop(sequence_id, None)
        for join in batch.join:
            self._join(join)
        with torch.inference_mode():
            return StepOutput(batch.step, self._compute(batch))

    def close(self) -> None:
        """Forget every row."""
        self._rows.clear()
        self._masking.shutdown()

    def _join(self, join: Join) -> None:
        place = self._free_places[-1]  # taken when nothing can fail any more
        tokens = self._tokens[place]
        tokens[: len(join.token_ids)] = join.token_ids
        self._blocks[place, : len(join.blocks)] = join.blocks
        self._num_computed[place] = join.num_computed_tokens
        if join.params.adapter is not None:
            self._adapted[join.sequence_id] = self._adapters[join.params.adapter]
        num_tokens, num_prompt = len(join.token_ids), join.num_prompt_tokens
        constraint = None
        if join.params.grammar is not None:
            output_ids = join.token_ids[num_prompt:]
            constraint = Constraint(self._matchers, join.params.grammar, output_ids)
            self._constraints[join.sequence_id] = constraint
        sampling = SamplerRow(join.params, tokens, num_tokens, num_prompt, constraint)
        self._rows[join.sequence_id] = _Row(place, len(join.blocks), sampling)
        self._free_places.pop()

    def _compute(self, batch: Batch) -> tuple[RowOutput, ...]:
        self._clear_new_blocks(batch)
        if not batch.work:
            return ()
        masks = self._fill_masks()
        logits, laid = self._forward(batch)
        if masks is not None:
            masks.result()
        sampled = self._sample(laid, logits)
        prompts = self._prompt_logprobs(laid, logits)
        self._num_computed[laid.places] += laid.num_tokens
        for at in laid.guessed:  # what was guessed wrong is not computed
            row = laid.rows[at]
            self._num_computed[row.place] = row.sampling.num_tokens - 1
        return tuple(
            _output(work.sequence_id, sampled.get(work.sequence_id), prompts) for work in batch.work
        )

    def _fill_masks(self) -> Future[None] | None:
        """Begin to work out which tokens may come, beside the forward pass; the last has ended."""
        if not self._constraints:
            return None
        return self._masking.submit(_fill_all, list(self._constraints.values()))

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
        self._cache.clear(cleared)

    def _forward(self, batch: Batch) -> tuple[Logits, _Laid]:
        """Run the model over all rows' tokens; return the wanted rows' logits and the layout."""
        decodes = [work for work in batch.work if work.num_tokens == 1]
        chunks = [work for work in batch.work if work.num_tokens > 1]
        rows = [self._rows[work.sequence_id] for work in decodes]
        places = np.array([row.place for row in rows], dtype=np.int64)
        order = np.argsort(-self._num_computed[places], kind="stable")
        places = places[order]
        work = [decodes[i] for i in order.tolist()] + chunks
        rows = [rows[i] for i in order.tolist()] + [self._rows[w.sequence_id] for w in chunks]

        at = self._num_computed[places]
        ids, positions = [self._tokens[places, at]], [at]
        contexts = []
        for item, row in zip(chunks, rows[len(decodes) :], strict=True):
            start = int(self._num_computed[row.place])
            end = start + item.num_tokens
            if item.drafts:
                self._tokens[row.place, start + 1 : end] = item.drafts
            ids.append(self._tokens[row.place, start:end])
            positions.append(np.arange(start, end))
            num_blocks = -(-end // self._cache.block_size)
            contexts.append(Context(self._blocks[row.place, :num_blocks], start, item.num_tokens))
        num_blocks = int(at[0]) // self._cache.block_size + 1 if len(at) else 0
        self._model.attention.plan(self._blocks[places, :num_blocks], at, contexts)

        num_tokens = np.array([item.num_tokens for item in work], dtype=np.int64)
        num_logits = np.array([item.num_logits for item in work], dtype=np.int64)
        logits_ends = num_logits.cumsum()
        logits = self._model.forward(
            self._tensor(np.concatenate(ids)),
            self._tensor(np.concatenate(positions)),
            self._tensor(_last_ones(num_tokens.cumsum(), num_logits, logits_ends)),
            self._adapter_tokens(work, num_tokens),
        )
        places = np.array([row.place for row in rows], dtype=np.int64)
        guessed = [at for at, item in enumerate(chunks, start=len(decodes)) if item.drafts]
        return logits, _Laid(work, rows, places, num_tokens, logits_ends, guessed)

    def _adapter_tokens(
        self, work: list[RowWork], num_tokens: NDArray[np.int64]
    ) -> list[AdapterTokens]:
        """Say which of the laid tokens have an adapter."""
        tokens: dict[int, list[NDArray[np.int64]]] = {}
        if self._adapted:
            for item, end in zip(work, num_tokens.cumsum().tolist(), strict=True):
                if (number := self._adapted.get(item.sequence_id)) is not None:
                    own = np.arange(end - item.num_tokens, end)
                    tokens.setdefault(number, []).append(own)
        return [
            AdapterTokens(number, self._tensor(np.concatenate(parts)))
            for number, parts in tokens.items()
        ]

    def _sample(self, laid: _Laid, logits: Logits) -> dict[int, tuple[Sampled, ...] | str]:
        """Sample the rows whose known tokens are all computed with this step; move them on."""
        chosen = [i for i, item in enumerate(laid.work) if item.is_sampled]
        if not chosen:
            return {}
        if laid.guessed:
            return self._verify(laid, chosen, logits)
        rows = [laid.rows[i].sampling for i in chosen]
        logits = self._pick(logits, laid.ends[chosen] - 1)
        sampled: dict[int, tuple[Sampled, ...] | str] = {}
        for i, row, result in zip(chosen, rows, self._sampler.sample(logits, rows), strict=True):
            if isinstance(result, str):
                sampled[laid.work[i].sequence_id] = result
            else:
                sampled[laid.work[i].sequence_id] = (result,)
                row.append(result.token_id)
        return sampled

    def _verify(
        self, laid: _Laid, chosen: list[int], logits: Logits
    ) -> dict[int, tuple[Sampled, ...] | str]:
        """Sample what follows each draft as if it were right; keep it for as long as they were.

        A token is chosen by its logits, its row's parameters and the tokens before it alone, so a
        row gets what it would get step by step.
        """
        drafts = [laid.work[i].drafts for i in chosen]
        counts = np.array([1 + len(guess) for guess in drafts])
        rows: list[SamplerRow] = []
        for i, guess in zip(chosen, drafts, strict=True):
            own = laid.rows[i].sampling
            rows += (own, *own.after_drafts(len(guess)))
        at = _last_ones(laid.ends[chosen], counts, counts.cumsum())
        results = iter(self._sampler.sample(self._pick(logits, at), rows))
        return {
            laid.work[i].sequence_id: _accept(
                laid.rows[i].sampling, guess, list(islice(results, 1 + len(guess)))
            )
            for i, guess in zip(chosen, drafts, strict=True)
        }

    def _pick(self, logits: Logits, at: NDArray[np.int64]) -> Logits:
        """Take the rows at these ascending places."""
        return logits if len(at) == len(logits) else logits.pick(self._tensor(at))

    def _prompt_logprobs(self, laid: _Laid, logits: Logits) -> dict[int, tuple[float, ...]]:
        """Give those of this step's tokens, for the rows that want them."""
        prompts = {}
        for at, work in enumerate(laid.work):
            is_prompt = work.num_logits > 1 and not work.drafts
            if is_prompt or (work.num_logits and not work.is_sampled):
                row, end = laid.rows[at], int(laid.ends[at])
                first, own = int(self._num_computed[row.place]), row.sampling
                next_ids = own.tokens[first + 1 : own.num_prompt_tokens][: work.num_tokens]
                part = logits.values[end - work.num_logits :][: len(next_ids)]
                logprobs = self._sampler.prompt_logprobs(part, next_ids.tolist())
                prompts[work.sequence_id] = tuple(logprobs)
        return prompts

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._model.device)

    def _set_threads(self) -> None:
        """Give the computing thread its cores: torch keeps the number for each thread."""
        if self._thread_id != threading.get_ident():
            self._thread_id = threading.get_ident()
            torch.set_num_threads(self._num_threads)


def _fill_all(constraints: list[Constraint]) -> None:
    for constraint in constraints:
        constraint.fill()


def _last_ones(
    ends: NDArray[np.int64], counts: NDArray[np.int64], sums: NDArray[np.int64]
) -> NDArray[np.int64]:
    """List for each row its `counts` last tokens before `ends`; `sums` adds the counts up."""
    return np.repeat(ends - sums, counts) + np.arange(sums[-1])


def _accept(
    row: SamplerRow, drafts: tuple[int, ...], results: list[SampleResult]
) -> tuple[Sampled, ...] | str:
    """Append what was sampled up to the first token that is not the draft, that one included.

    A failure behind tokens that were right is left to the next step, which meets it first.
    """
    accepted: list[Sampled] = []
    for result, draft in zip(results, (*drafts, None), strict=True):
        if isinstance(result, str):
            return tuple(accepted) or result
        accepted.append(result)
        row.append(result.token_id)
        if result.token_id != draft:
            break
    return tuple(accepted)


def _output(
    sequence_id: int,
    sampled: tuple[Sampled, ...] | str | None,
    prompts: dict[int, tuple[float, ...]],
) -> RowOutput:
    """Say what a row gained; where sampling failed, only why."""
    if isinstance(sampled, str):
        return RowOutput(sequence_id, error=sampled)
    prompt = prompts.get(sequence_id, ()) if prompts else ()
    return RowOutput(sequence_id, sampled or (), prompt)
