"""Sampler: logits to token ids for a whole batch with mixed parameters; knows no model, no cache.

Rows are split by what they ask. Greedy rows never see a softmax; plain draws invert the CDF in two
levels; rows with a cut (top-k, top-p, typical-p, min-p) are decided on their best candidates, and
on more of them where the cut does not lie inside. What a row gets depends on its own logits,
parameters and tokens alone, never on its neighbours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.batch import Sampled
from engine.compute import cuts
from engine.compute.draws import Floats, Ints, invert, uniforms
from engine.compute.grammar import Constraint, Masks
from engine.compute.kernels.table import Kernels
from engine.compute.logits import Logits
from engine.compute.penalties import Penalties
from engine.compute.tiles import Reader, Softmax, TiledLogits
from engine.sampling_params import LogprobsMode, SamplingParams

SampleResult = Sampled | str
"""A token, or why this row cannot go on."""

NOT_FINITE = "the model's logits for this sequence are NaN, or none of them is a finite maximum"

_SIZES = (64, 512)
"""Candidates that rows with a cut are decided on, before their whole vocabulary."""
_CANDIDATES_AT_ONCE = 2**18
_MAX_TIES = 8
"""So many more top logprobs than asked for, where the last of those has equals."""


@dataclass(eq=False, slots=True)
class SamplerRow:
    """One row's tokens and how it chooses the next; the runner keeps it and appends."""

    params: SamplingParams
    tokens: NDArray[np.int64]
    """[at least num_tokens]: prompt and output so far, never empty, then room for more."""
    num_tokens: int
    num_prompt_tokens: int
    constraint: Constraint | None = None
    """Which tokens may come at all; filled before a token is sampled."""
    is_plain: bool = field(init=False)
    """Whether all it ever wants is the best token, once `min_new_tokens` are there."""

    def __post_init__(self) -> None:
        """Settle what stays as it is."""
        params = self.params
        is_changed = params.has_penalty or params.logit_bias or params.watermark
        self.is_plain = not (params.do_sample or params.num_top_logprobs or is_changed)
        if self.constraint is not None:
            self._let_end(self.constraint)

    @property
    def error(self) -> str | None:
        """Say why no token can be chosen for it, whatever the logits are."""
        return None if self.constraint is None else self.constraint.error

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """[num_tokens]: prompt and output so far."""
        return self.tokens[: self.num_tokens]

    @property
    def num_output_tokens(self) -> int:
        """Count what was generated so far."""
        return self.num_tokens - self.num_prompt_tokens

    def append(self, token_id: int) -> None:
        """Take the chosen token."""
        self.tokens[self.num_tokens] = token_id
        self.num_tokens += 1
        if self.constraint is not None:
            self.constraint.take(token_id)
            self._let_end(self.constraint)

    def _let_end(self, constraint: Constraint) -> None:
        """Let it end before `min_new_tokens` where nothing but an end may come."""
        if constraint.is_over and self.params.min_new_tokens:
            self.params = replace(self.params, min_new_tokens=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """One row of a step."""

    slot: int
    """Its place in the answer."""
    at: int
    """The row of logits it is chosen from: of the model's own, or of the penalised ones."""
    row: SamplerRow

    @property
    def params(self) -> SamplingParams:
        return self.row.params


class Sampler:
    """Chooses one token for each row."""

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        watermark_gamma: float,
        watermark_delta: float,
        device: torch.device,
        kernels: Kernels | None = None,
    ) -> None:
        """With kernels, rows that are plainly greedy are theirs, where the logits have tops."""
        self._kernels = kernels
        self._reader = Reader(vocab_size, device)
        self._penalties = Penalties(
            vocab_size, eos_token_ids, watermark_gamma, watermark_delta, device
        )
        self._penalised = torch.empty(0, vocab_size, device=device)
        self._masks = Masks(vocab_size, device, kernels)

    @torch.inference_mode()
    def sample(self, logits: Logits, rows: Sequence[SamplerRow]) -> list[SampleResult]:
        """Choose a token from each row of logits, which has this row's parameters.

        Columns beyond the vocabulary are never chosen. A row that holds a
        NaN or no finite maximum gets a sentence, its neighbours their tokens.
        """
        if not rows:
            return []
        plain = [
            slot
            for slot, row in enumerate(rows)
            if row.is_plain
            and row.constraint is None
            and row.num_output_tokens >= row.params.min_new_tokens
        ]
        chosen = self._choose_plainly(logits, plain, [rows[slot] for slot in plain])
        if len(chosen) < len(rows):
            others = [(slot, row) for slot, row in enumerate(rows) if slot not in chosen]
            chosen |= self._choose(logits, others)
        return [chosen.get(slot) or row.error or NOT_FINITE for slot, row in enumerate(rows)]

    @torch.inference_mode()
    def prompt_logprobs(self, logits: torch.Tensor, next_ids: Sequence[int]) -> list[float]:
        """Give the logprob of each row's next id under `logits` [rows, at least vocab] as they are.

        NaN where a row holds one, -inf for an id beyond the vocabulary. The softmax is taken a
        few rows at a time.
        """
        result: list[float] = []
        last = self._reader.vocab_size - 1
        ids = torch.as_tensor(next_ids, dtype=torch.int64, device=logits.device)[:, None]
        for piece in self._reader.read(logits, np.arange(len(logits))):
            torch.log_softmax(piece, -1, out=piece)
            part = ids[len(result) : len(result) + len(piece)]
            picked = piece.gather(1, part.clamp(max=last))
            result += picked.masked_fill(part > last, -torch.inf)[:, 0].tolist()
        return result

    def _choose_plainly(
        self, logits: Logits, places: Sequence[int], rows: Sequence[SamplerRow]
    ) -> dict[int, Sampled]:
        """Leave to the kernels rows that want no more than the best token; by place in logits.

        Who has no finite maximum is left out.
        """
        if self._kernels is None or logits.tops is None or not places:
            return {}
        is_shown = [row.params.logprobs is not None for row in rows]
        choices = self._kernels.greedy(logits, places, is_shown=any(is_shown))
        return {
            place: Sampled(token_id, logprob if shown else None)
            for place, (token_id, logprob), shown in zip(places, choices, is_shown, strict=True)
            if token_id >= 0
        }

    def _choose(self, logits: Logits, rows: Sequence[tuple[int, SamplerRow]]) -> dict[int, Sampled]:
        """Choose for each (slot, row); who has no finite maximum is left out."""
        raw = TiledLogits(logits, self._reader)
        peaks = raw.peaks.tolist()
        unchanged: list[_Ask] = []
        penalised: list[_Ask] = []
        constrained: list[_Ask] = []
        for slot, row in rows:
            if math.isfinite(peaks[slot]) and row.error is None:
                changed = penalised if self._is_penalised(row) else unchanged
                (changed if row.constraint is None else constrained).append(_Ask(slot, slot, row))
        chosen = _choose(raw, unchanged)
        if penalised:
            copies = Logits(self._penalise(logits.values, penalised))
            chosen |= self._choose_from(copies, penalised)
        if constrained:
            chosen |= self._choose_from(self._mask(logits.values, constrained), constrained)
        asks = unchanged + penalised + constrained
        shown = [ask for ask in asks if ask.slot in chosen]
        return {**chosen, **_raw_logprobs(raw, shown, chosen)}

    def _choose_from(self, copies: Logits, asks: Sequence[_Ask]) -> dict[int, Sampled]:
        """Choose from copies of the asks' rows, in their order, that were changed as they ask."""
        asks = [replace(ask, at=at) for at, ask in enumerate(asks)]
        plain = [ask.at for ask in asks if ask.row.is_plain]
        found = self._choose_plainly(copies, plain, [asks[at].row for at in plain])
        others = [ask for ask in asks if ask.at not in found]
        chosen = {asks[at].slot: sampled for at, sampled in found.items()}
        if others:
            chosen |= _choose(TiledLogits(copies, self._reader), others)
        return chosen

    def _mask(self, logits: torch.Tensor, asks: Sequence[_Ask]) -> Logits:
        """Copy rows of `logits`, penalised where they ask for it, without what may not come."""
        penalised = [ask for ask in asks if self._is_penalised(ask.row)]
        copies = self._penalise(logits, penalised)
        changed = {ask.slot: copy for ask, copy in zip(penalised, copies, strict=True)}
        rows = [changed.get(ask.slot, logits[ask.at]) for ask in asks]
        return self._masks.apply(rows, [c for ask in asks if (c := ask.row.constraint) is not None])

    def _is_penalised(self, row: SamplerRow) -> bool:
        return self._penalties.concern(row.params, row.num_output_tokens)

    def _penalise(self, logits: torch.Tensor, asks: Sequence[_Ask]) -> torch.Tensor:
        """Copy rows of `logits` to float32 and change them as they ask; [rows, vocab]."""
        vocab_size = self._reader.vocab_size
        if len(asks) > len(self._penalised):
            self._penalised = logits.new_empty(len(asks), vocab_size, dtype=torch.float32)
        penalised = self._penalised[: len(asks)]
        for target, ask in zip(penalised, asks, strict=True):
            target.copy_(logits[ask.at, :vocab_size])
            row = ask.row
            self._penalties.apply(target, row.params, row.token_ids, row.num_prompt_tokens)
        return penalised


