"""How log lines look, as text and as JSON, and that nothing a client sends can forge one.

A record may carry fields beside its message, in one way only:

    logger.info("model loaded", extra={"fields": {"model": name, "seconds": 4.2}})

Text: `2026-01-01T12:00:00.000Z INFO server.app: model loaded model=m seconds=4.2`
JSON: one object a line, with these keys always: timestamp, level, target, message, fields,
exception (null but for a traceback).
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

OURS = ("server", "engine")
"""Loggers that follow the chosen level; others speak from warnings upwards."""

_BARE = re.compile(r"[\w./:+-]+", re.ASCII)

_requests = logging.getLogger("server.requests")


def configure(is_json: bool, level: str) -> None:
    """Send all log lines to standard output in one form; may be called again."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    number = getattr(logging, level.upper())
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """One line a record; a traceback follows it, each of its lines indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the line with everything in it escaped that could end or repaint it."""
        fields = "".join(
            f" {name}={_word(value)}"
            for name, value in _fields(record).items()
            if value is not None
        )
        head = f"{_timestamp(record)} {record.levelname} {record.name}: {record.getMessage()}"
        lines = [escape(head + fields)]
        lines += ["    " + escape(line) for line in _traceback(record).split("\n") if line]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One ASCII object a line, a traceback inside it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the object; JSON's own escapes keep it on its line."""
        line = {
            "timestamp": _timestamp(record),
            "level": record.levelname,
            "target": record.name,
            "message": record.getMessage(),
            "fields": {name: _finite(value) for name, value in _fields(record).items()},
            "exception": _traceback(record) or None,
        }
        return json.dumps(line, ensure_ascii=True, default=str)


def escape(text: str) -> str:
    r"""Put `\n`, `\x1b`, `\u2028` and the like for all that is not printable."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One finished request with all its numbers; milliseconds, tokens, and no text of anybody."""

    request_id: str
    route: str
    status: int
    reasons: tuple[str, ...] = ()
    """One finish reason for each sequence, or the error type of a refusal."""
    is_stream: bool = False
    is_client_gone: bool = False
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_values: int | None = None
    """What a published generator has yielded."""
    validation_ms: float | None = None
    queue_ms: float | None = None
    inference_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float


def log_request(record: RequestRecord, fault: BaseException | None = None) -> None:
    """Write the request's one line: a warning where the fault was ours, else for information.

    A `fault` is an exception of the operator's own code; its traceback goes with the line.
    """
    fields = {name: _short(value) for name, value in asdict(record).items()}
    fields["reasons"] = ",".join(record.reasons)
    fields["tokens_per_second"] = _rate(record.num_generated_tokens, record.inference_ms)
    level = logging.WARNING if record.status >= 500 or fault is not None else logging.INFO
    _requests.log(level, "request finished", extra={"fields": fields}, exc_info=fault)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _traceback(record: logging.LogRecord) -> str:
    parts = [record.stack_info] if record.stack_info else []
    if record.exc_info:
        parts.insert(0, logging.Formatter().formatException(record.exc_info))
    return "\n".join(parts)


def _word(value: Any) -> str:
    """Write a value so that it ends where it seems to end."""
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _rate(num_tokens: int, duration_ms: float | None) -> float | None:
    return round(num_tokens * 1000.0 / duration_ms, 2) if duration_ms else None
