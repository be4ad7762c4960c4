"""Tiny random models of many families, saved as ordinary directories, and ways to run them."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from engine.batch import Batch, Sampled, StepOutput
from engine.compute.kernels.native import KernelsMissing, Native, find_native
from engine.compute.kernels.table import Kernels
from engine.compute.kv_cache import KVCache
from engine.compute.model import Model
from engine.compute.runner import ModelRunner
from engine.compute.sampler import Sampler
from engine.config import AdapterSource, EngineConfig, Limits
from engine.detokenizer import Detokenizer, Pieces
from engine.matchers import Matchers
from engine.outputs import Finish
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.sequence import Sequence

VOCAB_SIZE = 320
EOS = 256
"""The byte-level tokenizer's end token, which the models themselves do not name."""
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "initializer_range": 0.6,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "vocab_size": VOCAB_SIZE,
    "initializer_range": 0.6,
    "bos_token_id": None,
    "eos_token_id": None,
}
_GEMMA = {**_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", _GROUPED),
    "llama-rope-llama3": (
        "llama",
        {
            **_GROUPED,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama-rope-yarn": (
        "llama",
        {
            **_GROUPED,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            },
        },
    ),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": 8}),
    "gemma2": (
        "gemma2",
        {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
    ),
    "gemma3": ("gemma3_text", {**_GEMMA, "num_hidden_layers": 7}),
    "phi": ("phi", _COMMON),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": 8}),
    "gpt-neox": ("gpt_neox", _COMMON),
    "gpt2": ("gpt2", _GPT2),
    "opt": (
        "opt",
        {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.6, "pad_token_id": 1},
    ),
    "olmo2": ("olmo2", _GROUPED),
    "cohere": ("cohere", {**_GROUPED, "logit_scale": 0.25}),
    "granite": ("granite", {**_GROUPED, "logits_scaling": 2.0}),
    "starcoder2": ("starcoder2", {**_GROUPED, "sliding_window": 8}),
    "mixtral": ("mixtral", {**_GROUPED, **_EXPERTS}),
    "qwen3-moe": (
        "qwen3_moe",
        {
            **_GROUPED,
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
        },
    ),
    "gpt-oss": ("gpt_oss", {**_GROUPED, **_EXPERTS, "head_dim": 16, "sliding_window": 8}),
    "deepseek-v3": (
        "deepseek_v3",
        {
            **_COMMON,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
        },
    ),
}


def save_tiny_model(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random model of a family, with a byte-level tokenizer, as a model directory."""
    model_type, settings = FAMILIES[family]
    return save_model(model_type, settings, folder / family, seed)


def save_model(model_type: str, settings: dict[str, object], path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "sinks" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(path)
    save_byte_tokenizer(path)
    return path


def save_byte_tokenizer(path: Path) -> None:
    """Write a tokenizer whose ids are bytes, 256 and up being special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=(
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}"
        ),
    )
    fast.save_pretrained(path)


@dataclass
class Bench:
    """A model with a runner and a scheduler of chosen limits, stepped by hand."""

    model: Model
    runner: ModelRunner
    scheduler: Scheduler
    num_accepted: int = 0
    num_refuted: int = 0
    """Drafts that were right and wrong."""
    sampled: dict[int, list[Sampled]] = field(default_factory=dict)
    """What each sequence was answered, in the order of their ids."""

    def generate(self, prompts: list[list[int]], **params: object) -> list[list[int]]:
        """Submit all at once, step until all have ended, return the generated ids."""
        sequences = [self.submit(prompt, **params) for prompt in prompts]
        while self.scheduler.num_sequences:
            self.step()
        return [s.token_ids[s.num_prompt :] for s in sequences]

    def submit(self, prompt: list[int], **params: object) -> Sequence:
        settings = {"max_new_tokens": 24, "ignore_eos": True, **params}
        number = self._number = getattr(self, "_number", 0) + 1
        sequence = Sequence(
            number, prompt, SamplingParams(**settings), Detokenizer(NoVocabulary(), prompt), 0.0
        )
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> tuple[Batch, StepOutput] | None:
        batch = self.scheduler.schedule(0.0)
        if batch is None:
            return None
        output = self.runner.execute(batch)
        for row in output.rows:
            self.sampled.setdefault(row.sequence_id, []).extend(row.sampled)
        update = self.scheduler.update(output, 0.0)
        self.num_accepted += sum(update.num_accepted)
        self.num_refuted += update.num_draft_tokens - sum(update.num_accepted)
        self.scheduler.check()
        return batch, output

    def generate_from(self, answers: list[list[int]], prompts: list[list[int]], **params: object):
        """Generate with drafts of known answers, half of them spoilt somewhere."""
        sequences = [self.submit(prompt, **params) for prompt in prompts]
        for sequence, answer in zip(sequences, answers, strict=True):
            sequence.drafts = Spoilt(answer, sequence.num_prompt)
        while self.scheduler.num_sequences:
            self.step()
        return [s.token_ids[s.num_prompt :] for s in sequences]