def _choose(logits: TiledLogits, asks: Sequence[_Ask]) -> dict[int, Sampled]:
    """Split the rows by what they ask and choose for each group in one pass; token by slot."""
    peaks = logits.peaks.tolist()
    groups: dict[_Method, list[_Ask]] = {}
    for ask in asks:
        if math.isfinite(peaks[ask.at]):
            groups.setdefault(_method(ask.params), []).append(ask)
    return {
        ask.slot: sampled
        for method, group in groups.items()
        for ask, sampled in zip(group, method(logits, group), strict=True)
    }


_Method = Callable[[TiledLogits, Sequence[_Ask]], list[Sampled]]


def _method(params: SamplingParams) -> _Method:
    if params.do_sample and cuts.is_cut(params):
        return _draw_cut
    if params.logprobs is LogprobsMode.WARPED:
        return _draw_shown if params.do_sample else _greedy_shown
    return _draw if params.do_sample else _greedy


def _greedy(logits: TiledLogits, asks: Sequence[_Ask]) -> list[Sampled]:
    return [Sampled(token_id) for token_id in logits.argmax(_rows(asks)).tolist()]


def _greedy_shown(logits: TiledLogits, asks: Sequence[_Ask]) -> list[Sampled]:
    return _report(_as_it_is(logits, asks), asks, logits.argmax(_rows(asks)))


