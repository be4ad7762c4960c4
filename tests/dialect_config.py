"""The limits that dialect tests share: TGI's defaults, over a small context."""

from typing import Any

from server.dialects.call import DialectConfig

DEFAULTS: dict[str, Any] = {
    "model_id": "org/m",
    "vocab_size": 32_000,
    "max_best_of": 2,
    "max_choices": 16,
    "max_stop_sequences": 4,
    "max_top_n_tokens": 5,
    "max_client_batch_size": 4,
    "max_input_tokens": 1023,
    "max_total_tokens": 1024,
    "is_prompt_logprobs_enabled": False,
    "is_full_text_default": False,
}


def dialect_config(**changes: Any) -> DialectConfig:
    """Give a configuration with some limits changed."""
    return DialectConfig(**DEFAULTS | changes)
