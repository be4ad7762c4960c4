"""EngineConfig: what the operator asks of the engine. Limits: what it came to after loading.

Both are frozen and checked once. Knows no flags and no environment: the command line does.
"""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from engine.errors import LoadError

_CHOICES = {
    "dtype": ("auto", "bfloat16", "float16", "float32"),
    "device": ("auto", "cpu", "cuda"),
}


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """A LoRA adapter to load."""

    name: str
    """What requests call it."""
    path: str
    """A directory, or a hub id."""
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What to load and how far to go; None means "find out at load"."""

    model: str
    """A directory, or a hub id."""
    revision: str | None = None
    cache_dir: Path | None = None
    """Where the hub library keeps its downloads."""
    trust_remote_code: bool = False
    lora_adapters: tuple[AdapterSource, ...] = ()
    """Adapters that a request may name, each of which is kept beside the weights."""
    chat_template_path: Path | None = None
    """A tokenizer_config.json whose `chat_template` replaces the model's."""
    dtype: str = "auto"
    """auto, bfloat16, float16 or float32."""
    device: str = "auto"
    """auto, cpu or cuda."""
    num_threads: int | None = None
    """Threads of the forward pass on a CPU; by default the cores this process may use."""
    quantize: str | None = None
    """None, or int8: weights of 8 bits, for which the C++ kernels are needed."""
    has_kernels: bool = True
    """Use the C++ kernels where they were built and this CPU has what they need."""

    max_batch_size: int = 64
    """Rows of one step."""
    max_batch_tokens: int | None = None
    """What a step may hold at most, prefill and decode together."""
    max_inter_token_ms: float | None = None
    """How long a step may take that holds prompts beside rows which stream; by default as Pace
    says, from the time of a step without prompts."""
    max_cache_tokens: int | None = None
    """Tokens the KV cache holds; by default worked out from free memory."""
    memory_fraction: float = 0.5
    """Share of the free memory the KV cache may take."""
    block_size: int = 32
    """Tokens of one KV block."""
    is_prefix_caching: bool = True
    max_drafts: int = 0
    """Tokens that a step may guess ahead for each sequence; 0 guesses nothing."""
    max_waiting: int = 128
    """Sequences in the waiting room, beside those that a free row takes at the next step."""
    max_waiting_tokens: int = 1_000_000
    """Prompt tokens in the waiting room."""
    max_queue_s: float | None = None
    """How long a sequence may wait before it is refused as overloaded."""
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    is_prompt_logprobs_enabled: bool = False
    is_grammar_disabled: bool = False
    """Refuse grammars, and spend no time and memory on them."""
    num_tokenizer_workers: int = 2
    watermark_gamma: float = 0.5
    watermark_delta: float = 2.0

    def __post_init__(self) -> None:
        """Check what does not need the model; messages are for the operator."""
        for field in (
            "num_threads",
            "max_batch_size",
            "max_batch_tokens",
            "max_cache_tokens",
            "block_size",
            "max_waiting_tokens",
            "max_input_tokens",
            "max_total_tokens",
            "num_tokenizer_workers",
        ):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise LoadError(f"{field} must be at least 1. Given: {value}")
        self._check_choices()
        self._check_adapters()
        for field in ("max_waiting", "max_drafts"):
            value = getattr(self, field)
            if value < 0:
                raise LoadError(f"{field} must not be negative. Given: {value}")
        for field in ("max_queue_s", "max_inter_token_ms"):
            value = getattr(self, field)
            if value is not None and not value > 0.0:
                raise LoadError(f"{field} must be above 0. Given: {value}")
        if not 0.0 < self.memory_fraction <= 1.0:
            raise LoadError(
                f"memory_fraction must be above 0 and at most 1. Given: {self.memory_fraction}"
            )
        if self.max_batch_tokens is not None and self.max_batch_tokens < self.max_batch_size:
            raise LoadError(
                f"the token budget of a step ({self.max_batch_tokens}) must hold at least one "
                f"token of each row ({self.max_batch_size})"
            )
        if (
            self.max_input_tokens is not None
            and self.max_total_tokens is not None
            and self.max_input_tokens >= self.max_total_tokens
        ):
            raise LoadError(
                f"max_input_tokens ({self.max_input_tokens}) must be below max_total_tokens "
                f"({self.max_total_tokens})"
            )

    def _check_adapters(self) -> None:
        names = [source.name for source in self.lora_adapters]
        for name in names:
            if names.count(name) > 1:
                raise LoadError(f"lora_adapters names {name} more than once")

    def _check_choices(self) -> None:
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise LoadError(f"{field} must be one of {', '.join(choices)}. Given: {value}")
        if not 0.0 < self.watermark_gamma < 1.0:
            given = self.watermark_gamma
            raise LoadError(f"watermark_gamma must be above 0 and below 1. Given: {given}")
        if not isfinite(self.watermark_delta):
            raise LoadError(f"watermark_delta must be finite. Given: {self.watermark_delta}")
        if self.quantize not in (None, "int8"):
            raise LoadError(f"quantize must be int8. Given: {self.quantize}")
        if self.quantize is not None and not self.has_kernels:
            raise LoadError("quantize needs the kernels: has_kernels must be on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the scheduler may do; every number is settled."""

    num_blocks: int
    block_size: int
    max_batch_size: int
    max_batch_tokens: int
    max_waiting: int
    max_waiting_tokens: int
    max_queue_s: float | None
    max_input_tokens: int
    max_total_tokens: int
    is_prefix_caching: bool = True
    max_drafts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What was loaded, for people and for `/info`."""

    model_id: str
    revision: str | None
    dtype: str
    device: str
    num_parameters: int
    vocab_size: int
    max_position: int
    adapters: tuple[str, ...] = ()
    """What the loaded adapters are called."""
