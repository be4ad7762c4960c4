import dataclasses
import math

import pytest

from engine.config import AdapterSource, EngineConfig
from engine.errors import LoadError

COUNTS = [
    "num_threads",
    "max_batch_size",
    "max_batch_tokens",
    "max_cache_tokens",
    "block_size",
    "max_waiting_tokens",
    "max_input_tokens",
    "max_total_tokens",
    "num_tokenizer_workers",
]
OPTIONAL = {
    "num_threads",
    "max_batch_tokens",
    "max_cache_tokens",
    "max_input_tokens",
    "max_total_tokens",
    "max_queue_s",
    "max_inter_token_ms",
}


def build(**changes):
    return EngineConfig(**{"model": "m", "max_batch_size": 1, **changes})


@pytest.mark.parametrize("field", COUNTS)
def test_a_count_is_at_least_one(field):
    assert getattr(build(**{field: 1}), field) == 1
    for value in (0, -1):
        with pytest.raises(LoadError, match=f"^{field} must be at least 1. Given: {value}$"):
            build(**{field: value})


@pytest.mark.parametrize("field", sorted(OPTIONAL))
def test_what_may_be_found_out_at_load_may_be_none(field):
    assert getattr(build(**{field: None}), field) is None


def test_nobody_may_have_to_wait_but_no_fewer():
    for field in ("max_waiting", "max_drafts"):
        assert getattr(build(**{field: 0}), field) == 0
        with pytest.raises(LoadError, match=f"^{field} must not be negative. Given: -1$"):
            build(**{field: -1})


@pytest.mark.parametrize("value", [5e-324, 0.5, 1.0])
def test_a_share_of_memory_is_above_zero_and_at_most_one(value):
    assert build(memory_fraction=value).memory_fraction == value


@pytest.mark.parametrize("value", [0.0, -0.1, math.nextafter(1.0, 2.0), math.inf, math.nan])
def test_another_share_of_memory_is_refused(value):
    with pytest.raises(LoadError, match=r"^memory_fraction must be above 0"):
        build(memory_fraction=value)


def test_the_budget_of_a_step_holds_a_token_of_each_row():
    assert build(max_batch_tokens=8, max_batch_size=8).max_batch_tokens == 8
    with pytest.raises(LoadError, match=r"\(7\) must hold at least one token of each row \(8\)"):
        build(max_batch_tokens=7, max_batch_size=8)


def test_a_prompt_leaves_room_for_a_token():
    assert build(max_input_tokens=9, max_total_tokens=10).max_total_tokens == 10
    for value in (10, 11):
        with pytest.raises(LoadError, match=rf"\({value}\) must be below max_total_tokens \(10\)"):
            build(max_input_tokens=value, max_total_tokens=10)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_on_waiting_is_above_zero(value):
    assert build(max_queue_s=0.5).max_queue_s == 0.5
    with pytest.raises(LoadError, match="max_queue_s"):
        build(max_queue_s=value)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("dtype", "fp16", "must be one of auto, bfloat16, float16, float32"),
        ("device", "gpu", "must be one of auto, cpu, cuda"),
        ("watermark_gamma", 0.0, "must be above 0 and below 1"),
        ("watermark_gamma", 1.0, "must be above 0 and below 1"),
        ("watermark_gamma", math.nan, "must be above 0 and below 1"),
        ("watermark_delta", math.inf, "must be finite"),
        ("quantize", "int4", "must be int8"),
    ],
)
def test_what_means_nothing_is_refused_by_name(field, value, rule):
    with pytest.raises(LoadError, match=rf"^{field} {rule}\. Given: {value}$"):
        build(**{field: value})


def test_the_defaults_are_sound():
    config = EngineConfig(model="m")
    assert config.max_batch_size >= 1
    assert config.is_prefix_caching


def test_a_configuration_is_frozen_and_given_by_name():
    with pytest.raises(dataclasses.FrozenInstanceError):
        build().model = "n"
    with pytest.raises(TypeError):
        EngineConfig("m")


def test_two_adapters_of_one_name_are_refused():
    sources = (AdapterSource("a", "x"), AdapterSource("b", "x"), AdapterSource("a", "y"))
    assert build(lora_adapters=sources[:2]).lora_adapters == sources[:2]
    with pytest.raises(LoadError, match=r"^lora_adapters names a more than once$"):
        build(lora_adapters=sources)
