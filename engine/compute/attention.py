"""PagedAttention: attention over the paged cache, for transformers' attention interface.

A step's tokens arrive as one ragged row `[1, heads, tokens, dim]`, as a Plan says.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from engine.compute.kernels.table import Kernels, Paged
from engine.compute.kv_cache import Gather, KVCache, LayerShape
from engine.compute.plan import (
    Chunk,
    Context,
    Group,
    Plan,
    Step,
    plan_for_kernels,
    plan_for_torch,
)

_IGNORED = {
    "dropout",
    "is_causal",
    "position_ids",
    "cache_position",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
}
"""Arguments of attention functions that mean nothing here."""


class Extras(NamedTuple):
    """How a layer attends, and what its family adds to plain attention."""

    num_heads: int
    scale: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None

    @property
    def is_plain(self) -> bool:
        """Tell whether the library's fused attention computes it."""
        return self.softcap is None and self.sinks is None

    def is_causal_enough(self, length: int) -> bool:
        """Tell whether a whole prompt of this length needs no mask of its own."""
        return self.is_plain and (self.window is None or self.window >= length)


class PagedAttention:
    """The attention function of one model; `plan` is set before each step."""

    def __init__(self, device: torch.device, kernels: Kernels | None = None) -> None:
        self._device = device
        self._kernels = kernels
        self._cache: KVCache | None = None
        self._plan: Plan | None = None
        self.has_kernel = False
        """Whether the kernels attend every layer of the attached cache."""
        self.shapes: dict[int, LayerShape] = {}
        """Seen while no cache is attached: what each layer wants to keep."""
        self.extras: dict[int, Extras] = {}
        """Seen likewise: how each layer attends."""
        self.num_calls = 0
        self.unknown_arguments: set[str] = set()

    def attach(self, cache: KVCache) -> None:
        """Read and write this cache from now on."""
        self._cache = cache
        self.has_kernel = self._kernels is not None and all(
            extras.is_plain
            and self._kernels.can_attend(extras.num_heads, cache.k[layer], cache.v[layer])
            for layer, extras in self.extras.items()
        )

    def detach(self) -> None:
        """Note again what the layers ask for."""
        self._cache = None

    @property
    def has_window(self) -> bool:
        """Tell whether a layer has asked for a sliding window."""
        return any(extras.window is not None for extras in self.extras.values())

    def plan(
        self, tables: NDArray[np.int64], positions: NDArray[np.int64], chunks: Sequence[Context]
    ) -> None:
        """Lay out a step: decodes first, then chunks.

        `tables [rows, blocks]` are the decodes' block tables and `positions [rows]` their tokens',
        the longest row first; what a table holds behind its row's last block does not matter.
        """
        make = plan_for_kernels if self.has_kernel else plan_for_torch
        step = Step(tables, positions, chunks, self.cache.block_size)
        self._plan = make(step, self._device)

    @property
    def cache(self) -> KVCache:
        """The attached cache."""
        assert self._cache is not None, "This is a bug. No cache is attached."
        return self._cache

    @property
    def paged(self) -> Paged:
        """What each token of the planned step sees; only where `has_kernel`."""
        assert self._plan is not None, "This is a bug. The step is not planned."
        assert self._plan.paged is not None, "This is a bug. No kernel attends."
        return self._plan.paged

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """Attend as transformers asks: `[1, heads, tokens, dim]` in, `[1, tokens, heads, dim]` out.

        `s_aux` are attention sinks, one logit a head.
        """
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        extras = Extras(query.shape[1], scale, sliding_window, softcap, s_aux)
        if self._cache is None:
            return self._observe(module, query, key, value, extras, others), None
        self._write(module.layer_idx, key[0], value[0])
        fresh = (query[0], key[0], value[0])
        return self._attend_cached(module.layer_idx, fresh, extras)[None], None

    # -- load

    def _observe(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        extras: Extras,
        others: dict[str, Any],
    ) -> Tensor:
        """Note what this layer asks for; answer as for one sequence alone."""
        self.num_calls += 1
        self.shapes[module.layer_idx] = LayerShape(key.shape[1], key.shape[-1], value.shape[-1])
        self.extras[module.layer_idx] = extras
        self.unknown_arguments |= {
            name for name, given in others.items() if given is not None and name not in _IGNORED
        }
        num_tokens = query.shape[2]
        positions = torch.arange(num_tokens, device=query.device)
        mask = _mask(positions, num_tokens, extras.window, query.dtype)
        q = query[0].unflatten(0, (key.shape[1], -1))
        out = _attend(q, key[0][:, None], value[0][:, None], mask, extras, head_axis=1)
        return out.flatten(0, 1).transpose(0, 1)[None]

    # -- a step

    def _write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep the step's keys and values, where whoever attends to them will look."""
        assert self._plan is not None, "This is a bug. The step is not planned."
        cache, slots = self.cache, self._plan.slots
        if self._plan.paged is not None and self._kernels is not None:
            self._kernels.write(key, value, slots, cache.k[layer], cache.v[layer])
        else:
            cache.write(layer, slots, key, value)

    def _attend_cached(
        self, layer: int, fresh: tuple[Tensor, Tensor, Tensor], extras: Extras
    ) -> Tensor:
        """Attend to what the cache holds by now; `[heads, tokens, dim]` in, tokens first out."""
        plan, kernels = self._plan, self._kernels
        assert plan is not None, "This is a bug. The step is not planned."
        query, _, value = fresh
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        if plan.paged is not None and kernels is not None:
            k, v = self.cache.k[layer], self.cache.v[layer]
            queries = query.transpose(0, 1)
            kernels.attend(queries, k, v, plan.paged, extras.window, extras.scale, out)
            return out
        for group in plan.groups:
            end = group.first + group.num_rows
            out[group.first : end] = self._decode(layer, group, query, extras)
        for chunk in plan.chunks:
            end = chunk.first + chunk.context.num_tokens
            out[chunk.first : end] = self._prefill(layer, chunk, fresh, extras)
        return out

    def _decode(self, layer: int, group: Group, query: Tensor, extras: Extras) -> Tensor:
        """Attend a group of single queries; the heads of one KV head share its keys as rows."""
        gather = self._gather(layer, group)
        mask = group.masks.get(extras.window)
        if mask is None:
            mask = _mask(group.positions, gather.keys.shape[2], extras.window, query.dtype)
            # four axes: with three the library leaves its fused path
            group.masks[extras.window] = mask = mask[None, :, None]
        num_heads, _, dim = query.shape
        q = query[:, group.first : group.first + group.num_rows]
        # [heads, rows, dim] -> [kv_heads, rows, heads of one KV head, dim]
        q = q.view(gather.keys.shape[0], -1, group.num_rows, dim).transpose(1, 2)
        attended = _attend(q, gather.keys, gather.values, mask, extras, head_axis=2)
        return attended.transpose(0, 1).reshape(group.num_rows, num_heads, -1)

    def _prefill(
        self,
        layer: int,
        chunk: Chunk,
        fresh: tuple[Tensor, Tensor, Tensor],
        extras: Extras,
    ) -> Tensor:
        """Attend one chunk to its row's cached tokens and itself."""
        query, key, value = fresh
        part = slice(chunk.first, chunk.first + chunk.context.num_tokens)
        end = chunk.context.end
        if chunk.context.start == 0:
            keys, values = key[:, None, part], value[:, None, part]
        else:
            gather = self._gather(layer, chunk)
            keys, values = gather.keys[:, :, :end], gather.values[:, :, :end]
        mask = None
        if chunk.context.start > 0 or not extras.is_causal_enough(end):
            mask = chunk.masks.get(extras.window)
            if mask is None:
                positions = torch.arange(chunk.context.start, end, device=query.device)
                mask = _mask(positions, end, extras.window, query.dtype)[None, None]
                chunk.masks[extras.window] = mask
        q = query[:, part].unflatten(0, (key.shape[0], -1))
        attended = _attend(q, keys, values, mask, extras, head_axis=1)
        return attended.flatten(0, 1).transpose(0, 1)

    def _gather(self, layer: int, part: Group | Chunk) -> Gather:
        """Copy a part's blocks of this layer together; where to is worked out once a step."""
        cache = self._cache
        assert cache is not None
        shape = self.shapes[layer]
        gather = part.gathers.get(shape)
        if gather is None:
            gather = part.gathers[shape] = cache.gather(layer, part.blocks)
        cache.read(layer, gather)
        return gather


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    extras: Extras,
    head_axis: int,
) -> Tensor:
    """Attend `query [kv_heads, a, b, dim]` to `keys [kv_heads, 1 or a, length, dim]`.

    The heads of a KV head lie along `head_axis` of the query. No mask means causal.
    """
    if extras.is_plain:
        keys = keys.expand(-1, query.shape[1], -1, -1)
        values = values.expand(-1, query.shape[1], -1, -1)
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=mask is None, scale=extras.scale
        )
    assert mask is not None
    scores = (query @ keys.transpose(-1, -2)).float() * extras.scale
    if extras.softcap is not None:
        scores = torch.tanh(scores / extras.softcap) * extras.softcap
    scores = scores + mask
    if extras.sinks is not None:
        shape = [query.shape[0], 1, 1, 1]
        shape[head_axis] = -1
        sinks = extras.sinks.float().view(shape).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[-2]].to(query.dtype)
    return weights @ values


def _mask(positions: Tensor, length: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Let each query see itself and what is before it, at most `window`; `[queries, length]`.

    Added to the scores: seen is 0, unseen -inf.
    """
    keys = torch.arange(length, device=positions.device)
    seen = keys <= positions[:, None]
    if window is not None:
        seen &= keys > positions[:, None] - window
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, float("-inf")
    )
