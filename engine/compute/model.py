"""Model: a causal language model of transformers that attends through our paged cache.

Loads weights, finds out what the model needs by watching it, rewrites its linears, and proves at
load that ragged rows give what the library gives; what cannot run so is refused with the reason.
"""

import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from engine.compute.adapted import Adaptation, added
from engine.compute.allocator import give_back_freed
from engine.compute.attention import PagedAttention
from engine.compute.decoder import Decoder, Trace, matches, may_take_over, take_over
from engine.compute.gates import rewrite_gates
from engine.compute.kernels.onednn import can_pack
from engine.compute.kernels.table import AdapterTokens, Kernels
from engine.compute.kv_cache import KVCache, LayerShape
from engine.compute.linears import rewrite_linears
from engine.compute.logits import Logits
from engine.compute.lora import Adapter, read_adapter
from engine.compute.norms import rewrite_norms
from engine.compute.plan import Context
from engine.compute.products import best_products
from engine.config import EngineConfig
from engine.errors import LoadError

logger = logging.getLogger(__name__)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_GROWING_ROPES = {"dynamic", "longrope"}
"""Their frequencies depend on the longest row of the batch, so rows stay below the first change."""
_NO_INT8 = (
    "8 bits need a Llama-like model in bfloat16 on a CPU that runs the C++ kernels; leave out "
    "--quantize"
)
_INT8_TOLERANCE = 0.15
"""Of the largest logit: what rounding may do to a model whose weights are random."""
_CHECK_LENGTHS = (11, 5, 8)
_CHECK_CHUNKS = ((0, 6), (6, 10), (10, 11))
"""Steps of the check: the first rows' tokens come in these pieces, the last of one token."""


class KernelsDiffer(LoadError):
    """With kernels in it a model gives something else than the library's modules gave."""