class Spoilt:
    """Guesses an answer that is known, in every other guess with one token wrong."""

    def __init__(self, answer: list[int], num_prompt: int) -> None:
        self._answer = answer
        self._num_prompt = num_prompt
        self._num_guesses = 0

    def find(self, token_ids: list[int]) -> bool:
        return len(token_ids) < self._num_prompt + len(self._answer)

    def guess(self, token_ids: list[int], count: int) -> tuple[int, ...]:
        start = len(token_ids) - self._num_prompt
        guess = self._answer[start : start + count]
        self._num_guesses += 1
        if self._num_guesses % 2:
            at = self._num_guesses // 2 % len(guess)
            guess[at] = (guess[at] + 1) % 256
        return tuple(guess)

    def learn(self, num_accepted: int) -> None:
        """Go on guessing whatever was right."""


class NoVocabulary:
    """Gives no text: for tests that look at ids alone."""

    def __init__(self) -> None:
        self.pieces = Pieces(self)

    def token_bytes(self, token_id: int) -> bytes:
        return b""

    def special_text(self, token_id: int) -> None:
        return None

    def decode(self, token_ids: list[int]) -> str:
        return ""


def make_bench(
    model: Model,
    kernels: Kernels | None = None,
    matchers: Matchers | None = None,
    **limits: object,
) -> Bench:
    """Give a loaded model a fresh cache, runner and scheduler; with matchers, an end token too.

    The kernels are the sampler's.
    """
    settings = {
        "num_blocks": 256,
        "block_size": 4,
        "max_batch_size": 16,
        "max_batch_tokens": 256,
        "max_waiting": 64,
        "max_waiting_tokens": 10_000,
        "max_queue_s": None,
        "max_input_tokens": 255,
        "max_total_tokens": 256,
        **limits,
    }
    limit = Limits(**settings)
    cache = KVCache(model.shapes, limit.num_blocks, limit.block_size, model.dtype, model.device)
    model.attention.attach(cache)
    eos_token_ids = model.eos_token_ids if matchers is None else (EOS,)
    sampler = Sampler(model.vocab_size, eos_token_ids, 0.5, 2.0, model.device, kernels)
    rows, tokens = limit.max_batch_size, limit.max_total_tokens
    runner = ModelRunner(model, cache, sampler, rows, tokens, 1, matchers)
    return Bench(model, runner, Scheduler(limit, NoVocabulary(), eos_token_ids))


def run(bench: Bench) -> dict[int, Finish]:
    """Step until all have ended; return each sequence's finish by its id."""
    finishes = {}
    while bench.scheduler.num_sequences:
        batch = bench.scheduler.schedule(0.0)
        assert batch is not None
        update = bench.scheduler.update(bench.runner.execute(batch), 0.0)
        bench.scheduler.check()
        for sequence, delta in update.gains:
            if delta.finish is not None:
                finishes[sequence.sequence_id] = delta.finish
    return finishes


def native_kernels(kind: type[Native] = Native) -> Native:
    """Open the C++ kernels; only a processor that lacks their instructions is excused."""
    try:
        return kind(find_native())
    except KernelsMissing as missing:
        if "this processor has no" in str(missing):
            pytest.skip(str(missing))
        raise


def load_tiny(
    path: Path,
    dtype: str = "float32",
    device: str = "cpu",
    kernels: Kernels | None = None,
    quantize: str | None = None,
    lora_adapters: tuple[AdapterSource, ...] = (),
) -> Model:
    config = EngineConfig(
        model=str(path),
        dtype=dtype,
        device=device,
        quantize=quantize,
        lora_adapters=lora_adapters,
    )
    return Model(config, kernels)


def random_prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


def reference_ids(path: Path, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Generate greedily with transformers itself, one prompt at a time, in float32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers
