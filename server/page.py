"""PageRoutes: the page a person opens, and the files it is made of; everything is read at start.

`GET /` is TGI's health route and stays it for every client that does not prefer HTML: load
balancers, curl and clients of TGI ask for anything or for JSON. Knows not what the page does.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath

from aiohttp import ETag, hdrs, web

from server.errors import ErrorType, Problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""What the page is made of, beside its HTML."""
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_WEIGHT = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it is sent."""

    body: bytes
    content_type: str
    etag: str

    def response(self, request: web.Request) -> web.Response:
        """Give the file, or only say that the client's copy is still right."""
        known = request.if_none_match or ()
        if any(tag.value in (self.etag, "*") for tag in known):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(
                body=self.body, content_type=self.content_type, charset="utf-8", headers=_HEADERS
            )
        response.etag = ETag(self.etag)
        return response


class PageRoutes:
    """Serves the page to browsers, and its files to anybody; none of it is secret."""

    def __init__(self, health: Handler) -> None:
        folder = files("server").joinpath("web")
        self._page = _file(folder.joinpath("index.html").read_bytes(), "text/html")
        self._files = {
            item.name: _file(item.read_bytes(), TYPES[PurePath(item.name).suffix])
            for item in folder.iterdir()
            if PurePath(item.name).suffix in TYPES
        }
        self._health = health

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Give browsers the page and everybody else TGI's health answer."""
        is_get = request.method == hdrs.METH_GET
        if is_get and prefers_html(request.headers.getall(hdrs.ACCEPT, ())):
            response: web.StreamResponse = self._page.response(request)
        else:
            response = await self._health(request)
        response.headers[hdrs.VARY] = "accept"
        return response

    async def file(self, request: web.Request) -> web.Response:
        """Give one of the files, by its name alone."""
        name = request.match_info["name"]
        if name not in self._files:
            raise Problem(ErrorType.NOT_FOUND, f"There is no route {request.path}")
        return self._files[name].response(request)


def prefers_html(accept: Iterable[str]) -> bool:
    """Tell whether `Accept` headers want HTML more than JSON; a tie is no wish for a page.

    https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1
    """
    ranges = [_range(item) for line in accept for item in line.split(",")]
    return _weight("text/html", ranges) > _weight("application/json", ranges)


def _range(item: str) -> tuple[str, float]:
    """Read one media range and its weight; a malformed weight accepts nothing."""
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    weights = [text[2:] for text in parameters if text.startswith("q=")]
    weight = weights[0] if weights else "1"
    return name, float(weight) if _WEIGHT.fullmatch(weight) else 0.0


def _weight(media: str, ranges: Iterable[tuple[str, float]]) -> float:
    """Return how much a type is wanted: what names it most closely counts."""
    weights = dict(ranges)
    family = media.partition("/")[0]
    for name in (media, f"{family}/*", "*/*"):
        if name in weights:
            return weights[name]
    return 0.0


def _file(body: bytes, content_type: str) -> _File:
    return _File(body, content_type, sha256(body).hexdigest()[:32])