def _draw(logits: TiledLogits, asks: Sequence[_Ask]) -> list[Sampled]:
    ids = _at_temperature(logits, asks).draw(_numbers(asks))
    return [Sampled(token_id) for token_id in ids.tolist()]


def _draw_shown(logits: TiledLogits, asks: Sequence[_Ask]) -> list[Sampled]:
    softmax = _at_temperature(logits, asks)
    return _report(softmax, asks, softmax.draw(_numbers(asks)))


def _draw_cut(logits: TiledLogits, asks: Sequence[_Ask]) -> list[Sampled]:
    """Draw from what the cuts leave, on as few candidates as will do."""
    full_mass = _full_mass(logits, asks)
    sampled: dict[int, Sampled] = {}
    for size in (*(size for size in _SIZES if size < logits.vocab_size), logits.vocab_size):
        pending = [i for i in range(len(asks)) if i not in sampled]
        step = max(1, _CANDIDATES_AT_ONCE // size)
        for start in range(0, len(pending), step):
            part = pending[start : start + step]
            drawn = _draw_from_best(logits, [asks[i] for i in part], full_mass[part], size)
            sampled |= {part[j]: one for j, one in drawn.items()}
    return [sampled[i] for i in range(len(asks))]


def _full_mass(logits: TiledLogits, asks: Sequence[_Ask]) -> Floats:
    """Sum each row's vocabulary as `Cuts.full_mass` says; only for top-p without top-k."""
    result = np.ones(len(asks))
    needy = [i for i, ask in enumerate(asks) if ask.params.top_p and not ask.params.top_k]
    if needy:
        result[needy] = 1.0 / _at_temperature(logits, [asks[i] for i in needy]).best_probs
    return result


def _draw_from_best(
    logits: TiledLogits, asks: Sequence[_Ask], full_mass: Floats, size: int
) -> dict[int, Sampled]:
    """Draw for those rows whose cut lies inside their `size` best candidates; by index."""
    values, ids = logits.best(_rows(asks), size)
    bounds = cuts.Cuts.of([ask.params for ask in asks], full_mass)
    left = cuts.apply(bounds, values, is_whole=size == logits.vocab_size)
    picks, _ = invert(left.weights, _numbers(asks))
    return {
        i: _from_candidates(asks[i].params, ids[i], left.logs[i], left.weights[i], int(picks[i]))
        for i in np.flatnonzero(left.is_settled).tolist()
    }


def _from_candidates(
    params: SamplingParams, ids: Ints, logs: Floats, weights: Floats, pick: int
) -> Sampled:
    if params.logprobs is not LogprobsMode.WARPED:
        return Sampled(int(ids[pick]))
    # A running sum, to which candidates that were cut add nothing, not even another rounding.
    logprobs = logs - np.log(weights.cumsum()[-1])
    is_left = np.isfinite(logprobs)
    top = _top(ids[is_left], logprobs[is_left], params.num_top_logprobs)
    return Sampled(int(ids[pick]), float(logprobs[pick]), top)


def _raw_logprobs(
    logits: TiledLogits, asks: Sequence[_Ask], chosen: dict[int, Sampled]
) -> dict[int, Sampled]:
    """Give the chosen tokens of rows that ask for it the model's own logprobs."""
    asks = [ask for ask in asks if ask.params.logprobs is LogprobsMode.RAW]
    if not asks:
        return {}
    ids = np.array([chosen[ask.slot].token_id for ask in asks])
    shown = _report(_as_it_is(logits, asks), asks, ids)
    return {ask.slot: sampled for ask, sampled in zip(asks, shown, strict=True)}


def _report(softmax: Softmax, asks: Sequence[_Ask], ids: Ints) -> list[Sampled]:
    """Give `ids` their logprobs under `softmax`, and what stood beside them where asked."""
    own = softmax.logprobs(ids[:, None])[:, 0].tolist()
    counts = [ask.params.num_top_logprobs for ask in asks]
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(asks)
    if any(counts):
        best = softmax.best(max(counts) + _MAX_TIES)
        tops = [_top(*row) for row in zip(*best, counts, strict=True)]
    return [Sampled(*fields) for fields in zip(ids.tolist(), own, tops, strict=True)]


def _top(ids: Ints, logprobs: Floats, count: int) -> tuple[tuple[int, float], ...]:
    """List one row's `count` best and the equals of the last of them; both arrays best first.

    At most _MAX_TIES equals; none that the distribution excludes.
    """
    if not count:
        return ()
    last = max(logprobs[:count][-1], np.finfo(np.float64).min)
    num_listed = int((logprobs[: count + _MAX_TIES] >= last).sum())
    return tuple(zip(ids[:num_listed].tolist(), logprobs[:num_listed].tolist(), strict=True))


def _as_it_is(logits: TiledLogits, asks: Sequence[_Ask]) -> Softmax:
    return logits.softmax(_rows(asks), np.ones(len(asks)))


def _at_temperature(logits: TiledLogits, asks: Sequence[_Ask]) -> Softmax:
    return logits.softmax(_rows(asks), cuts.temperatures([ask.params for ask in asks]))


def _rows(asks: Sequence[_Ask]) -> Ints:
    return np.array([ask.at for ask in asks], dtype=np.int64)


def _numbers(asks: Sequence[_Ask]) -> Floats:
    return uniforms([ask.params.seed for ask in asks], [ask.row.num_tokens for ask in asks])
