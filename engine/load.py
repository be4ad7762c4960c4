"""load: the only place that joins tokenizer, model, cache, runner and scheduler to an Engine."""

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from engine.batch import Batch, Join, RowWork
from engine.chats import Chats
from engine.compute.allocator import prepare_allocator
from engine.compute.kernels.native import KernelsMissing, Native, find_native
from engine.compute.kernels.onednn import OneDnn, can_pack, is_faster
from engine.compute.kernels.table import Kernels
from engine.compute.kv_cache import KVCache, free_memory_bytes
from engine.compute.model import KernelsDiffer, Model, explain
from engine.compute.runner import ModelRunner
from engine.compute.sampler import Sampler
from engine.config import EngineConfig, Limits, ModelInfo
from engine.cores import usable_cores
from engine.engine import Engine
from engine.errors import LoadError
from engine.grammars import Grammars
from engine.matchers import Matchers, Vocabulary
from engine.pace import Pace
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.stats import Observer
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_DEFAULT_BATCH_TOKENS = {"cpu": 512, "cuda": 2048}
"""Prompts that nobody waits for enter in pieces of this size; larger ones gain nothing."""
_MIN_PROMPT_TOKENS = {"cpu": 16, "cuda": 128}
"""Of a step, however slow it is; fewer cost a step as much."""


