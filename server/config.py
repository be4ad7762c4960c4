"""ServerConfig: what the operator asks of the HTTP side.

Frozen and checked once. Knows no flags and no environment: the command line does.
"""

import ipaddress
from dataclasses import dataclass

from server.dialects.tools.formats import AUTO, REASONING_PARSERS, TOOL_PARSERS

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class ConfigError(Exception):
    """The operator asked for what cannot be; the message names field, limit and value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How to listen, whom to let in, how much to take on; defaults are TGI's where it has one."""

    hostname: str = "0.0.0.0"
    """An IP address or localhost."""
    port: int = 3000
    """0 lets the system choose."""
    served_model_name: str | None = None
    """The name in answers and in `/v1/models`; by default the model's own id."""

    generators: tuple[str, ...] = ()
    """Functions to publish under `/generators/`, each as `package.module:function`."""

    max_concurrent_requests: int = 128
    """Permits: sequences that are being validated, waiting, running or written."""
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    """Prompts of one completions call."""
    payload_limit_bytes: int = 2_000_000
    """Size of one request's body."""
    is_prompt_logprobs_enabled: bool = False

    is_unknown_adapter_ignored: bool = False
    """Answer by the base model where an adapter is named that is not loaded, as TGI does."""

    tool_call_parser: str = AUTO
    """How the model writes calls of tools; auto tells it by its chat template."""
    reasoning_parser: str = AUTO
    """How the model writes thoughts; auto tells it by its chat template."""

    api_keys: tuple[str, ...] = ()
    """Any of them opens the generation routes; none means that they are open."""
    is_events: bool = True
    """Tell at `GET /events` what the server is doing."""
    is_web: bool = True
    """Give browsers the page at `GET /`."""
    is_demo: bool = False
    """Run the Gradio app beside the server."""
    demo_port: int = 7860
    cors_allow_origin: tuple[str, ...] = ()
    """Origins a browser may call from; none means any."""

    graceful_termination_timeout_s: float = 90.0
    """How long running requests may go on after a stop signal."""
    keep_alive_s: float = 15.0
    """Silence on a stream after which a comment is sent, so that proxies keep it open."""
    max_backlog_bytes: int = 1 << 20
    """Bytes that may wait for a reader who does not read."""
    max_stall_s: float = 30.0
    """How long a reader may make no progress before the connection is cut."""

    compute_type: str | None = None
    """The `x-compute-type` header; by default the device the model runs on."""
    is_json_output: bool = False
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Check every field; messages are for the operator."""
        self._check_numbers()
        self._check_words()

    def _check_numbers(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port must be between 0 and 65535. Given: {self.port}")
        if not 1 <= self.demo_port <= 65_535:
            raise ConfigError(f"demo_port must be between 1 and 65535. Given: {self.demo_port}")
        if self.is_demo and self.demo_port == self.port:
            raise ConfigError(
                f"demo_port must differ from the server's port. Given: {self.demo_port}"
            )
        for field, least in (
            ("max_concurrent_requests", 1),
            ("max_best_of", 1),
            ("max_stop_sequences", 0),
            ("max_top_n_tokens", 0),
            ("max_client_batch_size", 1),
            ("payload_limit_bytes", 1),
            ("max_backlog_bytes", 1),
            ("graceful_termination_timeout_s", 0),
        ):
            value = getattr(self, field)
            if not value >= least:  # so put, NaN is refused too
                raise ConfigError(f"{field} must be at least {least}. Given: {value}")
        for field in ("keep_alive_s", "max_stall_s"):
            value = getattr(self, field)
            if not value > 0:
                raise ConfigError(f"{field} must be above 0. Given: {value}")

    def _check_words(self) -> None:
        if not is_address(self.hostname):
            raise ConfigError(
                f"hostname must be an IP address or localhost. Given: {self.hostname!r}"
            )
        for field, known in (
            ("log_level", LOG_LEVELS),
            ("tool_call_parser", TOOL_PARSERS),
            ("reasoning_parser", REASONING_PARSERS),
        ):
            value = getattr(self, field)
            if value not in known:
                raise ConfigError(f"{field} must be one of {', '.join(known)}. Given: {value!r}")
        for number, key in enumerate(self.api_keys, start=1):
            if not _is_header_word(key) or "," in key:  # the key itself is not repeated here
                raise ConfigError(
                    "api_keys must be visible ASCII without spaces or commas, one key each time. "
                    f"Given: key {number} of {len(self.api_keys)} is not"
                )
        for origin in self.cors_allow_origin:
            if not _is_header_word(origin):
                raise ConfigError(
                    f"cors_allow_origin must be an origin such as https://a.example. "
                    f"Given: {origin!r}"
                )
        if self.compute_type is not None and not _is_header_word(self.compute_type):
            raise ConfigError(
                f"compute_type must be visible ASCII without spaces. Given: {self.compute_type!r}"
            )
        name = self.served_model_name
        if name is not None and not (name and name.isprintable()):
            raise ConfigError(f"served_model_name must be printable text. Given: {name!r}")


def is_address(hostname: str) -> bool:
    """Tell whether one can listen on it without asking a name server."""
    if hostname == "localhost":
        return True
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _is_header_word(text: str) -> bool:
    """Tell whether the text can be a header's value without being folded, split or trimmed."""
    return bool(text) and all("!" <= character <= "~" for character in text)
