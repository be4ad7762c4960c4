"""Names of calls, by which their results find them."""

import secrets
import string

_CHARS = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Name a call; Mistral's templates take nothing but nine letters and digits."""
    return "".join(secrets.choice(_CHARS) for _ in range(9))
