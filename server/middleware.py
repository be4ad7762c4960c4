"""What holds for every route: CORS, API keys, request ids, and problems told as JSON."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from server.config import ServerConfig
from server.dialects.call import Dialect
from server.errors import ErrorType, Problem
from server.exchange import label_of
from server.generate import problem_response
from server.keys import Keys

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_EXPOSED = (
    "Retry-After, x-request-id, x-compute-type, x-compute-time, x-compute-characters, "
    "x-total-time, x-validation-time, x-queue-time, x-inference-time, x-time-per-token, "
    "x-prompt-tokens, x-generated-tokens, x-prefill"
)
ANTHROPIC = "/v1/messages"
"""How the paths of Anthropic's routes begin, where a key may stand in a header of its own."""
_OWN_KEY = "x-api-key"
_VARIES = ("origin", "access-control-request-method", "access-control-request-headers")


def allow_origins(
    config: ServerConfig, is_draining: Callable[[], bool]
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Give the signal that completes every response's headers, streams included."""
    allowed = frozenset(config.cors_allow_origin)

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Vary"] = ", ".join([*headers.getall("Vary", ()), *_VARIES])
        origin = request.headers.get("Origin")
        if not allowed:
            headers["Access-Control-Allow-Origin"] = "*"
        elif origin in allowed:
            headers["Access-Control-Allow-Origin"] = origin
        if origin is not None:
            headers["Access-Control-Expose-Headers"] = _EXPOSED
        if (label := label_of(request)) is not None:
            headers["x-request-id"] = label
        if is_draining():
            response.force_close()
            headers[hdrs.CONNECTION] = "close"  # aiohttp has settled this header by now

    return prepare


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer any OPTIONS request: browsers ask before they send a key or JSON."""
    if request.method != hdrs.METH_OPTIONS:
        return await handler(request)
    asked = request.headers.get("Access-Control-Request-Headers", "authorization,content-type")
    return web.Response(
        headers={
            "Access-Control-Allow-Methods": "GET,POST",
            "Access-Control-Allow-Headers": asked,
        }
    )


def answer_problems(dialects: Mapping[str, Dialect]) -> Middleware:
    """Give the middleware that phrases a Problem, and aiohttp's own refusals, for the route.

    Of the paths that `dialects` names by their beginning, the first that fits counts.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        fitting = (path for path in dialects if request.path.startswith(path))
        dialect = dialects[next(fitting)]
        try:
            return await handler(request)
        except Problem as problem:
            return problem_response(dialect.problem(problem), problem)
        except web.HTTPNotFound:
            unknown = Problem(ErrorType.NOT_FOUND, f"There is no route {request.path}")
            return problem_response(dialect.problem(unknown), unknown)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{request.method} is not allowed on {request.path}, use {allowed}"
            wrong = Problem(ErrorType.VALIDATION, message, status_override=405)
            response = problem_response(dialect.problem(wrong), wrong)
            response.headers[hdrs.ALLOW] = allowed
            return response

    return middleware


def check_keys(keys: Keys, public_routes: Collection[tuple[str, str]]) -> Middleware:
    """Give the middleware that asks for a key on every matched route that is not public."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else None
        is_public = path is None or (request.method, path) in public_routes
        has_own = path is not None and path.startswith(ANTHROPIC)
        own = request.headers.get(_OWN_KEY) if has_own else None
        if is_public or keys.admits(request.headers.get(hdrs.AUTHORIZATION), own):
            return await handler(request)
        hint = f" or `{_OWN_KEY}: <key>`" if has_own else ""
        raise Problem(
            ErrorType.AUTHENTICATION,
            f"A valid API key is needed: send `Authorization: Bearer <key>`{hint}",
        )

    return middleware
