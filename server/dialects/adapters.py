"""Which adapter a request is for: `adapter_id` names one, or a model's name on `/v1` does.

Clients send any name as `model`, so one that is no adapter's means the base model, unless it says
`adapter:`. https://huggingface.co/docs/text-generation-inference/conceptual/lora
"""

from server.dialects import ranges
from server.dialects.call import DialectConfig
from server.errors import ErrorType, Problem, invalid

_PREFIX = "adapter:"


def by_id(config: DialectConfig, adapter_id: str | None) -> str | None:
    """Return the adapter of this id, None for the base model; raises Problem."""
    if adapter_id is None or adapter_id in config.adapters:
        return adapter_id
    if config.is_unknown_adapter_ignored:
        return None
    known = ", ".join(config.adapters)
    rule = f"must be one of {known}" if known else "must be null, since no adapters are loaded"
    raise invalid(f"`adapter_id` {rule}. Given: {ranges.shown(adapter_id)}", "adapter_id")


def by_id_or_model(config: DialectConfig, adapter_id: str | None, model: str | None) -> str | None:
    """Return the adapter that either names, None for the base model; raises Problem."""
    named = _by_model(config, model)
    chosen = by_id(config, adapter_id)
    if named is not None and chosen not in (None, named):
        raise invalid(
            f"`adapter_id` and `model` name different adapters: {chosen}, {named}", "model"
        )
    return named if chosen is None else chosen


def missing(config: DialectConfig, model: str) -> Problem:
    """Say that there is no model of this name."""
    known = ", ".join(f"`{name}`" for name in (config.model_id, *config.adapters))
    message = f"The model `{ranges.shown(model)}` does not exist; this server has {known}"
    return Problem(ErrorType.NOT_FOUND, message, "model")


def _by_model(config: DialectConfig, model: str | None) -> str | None:
    if model is None:
        return None
    name = model.removeprefix(_PREFIX)
    if name in config.adapters:
        return name
    if name != model and not config.is_unknown_adapter_ignored:
        raise missing(config, model)
    return None
