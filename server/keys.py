"""Keys: who may call the routes that are not public."""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest


class Keys:
    """The API keys of this server; without any, every caller may come in."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def admits(self, authorization: str | None, api_key: str | None = None) -> bool:
        """Check an `Authorization` header, or a key that stands in a header of its own.

        Takes as long for a wrong key as for a right one. Keys are compared exactly (TGI ignores
        case), the scheme's case does not matter.
        """
        if not self._digests:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if self._knows(token.strip()) and scheme.lower() == "bearer":
            return True
        return api_key is not None and self._knows(api_key.strip())

    def _knows(self, key: str) -> bool:
        given = _digest(key)
        is_known = False
        for digest in self._digests:
            is_known |= compare_digest(digest, given)
        return is_known


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
