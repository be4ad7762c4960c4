"""Reading a request's body: its type, its size, and nothing more."""

import re

from aiohttp import web

from server.errors import ErrorType, Problem

_JSON = re.compile(r"application/([\w.+-]+\+)?json", re.ASCII)


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Return the body; raises Problem 415 for another type than JSON, 413 above the limit."""
    if _JSON.fullmatch(request.content_type) is None:
        raise Problem(
            ErrorType.VALIDATION,
            "Expected request with `Content-Type: application/json`. "
            f"Given: {request.headers.get('Content-Type', 'none')!r}",
            status_override=415,
        )
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes, f"{request.content_length} bytes")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(limit_bytes, "more") from error


def _too_large(limit_bytes: int, given: str) -> Problem:
    return Problem(
        ErrorType.VALIDATION,
        f"The request's body must be at most {limit_bytes} bytes. Given: {given}",
        status_override=413,
    )