class Model:
    """Weights, ready for ragged steps: `forward` is all that the runner calls."""

    def __init__(self, config: EngineConfig, kernels: Kernels | None = None) -> None:
        self.device = _device(config.device)
        self._config: Any = _from_pretrained(AutoConfig, config.model, **_hub(config))
        self.dtype = _dtype(config.dtype, self._config, self.device)
        is_fitting = kernels is not None and kernels.dtype is self.dtype
        self._kernels = kernels if is_fitting and self.device.type == "cpu" else None
        self._decoder: Decoder | None = None
        self._adaptation: Adaptation | None = None
        self._is_int8 = config.quantize == "int8"
        self._block_size = max(config.block_size, max(_CHECK_LENGTHS))
        self.attention = PagedAttention(self.device, self._kernels)
        name = f"millrace_{id(self.attention)}"
        AttentionInterface.register(name, self.attention.attend)
        AttentionMaskInterface.register(name, lambda *args, **kwargs: None)
        load = partial(_load_module, config, self.dtype, self.device)
        self._module = load()
        text_config = self._module.config.get_text_config()
        self.num_parameters = sum(p.numel() for p in self._module.parameters())
        self.vocab_size = int(text_config.vocab_size)
        self.max_position = _max_position(text_config)
        self.eos_token_ids = _eos_token_ids(self._module)
        self._takes_positions = "position_ids" in _parameters(self._module)
        self._takes_logits_to_keep = "logits_to_keep" in _parameters(self._module)
        adapters = [
            read_adapter(source, self._module, self.dtype, self.device, config.cache_dir)
            for source in config.lora_adapters
        ]
        self.adapters = tuple(adapter.name for adapter in adapters)
        """Their names; a step calls them by their numbers here."""
        with torch.inference_mode():
            self._prepare(text_config, name, load, adapters)

    @property
    def shapes(self) -> list[LayerShape]:
        """What each attention layer keeps for a token."""
        return [self.attention.shapes[layer] for layer in sorted(self.attention.shapes)]

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        logits_at: Tensor,
        adapted: Sequence[AdapterTokens] = (),
    ) -> Logits:
        """Run one ragged step planned in `attention`; return `len(logits_at)` rows of logits.

        `token_ids` and `positions` are `[tokens]`; `logits_at` are indices into them.
        """
        if self._decoder is not None:
            return self._decoder.forward(token_ids, logits_at, adapted)
        if self._adaptation is not None:
            self._adaptation.tokens = adapted
        options: dict[str, Any] = {"use_cache": False}
        if self._takes_positions:
            options["position_ids"] = positions[None]
        if self._takes_logits_to_keep:
            options["logits_to_keep"] = logits_at
        logits: Tensor = self._module(input_ids=token_ids[None], **options).logits[0]
        return Logits(logits if self._takes_logits_to_keep else logits[logits_at])

    def _prepare(
        self,
        text_config: Any,
        name: str,
        load: Callable[[], Any],
        adapters: Sequence[Adapter],
    ) -> None:
        """Watch, rewrite, and compare with the library before the first request does."""
        prompts = self._random_prompts()
        trace = self._trace(prompts[0])
        first = self._alone(prompts[0]) if trace is None else trace.logits
        expected = [first, *map(self._alone, prompts[1:])]
        adapted = [self._with_adapter(adapter, prompts[0]) for adapter in adapters]
        self._module.set_attn_implementation(name)
        try:
            self._alone(prompts[0])
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            raise _refuse(self._module, f"its attention cannot be called so ({error})") from error
        self._check_calls(text_config)
        if trace is not None and self._may_take_over():
            self._decoder = self._take_over(trace)
            if self._decoder is None:  # and what differs was found too late
                self._module = None  # two at a time would need twice the memory
                give_back_freed()
                self._module = load()
                self._module.set_attn_implementation(name)
        if self._decoder is None and self._is_int8:
            raise _refuse(self._module, _NO_INT8)
        if self._decoder is None:
            self._rewrite(prompts[0], adapters)
        else:
            self._decoder.adapt(adapters)
        self._check_ragged(prompts, expected)
        for number, logits in enumerate(adapted):
            self._check_adapter(number, prompts, [logits, *expected[1:]])

    def _trace(self, prompt: Tensor) -> Trace | None:
        """Watch the library's modules at work, where a decoder could take their place."""
        if self._kernels is None or not matches(self._module):
            return None
        trace = Trace(prompt)
        with trace.watch(self._module):
            trace.logits = self._alone(prompt)
        return trace

    def _may_take_over(self) -> bool:
        self.attention.attach(KVCache(self.shapes, 1, self._block_size, self.dtype, self.device))
        return may_take_over(self._module, self.attention)

    def _take_over(self, trace: Trace) -> Decoder | None:
        assert self._kernels is not None
        num_tokens = len(trace.token_ids)
        nothing = np.empty((0, 1), dtype=np.int64)
        chunk = Context(np.array([0]), 0, num_tokens)
        self.attention.plan(nothing, nothing[:, 0], [chunk])
        return take_over(
            self._module,
            self._kernels,
            self.attention,
            self.max_position,
            trace,
            is_int8=self._is_int8,
        )

    def _rewrite(self, prompt: Tensor, adapters: Sequence[Adapter]) -> None:
        """Let kernels take the place of modules whose work they do, and put adapters in."""
        self.attention.detach()
        kernels = self._kernels
        kept = {name for adapter in adapters for name in adapter.parts}
        num_norms = 0 if kernels is None else rewrite_norms(self._module, kernels)
        num_gates = 0 if kernels is None else rewrite_gates(self._module, kernels, kept)
        make = best_products(kernels, self.device, self.dtype)
        num_joined = rewrite_linears(self._module, lambda: self._alone(prompt), make)
        if adapters:
            self._adaptation = Adaptation(self._module, adapters, make)
        logger.info(
            "joined %d projections, fused %d norms and %d gated feed-forwards",
            num_joined,
            num_norms,
            num_gates,
        )

    def _with_adapter(self, adapter: Adapter, prompt: Tensor) -> Tensor:
        """Ask the library's own modules what they give with an adapter."""
        with added(self._module, adapter):
            return self._alone(prompt)

    def _check_calls(self, text_config: Any) -> None:
        attention, module = self.attention, self._module
        num_layers = int(text_config.num_hidden_layers)
        if attention.num_calls == 0:
            raise _refuse(module, "it does not call transformers' attention interface")
        if attention.num_calls != num_layers or len(attention.shapes) != num_layers:
            raise _refuse(
                module,
                f"{len(attention.shapes)} of its {num_layers} layers keep keys and values; "
                "state outside attention is not served",
            )
        if attention.unknown_arguments:
            names = ", ".join(sorted(attention.unknown_arguments))
            raise _refuse(module, f"its attention takes arguments that are not known: {names}")
        layer_types = set(getattr(text_config, "layer_types", None) or ())
        if "chunked_attention" in layer_types:
            raise _refuse(module, "it has chunked attention, which only masks express")
        if "sliding_attention" in layer_types and not attention.has_window:
            raise _refuse(module, "its sliding window is not told to the attention function")

    def _check_ragged(self, prompts: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Compare rows of unequal length, in chunks and in one pass, with each alone."""
        cache = KVCache(self.shapes, len(prompts), self._block_size, self.dtype, self.device)
        self.attention.attach(cache)
        got = []
        for start, end in _CHECK_CHUNKS:
            parts = [(i, p[start:end]) for i, p in enumerate(prompts) if len(p) > start]
            parts.sort(key=lambda part: len(part[1]) > 1)
            got.append(dict(self._ragged_step(parts, start)))
        for i, alone in enumerate(expected):
            ragged = torch.cat([step[i] for step in got if i in step])
            error = _difference(ragged, alone)
            if not error <= self._tolerance:
                kind = LoadError if self._kernels is None else KernelsDiffer
                raise _refuse(
                    self._module,
                    "rows of unequal length computed together do not give what each gives alone "
                    f"(difference {error:.2g} of the largest logit)",
                    kind,
                )

    def _check_adapter(
        self, number: int, prompts: Sequence[Tensor], expected: Sequence[Tensor]
    ) -> None:
        """Compare a row with an adapter, beside rows without, with what the library gave.

        The tolerance is twice that of the model alone, whose weights nobody trained to be added to.
        """
        own = AdapterTokens(number, torch.arange(len(prompts[0]), device=self.device))
        got = self._ragged_step(list(enumerate(prompts)), 0, [own])
        errors = [_difference(logits, expected[i]) for i, logits in got]
        if not all(error <= 2 * self._tolerance for error in errors):
            kind = LoadError if self._kernels is None else KernelsDiffer
            raise kind(
                f"lora_adapters: cannot serve {self.adapters[number]}: with it the model does not "
                f"give what the library gives (difference {max(errors):.2g} of the largest logit)"
            )

    @property
    def _tolerance(self) -> float:
        """Of the largest logit, by which ways to compute the same may differ."""
        if self._is_int8:
            return _INT8_TOLERANCE
        return 1e-3 if self.dtype is torch.float32 else 0.05

    def _ragged_step(
        self,
        parts: Sequence[tuple[int, Tensor]],
        start: int,
        adapted: Sequence[AdapterTokens] = (),
    ) -> list[tuple[int, Tensor]]:
        decodes = np.array([[i] for i, ids in parts if len(ids) == 1], dtype=np.int64)
        self.attention.plan(
            decodes.reshape(-1, 1),
            np.full(len(decodes), start),
            [Context(np.array([i]), start, len(ids)) for i, ids in parts if len(ids) > 1],
        )
        ids = torch.cat([ids for _, ids in parts])
        positions = torch.cat([torch.arange(start, start + len(ids)) for _, ids in parts])
        at = torch.arange(len(ids), device=self.device)
        logits = self.forward(ids, positions.to(self.device), at, adapted).values.clone()
        sizes = [len(part) for _, part in parts]
        return [(i, out) for (i, _), out in zip(parts, logits.split(sizes), strict=True)]

    def _alone(self, prompt: Tensor) -> Tensor:
        at = torch.arange(len(prompt), device=self.device)
        return self.forward(prompt, at, at).values

    def _random_prompts(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        lengths = [min(length, self.max_position) for length in _CHECK_LENGTHS]
        return [
            torch.randint(self.vocab_size, (length,), generator=generator).to(self.device)
            for length in lengths
        ]


def _hub(config: EngineConfig) -> dict[str, Any]:
    """Say which model of a hub is meant."""
    return {
        "revision": config.revision,
        "cache_dir": config.cache_dir,
        "trust_remote_code": config.trust_remote_code,
    }


def _load_module(config: EngineConfig, dtype: torch.dtype, device: torch.device) -> Any:
    logger.info("loading weights of %s as %s on %s", config.model, dtype, device)
    module, report = _from_pretrained(
        AutoModelForCausalLM,
        config.model,
        dtype=dtype,
        attn_implementation="eager",
        output_loading_info=True,
        **_hub(config),
    )
    _check_complete(config.model, report["missing_keys"])
    return module.eval().requires_grad_(False).to(device)


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LoadError("--device cuda was asked for, but torch sees no CUDA device")
    has_cuda = wanted in ("auto", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if has_cuda else "cpu")


def _dtype(wanted: str, config: Any, device: torch.device) -> torch.dtype:
    """Settle `auto`: the model's own type, where this device computes it natively."""
    if wanted != "auto":
        return _DTYPES[wanted]
    own = str(getattr(config.get_text_config(), "dtype", None) or config.dtype or "float32")
    dtype = _DTYPES.get(own.removeprefix("torch."), torch.float32)
    if device.type == "cpu" and dtype is not torch.float32:
        return torch.bfloat16 if can_pack() else torch.float32
    return dtype


def _max_position(text_config: Any) -> int:
    """Count the positions the model knows; less where its RoPE depends on the batch beyond."""
    limit = int(getattr(text_config, "max_position_embeddings", None) or 2048)
    rope = getattr(text_config, "rope_parameters", None) or {}
    for parameters in (rope, *(p for p in rope.values() if isinstance(p, dict))):
        if parameters.get("rope_type") in _GROWING_ROPES:
            original = parameters.get("original_max_position_embeddings")
            limit = min(limit, int(original or limit))
    return limit


def _eos_token_ids(module: Any) -> tuple[int, ...]:
    """Return the generation config's end tokens, the model's where it has none."""
    for config in (getattr(module, "generation_config", None), module.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return tuple(ids) if isinstance(ids, list) else (int(ids),)
    return ()


def _from_pretrained(kind: Any, model: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(model, **options)
    except Exception as error:  # the libraries raise a dozen kinds, all for the operator
        raise LoadError(explain(model, error)) from error


def _check_complete(model: str, missing: Collection[str]) -> None:
    """Refuse a checkpoint with holes: the library fills them with random numbers and goes on."""
    if missing:
        raise LoadError(
            f"cannot load {model}: {len(missing)} weights are missing, among them {min(missing)}; "
            "are all its files there, and does config.json belong to them?"
        )


def explain(model: str, error: Exception, part: str = "") -> str:
    """Say in a sentence why (a part of) a model cannot be loaded, and what to do."""
    path = Path(model)
    if not path.exists() and (path.is_absolute() or model.startswith(".")):
        return f"cannot load {model}: no such directory. Give --model-id a directory or a hub id"
    if path.is_dir() and not (path / "config.json").exists():
        return f"cannot load {model}: it holds no config.json"
    reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(" .:")
    sentence = f"cannot load {part}{model}: {type(error).__name__}: {reason}"
    return f"{sentence}; is the file whole?" if "Safetensor" in sentence else sentence


def _difference(logits: Tensor, expected: Tensor) -> float:
    """Compare with the largest logit; NaN where a logit is not finite."""
    if not torch.isfinite(logits).all():
        return float("nan")
    error = (logits.float() - expected.float()).abs().max()
    return float(error / expected.float().abs().max())


def _parameters(module: Any) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


def _refuse(module: Any, reason: str, kind: type[LoadError] = LoadError) -> LoadError:
    return kind(f"{type(module).__name__} cannot be served: {reason}")
