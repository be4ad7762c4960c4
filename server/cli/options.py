"""The table of `millrace serve`'s options: TGI's flags, what we do with each, and our own.

The command, its help and the README are made from it. Names and defaults are those of TGI's
launcher: https://github.com/huggingface/text-generation-inference/blob/db931fcf/launcher/src/main.rs
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from server.cli.option import Adapters, Group, LogLevel, Option, Plan
from server.dialects.tools.formats import REASONING_PARSERS, TOOL_PARSERS


def _section(group: Group, *options: Option) -> tuple[Option, ...]:
    return tuple(replace(option, group=group) for option in options)


def _accepted(name: str, kind: Any, help: str, because: str) -> Option:
    no = (False,) if kind is bool else ()
    return Option(name, kind, "", help, plan=Plan.ACCEPTED, because=because, harmless=no)


def _refused(name: str, kind: Any, help: str, because: str, **rest: Any) -> Option:
    return Option(name, kind, "", help, plan=Plan.REFUSED, because=because, **rest)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DTYPES = click.Choice(("auto", "bfloat16", "float16", "float32"))
_QUANTIZE = click.Choice(("int8",))
_DEVICES = click.Choice(("auto", "cpu", "cuda"))
_SAGEMAKER_TRUST = ("HF_MODEL_TRUST_REMOTE_CODE",)

OPTIONS = (
    *_section(
        Group.MODEL,
        Option(
            "--model-id",
            str,
            "engine.model",
            "A directory, or a hub id.",
            default="the built-in model",
            more_env=("HF_MODEL_ID",),
        ),
        Option(
            "--revision",
            str,
            "engine.revision",
            "Branch, tag or commit on the hub.",
            more_env=("HF_MODEL_REVISION",),
        ),
        Option("--device", _DEVICES, "engine.device", "Where the model runs."),
        Option(
            "--dtype",
            _DTYPES,
            "engine.dtype",
            "Type of weights (unless --quantize changes it) and cache.",
        ),
        Option(
            "--trust-remote-code",
            bool,
            "engine.trust_remote_code",
            "Run code that comes with the model.",
            more_env=_SAGEMAKER_TRUST,
        ),
        Option(
            "--tokenizer-config-path",
            _FILE,
            "engine.chat_template_path",
            "A tokenizer_config.json whose chat_template replaces the model's.",
        ),
        Option(
            "--huggingface-hub-cache",
            click.Path(file_okay=False, path_type=Path),
            "engine.cache_dir",
            "Where downloads from the hub are kept.",
            default="the hub library's",
        ),
        Option(
            "--served-model-name",
            str,
            "server.served_model_name",
            "The model's name in answers.",
            default="the model id",
        ),
        Option(
            "--tool-call-parser",
            click.Choice(TOOL_PARSERS),
            "server.tool_call_parser",
            "How the model writes calls of tools; none: it makes none.",
            default="auto, by its chat template",
        ),
        Option(
            "--reasoning-parser",
            click.Choice(REASONING_PARSERS),
            "server.reasoning_parser",
            "How the model writes what it thinks, which chat answers give apart; none: it is text.",
            default="auto, by its chat template",
        ),
        Option(
            "--lora-adapters",
            Adapters(),
            "engine.lora_adapters",
            "LoRA adapters that requests may name, with commas between them: each a directory or "
            "a hub id, as NAME=PATH or with its path for a name, @REVISION behind it.",
            default="none",
        ),
        Option(
            "--ignore-unknown-adapters",
            bool,
            "server.is_unknown_adapter_ignored",
            "Answer by the base model where a request names an adapter that is not loaded, as TGI "
            "does, instead of refusing it.",
        ),
        Option(
            "--generator",
            str,
            "server.generators",
            "A generator function of yours, as package.module:function, to publish at "
            "/generators/NAME; may be repeated.",
            default="two examples with the built-in model, else none",
            is_repeatable=True,
        ),
    ),
    *_section(
        Group.LIMITS,
        Option(
            "--max-concurrent-requests",
            int,
            "server.max_concurrent_requests",
            "Sequences taken in at a time, waiting or running; above it 429.",
        ),
        Option("--max-best-of", int, "server.max_best_of", "Largest best_of of a request."),
        Option(
            "--max-stop-sequences", int, "server.max_stop_sequences", "Stop strings of a request."
        ),
        Option(
            "--max-top-n-tokens",
            int,
            "server.max_top_n_tokens",
            "Largest top_n_tokens of a request.",
        ),
        Option(
            "--max-client-batch-size",
            int,
            "server.max_client_batch_size",
            "Prompts of one completions call.",
        ),
        Option(
            "--payload-limit", int, "server.payload_limit_bytes", "Bytes of one request's body."
        ),
        Option(
            "--max-input-tokens",
            int,
            "engine.max_input_tokens",
            "Tokens of a prompt.",
            default="what fits, less one",
        ),
        Option(
            "--max-input-length",
            int,
            "engine.max_input_tokens",
            "Old name of --max-input-tokens; give only one of them.",
        ),
        Option(
            "--max-total-tokens",
            int,
            "engine.max_total_tokens",
            "Tokens of a prompt and its answer.",
            default="worked out at load",
        ),
        Option(
            "--max-queue-size",
            int,
            "engine.max_waiting",
            "Sequences in the waiting room.",
            default="--max-concurrent-requests",
        ),
        Option(
            "--max-queue-tokens",
            int,
            "engine.max_waiting_tokens",
            "Prompt tokens in the waiting room.",
        ),
        Option(
            "--max-queue-time",
            float,
            "engine.max_queue_s",
            "Seconds a sequence may wait before it is refused as overloaded.",
            default="no limit",
        ),
        Option(
            "--disable-grammar-support",
            bool,
            "engine.is_grammar_disabled",
            "Refuse grammars and response formats.",
        ),
        Option(
            "--enable-prefill-logprobs",
            bool,
            "server.is_prompt_logprobs_enabled engine.is_prompt_logprobs_enabled",
            "Give the prompt's logprobs to those who ask for them.",
        ),
    ),
    *_section(
        Group.BATCHING,
        Option("--max-batch-size", int, "engine.max_batch_size", "Sequences of one step."),
        Option(
            "--max-batch-prefill-tokens",
            int,
            "engine.max_batch_tokens",
            "Tokens of one step at most, prefill and decode together; how many of them are "
            "prompts' follows --max-inter-token-latency.",
            default="512 on a CPU, 2048 on a GPU",
        ),
        Option(
            "--max-inter-token-latency",
            float,
            "engine.max_inter_token_ms",
            "Milliseconds between two tokens of a stream that prompts may cause: a longer prompt "
            "enters in pieces, so that the steps it shares with streams take no longer.",
            default="1.75 times a step without prompts where one prompt enters, "
            "2.5 times where several do",
        ),
        Option(
            "--max-batch-total-tokens",
            int,
            "engine.max_cache_tokens",
            "Tokens the KV cache holds.",
            default="worked out from free memory",
        ),
        Option(
            "--memory-fraction",
            float,
            "engine.memory_fraction",
            "Share of the free memory that the KV cache may take.",
        ),
        Option(
            "--cuda-memory-fraction",
            float,
            "engine.memory_fraction",
            "The same, on a GPU only, by TGI's name; give only one of them. 1.0 asks for nothing.",
            default="--memory-fraction's",
        ),
        Option("--block-size", int, "engine.block_size", "Tokens of one block of the KV cache."),
        Option(
            "--prefix-caching",
            bool,
            "engine.is_prefix_caching",
            "Compute a prompt's known beginning only once.",
            off="--no-prefix-caching",
        ),
        Option(
            "--speculate",
            int,
            "engine.max_drafts",
            "Tokens of each sequence that a step may guess ahead, from what followed the same "
            "tokens before; the answer stays the same, and text that repeats itself comes faster.",
        ),
        Option(
            "--num-threads",
            int,
            "engine.num_threads",
            "Threads of the forward pass on a CPU.",
            default="the usable cores",
        ),
        Option(
            "--quantize",
            _QUANTIZE,
            "engine.quantize",
            "Weights of 8 bits, one scale a column; for Llama-like models on a CPU.",
            default="none",
            more_env=("HF_MODEL_QUANTIZE",),
        ),
        Option(
            "--kernels",
            bool,
            "engine.has_kernels",
            "Use the C++ kernels where they were built and the CPU has what they need.",
            off="--no-kernels",
        ),
        Option(
            "--validation-workers",
            int,
            "engine.num_tokenizer_workers",
            "Threads that turn prompts into tokens.",
        ),
        Option(
            "--watermark-gamma",
            float,
            "engine.watermark_gamma",
            "Share of green words of a watermark.",
        ),
        Option(
            "--watermark-delta", float, "engine.watermark_delta", "What a green word's logit gains."
        ),
    ),
    *_section(
        Group.NETWORK,
        Option(
            "--hostname",
            str,
            "server.hostname",
            "IP address to listen on, or localhost; other names in the environment are ignored.",
        ),
        Option("--port", int, "server.port", "Port to listen on; 0 takes a free one.", short="-p"),
        Option(
            "--cors-allow-origin",
            str,
            "server.cors_allow_origin",
            "Origin that browsers may call from; may be repeated.",
            default="any",
            is_repeatable=True,
        ),
        Option(
            "--events",
            bool,
            "server.is_events",
            "Tell at /events what the server is doing; the page's live view needs it.",
            off="--no-events",
        ),
        Option(
            "--web",
            bool,
            "server.is_web",
            "Give browsers a page at /: playground, side by side, live view.",
            off="--no-web",
        ),
        Option("--demo", bool, "server.is_demo", "Run the Gradio app as well; /demo leads there."),
        Option("--demo-port", int, "server.demo_port", "Port of the Gradio app."),
        Option(
            "--compute-type",
            str,
            "server.compute_type",
            "What the header x-compute-type says.",
            default="the device",
        ),
    ),
    *_section(
        Group.SECURITY,
        Option(
            "--api-key",
            str,
            "server.api_keys",
            "Key that opens the generation routes; may be repeated. Safer in the environment, "
            "where spaces separate several.",
            default="open to all",
            is_repeatable=True,
        ),
    ),
    *_section(
        Group.LOGS,
        Option("--log-level", LogLevel(), "server.log_level", "debug, info, warning or error."),
        Option("--json-output", bool, "server.is_json_output", "Log one JSON object a line."),
        Option(
            "--graceful-termination-timeout",
            float,
            "server.graceful_termination_timeout_s",
            "Seconds that running requests may go on after a stop signal.",
            short="-g",
        ),
        Option(
            "--env", bool, "", "Print versions and machine, and leave.", short="-e", has_env=False
        ),
    ),
    *_section(
        Group.TGI,
        _accepted(
            "--waiting-served-ratio",
            float,
            "When waiting requests interrupt running ones.",
            "waiting requests join at the next step and interrupt nobody",
        ),
        _accepted(
            "--max-waiting-tokens",
            int,
            "Decode steps before a prefill is forced.",
            "waiting requests join at the next step; --max-queue-tokens bounds the waiting room",
        ),
        _accepted("--cuda-graphs", str, "Batch sizes to capture.", "no CUDA graphs are captured"),
        _accepted(
            "--disable-custom-kernels",
            bool,
            "Leave out special kernels.",
            "--no-kernels leaves ours out",
        ),
        _accepted(
            "--prometheus-port",
            int,
            "Second port for metrics.",
            "/metrics is on the main port and no other port is opened",
        ),
        _accepted("--otlp-endpoint", str, "Where to send traces.", "no traces are sent"),
        _accepted("--otlp-service-name", str, "Name in traces.", "no traces are sent"),
        _accepted(
            "--usage-stats", str, "Telemetry to Hugging Face.", "usage statistics are never sent"
        ),
        _accepted(
            "--weights-cache-override",
            str,
            "Directory with weights.",
            "name a directory with --model-id, or the cache with --huggingface-hub-cache",
        ),
        _accepted("--shard-uds-path", str, "Sockets of shards.", "there are no shards"),
        _accepted("--master-addr", str, "Address of shards.", "there are no shards"),
        _accepted("--master-port", int, "Port of shards.", "there are no shards"),
        _accepted("--ngrok-authtoken", str, "Account for a tunnel.", "no tunnel is opened"),
        _accepted("--ngrok-edge", str, "Edge of a tunnel.", "no tunnel is opened"),
        _refused(
            "--ngrok",
            bool,
            "Open a tunnel.",
            "no tunnel is opened; put a proxy in front instead",
            harmless=(False,),
        ),
        _refused(
            "--sharded",
            click.BOOL,
            "Split the model over devices.",
            "a model runs on one device; start one server a device behind a balancer instead",
            harmless=(False,),
        ),
        _refused(
            "--num-shard",
            int,
            "Devices to split over.",
            "a model runs on one device; start one server a device behind a balancer instead",
            harmless=(0, 1),
            more_env=("SM_NUM_GPUS",),
        ),
        _refused(
            "--kv-cache-dtype",
            str,
            "Type of the KV cache.",
            "the cache has the type of --dtype; bound it with --max-batch-total-tokens instead",
            harmless=("auto",),
        ),
        _refused(
            "--rope-scaling",
            str,
            "Stretch positions.",
            "positions are scaled only as the model's own config.json says; set rope_scaling there",
        ),
        _refused(
            "--rope-factor",
            float,
            "Factor of --rope-scaling.",
            "positions are scaled only as the model's own config.json says; set rope_scaling there",
            harmless=(1.0,),
        ),
    ),
)
