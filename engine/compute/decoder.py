"""Decoder: dense Llama-like models as one loop over a table of tensors, with kernels of our own.

A second way to run what Model has loaded: found by its parts' names, each layer checked against the
library's on a few tokens before it gives up its weights. Everything else stays with the modules.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from engine.compute.allocator import give_back_freed
from engine.compute.attention import PagedAttention
from engine.compute.decoder_adapters import layer_adapters
from engine.compute.kernels.table import (
    AdapterTokens,
    DecoderLayers,
    Ends,
    Heads,
    Kernels,
    Layer,
    LayerAdapter,
    RopeTable,
)
from engine.compute.kv_cache import KVCache
from engine.compute.logits import PANEL, Logits
from engine.compute.lora import Adapter
from engine.compute.norms import epsilon_of
from engine.compute.packing import pack_down, pack_gate, pack_joined

logger = logging.getLogger(__name__)

_BODY = {"embed_tokens", "layers", "norm", "rotary_emb"}
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = ("q_norm", "k_norm")
_NO_KERNEL = "kernels attend plainly, over heads and blocks of multiples of 32"
_DIFFERS = "the library's modules run: %s is not as in a Llama"
_FIRST_POSITIONS = 4096
"""Positions that are tabulated at load; more when they come."""
_TOLERANCE = 0.03
"""Of what a layer adds, by which a kernel's roundings may make it differ."""


