"""`millrace serve`: from options to configurations, then to the server; the only file of `server`
that may reach past the engine's door.
"""

import errno
import gc
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import engine
from engine import Engine, EngineConfig, LoadError, Observer
from server import logs
from server.cli.command import CONFIGS, TableCommand
from server.cli.option import Option, Plan
from server.cli.options import OPTIONS
from server.cli.runtime import describe_runtime
from server.config import ConfigError, ServerConfig, is_address
from server.demo.extra import check_gradio

BUILT_IN_MODEL = Path(engine.__file__).parent / "demo"
BUILT_IN_NAME = "millrace-demo"
EXAMPLES = ("server.examples.count:count", "server.examples.diffusion:fake_diffusion")
"""What is published beside the built-in model, so that there is something to see."""

logger = logging.getLogger(__name__)

_BIND_ERRORS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


def configs_from(values: Mapping[str, Any]) -> tuple[ServerConfig, EngineConfig]:
    """Turn the options' values, by `Option.key`, into both configurations.

    What is None, () or absent was not given. Raises ConfigError, in a sentence with the flag in it.
    """
    given = _given(values)
    _refuse(given)
    fields = _fields(_without_idle_gpu_share(given))
    if "model" not in fields["engine"]:
        fields["engine"]["model"] = str(BUILT_IN_MODEL)
        fields["server"].setdefault("served_model_name", BUILT_IN_NAME)
        fields["server"].setdefault("generators", EXAMPLES)
    try:
        server = ServerConfig(**fields["server"])
        # As in TGI, permits alone bound the waiting room unless it is told otherwise.
        fields["engine"].setdefault("max_waiting", server.max_concurrent_requests)
        config = EngineConfig(**fields["engine"])
    except (ConfigError, LoadError) as error:
        raise ConfigError(_with_flags(str(error), given)) from error
    _check_room(config)
    _check_names(server.served_model_name or config.model, config)
    return server, config


def notices(values: Mapping[str, Any]) -> list[str]:
    """Give the one line for each option that is accepted without effect."""
    given = _given(values)
    lines = [
        f"{option.name} has no effect: {option.because}"
        for option in OPTIONS
        if option.plan is Plan.ACCEPTED and _is_asked(option, given)
    ]
    if given.get("device") == "cpu" and given.get("cuda_memory_fraction", 1.0) != 1.0:
        lines.append("--cuda-memory-fraction has no effect: the model runs on a CPU")
    return lines


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != ()}


def _is_asked(option: Option, given: Mapping[str, Any]) -> bool:
    """Tell whether the option was given with a value that would change something."""
    return option.key in given and given[option.key] not in option.harmless


def _refuse(given: Mapping[str, Any]) -> None:
    for option in OPTIONS:
        if option.plan is Plan.REFUSED and _is_asked(option, given):
            value = given[option.key]
            shown = option.name if value is True else f"{option.name} {value}"
            raise ConfigError(f"{shown} is refused: {option.because}")


def _fields(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort the given values by configuration and field; two flags for one field are an error."""
    fields: dict[str, dict[str, Any]] = {config: {} for config in CONFIGS}
    named: dict[tuple[str, str], str] = {}
    for option in OPTIONS:
        if option.key not in given:
            continue
        for config, field in option.fields:
            if (config, field) in named:
                raise ConfigError(
                    f"{named[config, field]} and {option.name} mean the same; give one of them"
                )
            named[config, field] = option.name
            fields[config][field] = given[option.key]
    if "*" in fields["server"].get("cors_allow_origin", ()):
        del fields["server"]["cors_allow_origin"]  # any origin, which is the default
    return fields


def _without_idle_gpu_share(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out a share of the GPU's memory where there is no GPU to share, or all of it is meant.

    Whether `--device auto` finds a GPU is known only after torch is loaded, so a share that might
    or might not count is refused.
    """
    share, device = given.get("cuda_memory_fraction", 1.0), given.get("device", "auto")
    if share != 1.0 and device == "cuda":
        return given
    if share != 1.0 and device == "auto":
        raise ConfigError(
            f"--cuda-memory-fraction {share} needs --device cuda; use --memory-fraction to bound "
            "the cache on any device"
        )
    return {key: value for key, value in given.items() if key != "cuda_memory_fraction"}


def _check_room(config: EngineConfig) -> None:
    """Check what TGI's launcher checks between flags, where the model is not needed for it."""
    cache, step = config.max_cache_tokens, config.max_batch_tokens
    for flag, value in (
        ("--max-batch-prefill-tokens", step),
        ("--max-total-tokens", config.max_total_tokens),
    ):
        if cache is not None and value is not None and value > cache:
            raise ConfigError(
                f"{flag} must be at most --max-batch-total-tokens ({cache}). Given: {value}"
            )
    if config.max_queue_s is not None and not config.max_queue_s > 0:
        raise ConfigError(f"--max-queue-time must be above 0. Given: {config.max_queue_s}")


def _check_names(model: str, config: EngineConfig) -> None:
    """See that a name in a request can only mean one model."""
    if model in [source.name for source in config.lora_adapters]:
        raise ConfigError(
            f"--lora-adapters must not use the model's own name; give NAME=PATH. Given: {model}"
        )


def _with_flags(sentence: str, given: Mapping[str, Any]) -> str:
    """Put flags for the field names of a configuration's sentence; of two flags the one given."""
    for option in sorted(OPTIONS, key=lambda option: option.key not in given):
        for _, field in option.fields:
            # A word such as "port" is a field's name only where the sentence begins with it.
            pattern = rf"\b{field}\b" if "_" in field else rf"^{field}\b"
            sentence = re.sub(pattern, option.name, sentence)
    return sentence


def _serve(**values: Any) -> None:
    """Run the command: print what hinders it in one sentence, leave with the server's code."""
    context = click.get_current_context()
    if values["env"]:
        click.echo(describe_runtime())
        return
    # Containers set HOSTNAME to a name of their own that nobody can listen on.
    is_from_env = context.get_parameter_source("hostname") is ParameterSource.ENVIRONMENT
    if is_from_env and not is_address(values["hostname"]):
        values["hostname"] = None
    try:
        server_config, engine_config = configs_from(values)
        if server_config.is_demo:
            check_gradio()
        logs.configure(server_config.is_json_output, server_config.log_level)
        for line in notices(values):
            logger.warning("%s", line)
        code = _run(server_config, engine_config)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    except LoadError as error:
        raise click.ClickException(_with_flags(str(error), _given(values))) from error
    except OSError as error:
        if error.errno not in _BIND_ERRORS or error.filename is not None:
            raise  # not about the port
        place = f"--hostname {server_config.hostname} --port {server_config.port}"
        raise click.ClickException(f"cannot listen on {place}: {error}") from error
    context.exit(code)


def _run(server_config: ServerConfig, engine_config: EngineConfig) -> int:
    """Run the server, whose imports are here and not above: --help should be quick."""
    with _no_collector():
        from server.serving import leave_at_once_on_a_signal, run

    def load(config: EngineConfig, observer: Observer) -> Engine:
        with _no_collector():  # it brings torch, when generators and port are known to be right
            from engine.load import load
        return load(config, observer)

    leave_at_once_on_a_signal()  # importing torch takes long
    return run(server_config, engine_config, load)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Look for no garbage among what is imported: all of it stays, and a fifth of the time goes."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


serve = TableCommand(
    "serve",
    OPTIONS,
    _serve,
    help="""Serve a language model over HTTP, to clients of TGI and of OpenAI.

    Without --model-id it serves the small model that comes with the package. Every option can
    also be set by the environment variable shown with it; the command line wins.
    """,
)