def load(config: EngineConfig, observer: Observer) -> Engine:
    """Load a model and make it ready to serve; blocks for as long as that takes.

    Raises LoadError, whose message tells the operator what to do. The work is done on a thread that
    ends with it, and its matrix threads with it: were there more than cores, those of the steps
    would go to sleep at every barrier, which takes a small model two and a half times as long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
        return thread.submit(_load, config, observer).result()


def _load(config: EngineConfig, observer: Observer) -> Engine:
    prepare_allocator()
    _speak_with_one_voice()
    num_threads = config.num_threads or usable_cores()
    torch.set_num_threads(num_threads)
    tokenizer = _load_tokenizer(config)
    kernels = _load_kernels(config)
    model = _load_model(config, kernels)
    limits = _settle(config, model)
    cache = KVCache(model.shapes, limits.num_blocks, limits.block_size, model.dtype, model.device)
    model.attention.attach(cache)
    eos_token_ids = model.eos_token_ids or _ids(tokenizer.eos_token_id)
    # some name tokens that the model has no logits for, which never come
    eos_token_ids = tuple(token_id for token_id in eos_token_ids if token_id < model.vocab_size)
    sampler = Sampler(
        model.vocab_size,
        eos_token_ids,
        config.watermark_gamma,
        config.watermark_delta,
        model.device,
        kernels if model.device.type == "cpu" else None,
    )
    vocabulary = Vocabulary(
        tokenizer.to_json(), max(model.vocab_size, tokenizer.size), tuple(eos_token_ids)
    )
    matchers = None if config.is_grammar_disabled else _make_matchers(vocabulary)
    rows, tokens = limits.max_batch_size, limits.max_total_tokens
    runner = ModelRunner(model, cache, sampler, rows, tokens, num_threads, matchers)
    pace = _make_pace(config, limits, model.device.type)
    _warm_up(runner, limits, pace, has_prompt_logprobs=config.is_prompt_logprobs_enabled)
    info = ModelInfo(
        model_id=config.model,
        revision=config.revision,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        num_parameters=model.num_parameters,
        vocab_size=model.vocab_size,
        max_position=model.max_position,
        adapters=model.adapters,
    )
    scheduler = Scheduler(limits, tokenizer, eos_token_ids, pace)
    grammars = None if matchers is None else Grammars(vocabulary, matchers)
    workers = config.num_tokenizer_workers
    chats = Chats(tokenizer.template)
    return Engine(
        runner, scheduler, tokenizer, info, observer, workers, grammars=grammars, chats=chats
    )


def describe_kernels() -> str:
    """Say whether the C++ kernels run on this machine, and why not."""
    try:
        Native(find_native())
    except KernelsMissing as missing:
        return f"none: {missing}"
    return "run here, for bfloat16 and 8 bits"


def _load_kernels(config: EngineConfig) -> Kernels | None:
    """Open the C++ kernels, or say in a line why plain torch runs instead."""
    if not config.has_kernels:
        logger.info("without the C++ kernels, as asked for")
        return None
    try:
        path = find_native()
        kernels = Native(path)
    except KernelsMissing as missing:
        logger.warning("without the C++ kernels, more slowly: %s", missing)
        return None
    if kernels.has_amx and can_pack() and is_faster(theirs := OneDnn(path), kernels):
        logger.info("products by oneDNN: it uses this processor's matrix units, and was faster")
        return theirs
    return kernels


def _load_model(config: EngineConfig, kernels: Kernels | None) -> Model:
    """Load the model, once more without kernels where with them it gives something else."""
    try:
        return Model(config, kernels)
    except KernelsDiffer as error:
        if config.quantize is not None:
            raise
        logger.warning("without the C++ kernels, more slowly: %s", error)
    return Model(config, None)  # here, since an error that is handled holds on to the first one


def _speak_with_one_voice() -> None:
    """Let the libraries write to our log only; they draw bars of progress where a person looks."""
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    for name in ("transformers", "huggingface_hub"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _load_tokenizer(config: EngineConfig) -> Tokenizer:
    try:
        fast = AutoTokenizer.from_pretrained(
            config.model,
            revision=config.revision,
            cache_dir=config.cache_dir,
            trust_remote_code=config.trust_remote_code,
            clean_up_tokenization_spaces=False,
        )
    except Exception as error:  # the libraries raise a dozen kinds, all for the operator
        sentence = explain(config.model, error, "the tokenizer of ")
        if Path(config.model).is_dir() and not (Path(config.model) / "tokenizer.json").exists():
            sentence += "; it holds no tokenizer.json"
        raise LoadError(sentence) from error
    if not fast.is_fast:
        raise LoadError(
            f"the tokenizer of {config.model} has no fast form: a tokenizer.json is needed"
        )
    if config.chat_template_path is not None:
        fast.chat_template = _read_template(config.chat_template_path)
    return Tokenizer(fast)


def _read_template(path: Path) -> str:
    try:
        template: Any = json.loads(path.read_text())["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(
            f"{path} is not a tokenizer configuration with a `chat_template`: {error}"
        ) from error
    return str(template)


def _make_matchers(vocabulary: Vocabulary) -> Matchers | None:
    """Prepare for grammars, or say in a line why they are refused."""
    try:
        return Matchers(vocabulary)
    except ValueError as error:
        logger.warning("without grammars: %s", error)
        return None


def _settle(config: EngineConfig, model: Model) -> Limits:
    """Work out every limit that the operator left open, and say so."""
    size = config.block_size
    bytes_per_token = sum(shape.num_bytes(model.dtype) for shape in model.shapes)
    wanted = config.max_total_tokens or model.max_position
    if config.max_total_tokens is not None and config.max_total_tokens > model.max_position:
        raise LoadError(
            f"max_total_tokens must be at most {model.max_position}, the positions that the model "
            f"knows. Given: {config.max_total_tokens}"
        )
    free = free_memory_bytes(model.device)
    fitting = int(free * config.memory_fraction) // (bytes_per_token * size)
    useful = config.max_batch_size * -(-wanted // size)
    num_blocks = min(fitting, useful)
    if config.max_cache_tokens is not None:
        if config.max_cache_tokens < size:
            raise LoadError(
                f"max_cache_tokens must be at least one block of {size} tokens. "
                f"Given: {config.max_cache_tokens}"
            )
        num_blocks = config.max_cache_tokens // size
        if num_blocks > free // (bytes_per_token * size):
            raise LoadError(
                f"the KV cache of {config.max_cache_tokens} tokens needs "
                f"{_mib(num_blocks * size * bytes_per_token)}, but {_mib(free)} are free"
            )
    if num_blocks < 1:
        raise LoadError(
            f"no memory for one block of {size} tokens ({_mib(size * bytes_per_token)}): "
            f"{_mib(free)} are free, of which memory_fraction {config.memory_fraction} lets the "
            f"cache take {_mib(free * config.memory_fraction)}"
        )
    max_total = min(wanted, num_blocks * size)
    if max_total < 2:
        raise LoadError(
            f"max_total_tokens must be at least 2, one in and one out. Given: {max_total}"
        )
    if config.max_total_tokens is not None and max_total < config.max_total_tokens:
        raise LoadError(
            f"max_total_tokens is {config.max_total_tokens}, but the KV cache holds only "
            f"{num_blocks * size} tokens"
        )
    max_input = config.max_input_tokens or max_total - 1
    if max_input >= max_total:
        raise LoadError(
            f"max_input_tokens must be below max_total_tokens ({max_total}). Given: {max_input}"
        )
    logger.info(
        "KV cache: %d blocks of %d tokens, %s; at most %d tokens a sequence, %d rows a step",
        num_blocks,
        size,
        _mib(num_blocks * size * bytes_per_token),
        max_total,
        config.max_batch_size,
    )
    default_tokens = max(_DEFAULT_BATCH_TOKENS[model.device.type], config.max_batch_size)
    return Limits(
        num_blocks=num_blocks,
        block_size=size,
        max_batch_size=config.max_batch_size,
        max_batch_tokens=config.max_batch_tokens or default_tokens,
        max_waiting=config.max_waiting,
        max_waiting_tokens=max(config.max_waiting_tokens, max_input),
        max_queue_s=config.max_queue_s,
        max_input_tokens=max_input,
        max_total_tokens=max_total,
        is_prefix_caching=config.is_prefix_caching,
        max_drafts=config.max_drafts,
    )


def _make_pace(config: EngineConfig, limits: Limits, device: str) -> Pace:
    target_ms = config.max_inter_token_ms
    max_step_s = None if target_ms is None else target_ms / 1e3
    return Pace(max_step_s, _MIN_PROMPT_TOKENS[device], limits.max_batch_tokens)


def _warm_up(runner: ModelRunner, limits: Limits, pace: Pace, *, has_prompt_logprobs: bool) -> None:
    """Run the largest step once, so that its memory is proven and its kernels are chosen.

    Prompt logprobs, where they may be asked for, want logits of every token. This step and one that
    decodes, the second of two, are the first that the pace learns from.
    """
    num_tokens = min(limits.max_batch_tokens, limits.max_input_tokens)
    num_decodes = min(2, limits.max_total_tokens - num_tokens)
    blocks = tuple(range(-(-(num_tokens + num_decodes) // limits.block_size)))
    logger.info("warming up with a step of %d tokens", num_tokens)
    join = Join(
        sequence_id=0,
        token_ids=(0,) * num_tokens,
        num_prompt_tokens=num_tokens,
        num_computed_tokens=0,
        blocks=blocks,
        params=SamplingParams(max_new_tokens=1 + num_decodes),
    )
    num_logits = num_tokens if has_prompt_logprobs else 1
    large = Batch(0, (), (join,), (RowWork(0, num_tokens, num_logits, True),))
    pace.add(_seconds(runner, large), 0, num_tokens)
    decode = Batch(0, (), (), (RowWork(0, 1, 1, True),))
    decode_s = [_seconds(runner, decode) for _ in range(num_decodes)]
    pace.add(decode_s[-1], 1, 0)
    runner.execute(Batch(0, (0,), (), ()))


def _seconds(runner: ModelRunner, batch: Batch) -> float:
    start = time.perf_counter()
    runner.execute(batch)
    return time.perf_counter() - start


def _ids(token_id: int | None) -> tuple[int, ...]:
    return () if token_id is None else (token_id,)


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
