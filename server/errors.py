"""Problem: an answer that is not a generation; the one table from error types to HTTP statuses.

Dialects only phrase a Problem in their own JSON; nobody else chooses a status. TGI's table:
https://github.com/huggingface/text-generation-inference/blob/db931fcf/router/src/server.rs
"""

from dataclasses import dataclass
from enum import StrEnum

import engine


class ErrorType(StrEnum):
    """The stable strings of `error_type`; clients raise by them."""

    OVERLOADED = "overloaded"
    VALIDATION = "validation"
    GENERATION = "generation"
    INCOMPLETE_GENERATION = "incomplete_generation"
    TEMPLATE_ERROR = "template_error"
    TOOL_ERROR = "tool_error"
    BATCH_SIZE_EXCEEDED = "batch size exceeded"
    SUFFIX_NOT_SUPPORTED = "suffix not supported"
    HEALTHCHECK = "healthcheck"
    AUTHENTICATION = "authentication"
    NOT_FOUND = "not_found"
    INTERNAL = "internal"


STATUS = {
    ErrorType.OVERLOADED: 429,
    ErrorType.VALIDATION: 422,
    ErrorType.GENERATION: 424,
    ErrorType.INCOMPLETE_GENERATION: 500,
    ErrorType.TEMPLATE_ERROR: 422,
    ErrorType.TOOL_ERROR: 422,
    ErrorType.BATCH_SIZE_EXCEEDED: 422,
    ErrorType.SUFFIX_NOT_SUPPORTED: 422,
    ErrorType.HEALTHCHECK: 503,
    ErrorType.AUTHENTICATION: 401,
    ErrorType.NOT_FOUND: 404,
    ErrorType.INTERNAL: 500,
}


@dataclass(eq=False)
class Problem(Exception):
    """Why a request gets no generation; `status` overrides the table for malformed bodies."""

    error_type: ErrorType
    message: str
    field: str | None = None
    """Name of the offending field, as the client wrote it."""
    status_override: int | None = None
    retry_after_s: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status, before the first byte of a stream."""
        return self.status_override or STATUS[self.error_type]


def invalid(message: str, field: str | None = None) -> Problem:
    """Phrase a value out of range as TGI does."""
    return Problem(ErrorType.VALIDATION, f"Input validation error: {message}", field)


def overloaded(retry_after_s: int) -> Problem:
    """Say that there is no room; clients match this very text."""
    return Problem(ErrorType.OVERLOADED, "Model is overloaded", retry_after_s=retry_after_s)


def from_engine(error: engine.EngineError, retry_after_s: int) -> Problem:
    """Translate what the engine raised."""
    match error:
        case engine.Overloaded() | engine.EngineStopped():
            return overloaded(retry_after_s)
        case engine.TemplateError():
            return Problem(ErrorType.TEMPLATE_ERROR, f"Template error: {error}")
        case engine.InvalidParameter():
            return invalid(str(error), error.field)
        case engine.RequestError():
            return invalid(str(error))
        case _:
            return Problem(ErrorType.GENERATION, f"Request failed during generation: {error}")