class Decoder:
    """What Model.forward runs where the library's modules are not needed any more."""

    def __init__(
        self, module: Any, kernels: Kernels, attention: PagedAttention, max_position: int
    ) -> None:
        body = module.model
        shape, own = attention.shapes[0], body.layers[0].self_attn
        num_heads = own.q_proj.out_features // shape.k_dim
        self._heads = Heads(num_heads, shape.num_kv_heads, shape.k_dim)
        self._epsilon = epsilon_of(body.norm)
        self._kernels = kernels
        self._attention = attention
        self._max_position = max_position
        self._rotary = body.rotary_emb
        self._rope_table = self._rope_table_of(_FIRST_POSITIONS)
        self._layers: list[Layer] = []
        self._adapters: list[list[LayerAdapter]] = []
        self._joined: tuple[KVCache, DecoderLayers] | None = None
        self._ends = Ends(
            body.embed_tokens.weight.detach().contiguous(),
            body.norm.weight.detach(),
            pack_joined(kernels, module.lm_head),
        )
        self._room = _room_for_logits(0, self._ends.head.n)
        self._logits = self._room

    def forward(
        self, token_ids: Tensor, logits_at: Tensor, adapted: Sequence[AdapterTokens] = ()
    ) -> Logits:
        """Run one ragged step planned in the attention; return `len(logits_at)` rows of logits."""
        paged = self._attention.paged
        # in whole blocks: looking at the positions takes longer
        longest = min(paged.tables.shape[1] * self._attention.cache.block_size, self._max_position)
        if longest > len(self._rope_table.cosine):
            self._rope_table = self._rope_table_of(2 * longest)
        logits = self._logits_for(len(logits_at))
        self._joined_layers().forward(
            token_ids, logits_at, paged, self._rope_table, logits, adapted
        )
        return logits

    def take(self, module: Any, trace: "Trace", *, is_int8: bool) -> str | None:
        """Pack the weights of layer after layer; a layer is gone before the next is packed.

        Each is compared first: returns which part gives something else than it gave for the
        library, None if none does. The attention is planned for the trace's tokens.
        """
        ends = self._ends
        if not torch.equal(ends.embedding[trace.token_ids], trace.entered[0]):
            return "its embedding"
        layers = module.model.layers
        for place, layer in enumerate(layers):
            packed = self._pack_layer(layer, place)
            if self._differs(packed, place, trace):
                return f"layer {place}"
            self._layers.append(self._pack_layer(layer, place, is_int8=True) if is_int8 else packed)
            layers[place] = nn.Identity()
            give_back_freed()
        x, logits = trace.entered[-1], self._logits_for(len(trace.token_ids))
        self._kernels.rms_norm(x, ends.norm, self._epsilon, x)
        self._kernels.logits(x, ends.head, logits)
        if not _is_near(logits.values, trace.logits, 0):
            return "its head"
        if is_int8:
            head = pack_joined(self._kernels, module.lm_head, is_int8=True)
            self._ends = Ends(ends.embedding, ends.norm, head)
        module.lm_head = nn.Identity()
        give_back_freed()
        return None

    def adapt(self, adapters: Sequence[Adapter]) -> None:
        """Pack adapters, which are added from now on for the tokens that a step says."""
        self._joined = None
        self._adapters = [
            layer_adapters(self._kernels, self._heads, self._layers, adapter.parts)
            for adapter in adapters
        ]

    def _differs(self, layer: Layer, place: int, trace: "Trace") -> bool:
        cache, x = self._attention.cache, trace.entered[place].clone()
        k, v = [cache.k[place]], [cache.v[place]]
        one = self._kernels.decoder(self._heads, self._epsilon, [layer], k, v)
        one.add(x, self._attention.paged, self._rope_table)
        return not _is_near(x, trace.entered[place + 1], trace.entered[place])

    def _joined_layers(self) -> DecoderLayers:
        """Join the layers to the attention's cache when that is another one."""
        cache = self._attention.cache
        if self._joined is None or self._joined[0] is not cache:
            layers = self._kernels.decoder(
                self._heads,
                self._epsilon,
                self._layers,
                cache.k,
                cache.v,
                self._adapters,
                self._ends,
            )
            self._joined = (cache, layers)
        return self._joined[1]

    def _rope_table_of(self, num_positions: int) -> RopeTable:
        """Tabulate the library's own rule, which beyond the last position may be another."""
        positions = torch.arange(min(num_positions, self._max_position))
        cosine, sine = self._rotary(torch.empty(0), positions[None])
        return RopeTable(cosine[0].contiguous(), sine[0].contiguous())

    def _logits_for(self, num_rows: int) -> Logits:
        """Give room for logits, the same again: fresh memory costs more than the product."""
        if len(self._room) < num_rows:
            self._room = _room_for_logits(num_rows, self._ends.head.n)
        if len(self._logits) != num_rows:
            assert self._room.tops is not None
            self._logits = Logits(self._room.values[:num_rows], self._room.tops[:num_rows])
        return self._logits

    def _pack_layer(self, layer: Any, place: int, *, is_int8: bool = False) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        pack = partial(pack_joined, self._kernels, is_int8=is_int8)
        q_norm, k_norm = (getattr(attention, name, None) for name in _HEAD_NORMS)
        extras = self._attention.extras[place]
        return Layer(
            norm=layer.input_layernorm.weight.detach(),
            qkv=pack(attention.q_proj, attention.k_proj, attention.v_proj),
            q_norm=None if q_norm is None else q_norm.weight.detach(),
            k_norm=None if k_norm is None else k_norm.weight.detach(),
            window=extras.window,
            scale=extras.scale,
            out=pack(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=pack_gate(self._kernels, mlp.gate_proj, mlp.up_proj, is_int8=is_int8),
            down=pack_down(self._kernels, mlp.down_proj, is_int8=is_int8),
        )


def _room_for_logits(num_rows: int, width: int) -> Logits:
    return Logits(torch.empty(num_rows, width), torch.empty(num_rows, -(-width // PANEL)))


class Trace:
    """What the library's modules made of a few tokens, before anything was changed."""

    def __init__(self, token_ids: Tensor) -> None:
        self.token_ids = token_ids
        self.entered: list[Tensor] = []
        """`[tokens, hidden]`: what went into each layer and, last, into the final norm."""
        self.logits = torch.empty(0)

    @contextmanager
    def watch(self, module: Any) -> Iterator[None]:
        """Note what goes into the parts of a module that `matches` while it runs."""
        parts = [*module.model.layers, module.model.norm]
        handles = [part.register_forward_pre_hook(self._note, with_kwargs=True) for part in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, part: Any, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else named["hidden_states"]
        self.entered.append(hidden[0].clone())


def matches(module: Any) -> bool:
    """Tell whether a module has the parts of a Llama by their names, and none besides."""
    if _names(module) != {"model", "lm_head"} or _names(module.model) != _BODY:
        return False
    is_head = type(module.lm_head) is nn.Linear and module.lm_head.in_features % 4 == 0
    return is_head and all(_is_layer(layer) for layer in module.model.layers)


def may_take_over(module: Any, attention: PagedAttention) -> bool:
    """Tell whether the sizes of a module that `matches` are such as a decoder knows."""
    part = _unlike(module, attention)
    if part is not None:
        logger.info(_DIFFERS, part)
    elif not attention.has_kernel:
        logger.info("the library's modules run: %s", _NO_KERNEL)
    return part is None and attention.has_kernel


def take_over(
    module: Any,
    kernels: Kernels,
    attention: PagedAttention,
    max_position: int,
    trace: Trace,
    *,
    is_int8: bool,
) -> Decoder | None:
    """Give the decoder for a module it may take over; None if it differs, and then it is spoiled.

    The attention is planned for the trace's tokens as one chunk. What is compared is not quantised
    yet.
    """
    decoder = Decoder(module, kernels, attention, max_position)
    part = decoder.take(module, trace, is_int8=is_int8)
    if part is None:
        return decoder
    logger.info(_DIFFERS, part)
    return None


def _names(module: Any) -> set[str]:
    return {name for name, _ in module.named_children()}


def _is_layer(layer: Any) -> bool:
    if _names(layer) != _LAYER or _names(layer.mlp) != _MLP:
        return False
    if _names(layer.self_attn).difference(_HEAD_NORMS) != _ATTENTION:
        return False
    linears = [getattr(layer.self_attn, name) for name in _ATTENTION]
    linears += [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
    if any(type(linear) is not nn.Linear or linear.in_features % 4 for linear in linears):
        return False
    x = torch.linspace(-4, 4, 33)
    return torch.allclose(layer.mlp.act_fn(x), silu(x))


def _unlike(module: Any, attention: PagedAttention) -> str | None:
    """Name the first part whose sizes a decoder does not know, None if all are known."""
    shape, epsilon = attention.shapes[0], epsilon_of(module.model.norm)
    num_heads = attention.extras[0].num_heads
    if shape.k_dim != shape.v_dim or shape.k_dim % 2:
        return "the width of its heads"
    sizes = [num_heads * shape.k_dim, *[shape.num_kv_heads * shape.k_dim] * 2]
    for place, layer in enumerate(module.model.layers):
        own = layer.self_attn
        given = [own.q_proj.out_features, own.k_proj.out_features, own.v_proj.out_features]
        if attention.shapes[place] != shape or given != sizes or own.o_proj.in_features != sizes[0]:
            return f"the attention of layer {place}"
        norms = [layer.input_layernorm, layer.post_attention_layernorm]
        head_norms = [norm for name in _HEAD_NORMS if (norm := getattr(own, name, None))]
        if any(_width(norm) != shape.k_dim for norm in head_norms):
            return f"the norm of heads in layer {place}"
        if any(epsilon_of(norm) != epsilon for norm in (*norms, *head_norms)) or not epsilon:
            return f"the norms of layer {place}"
    return None


def _width(norm: Any) -> int:
    return len(getattr(norm, "weight", ()))


def _is_near(x: Tensor, expected: Tensor, before: Tensor | float) -> bool:
    """Compare what was added to `before`; float32 has to be a thousand times nearer."""
    added = expected.float() - before
    error = (x.float() - expected.float()).norm() / added.norm()
    return bool(error < (_TOLERANCE / 1000 if expected.dtype is torch.float32 else _TOLERANCE))
