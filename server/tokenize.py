"""TokenizeRoutes: `/tokenize` and `/chat_tokenize`; no permit and no step, only the tokenizer."""

from aiohttp import web

from engine import Engine, RequestError
from server.body import read_body
from server.dialects import tokenize
from server.dialects.call import ChatPrompt
from server.errors import from_engine


class TokenizeRoutes:
    """Encodes without generating."""

    def __init__(self, engine: Engine, payload_limit_bytes: int) -> None:
        self._engine = engine
        self._payload_limit_bytes = payload_limit_bytes

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer `inputs` with ids, texts and offsets, `prompt` or `messages` with ids."""
        call = tokenize.parse(await read_body(request, self._payload_limit_bytes))
        if isinstance(call.prompt, ChatPrompt):
            try:
                ids = await self._engine.encode_chat(
                    call.prompt.messages, is_continued=call.prompt.is_continued
                )
            except RequestError as error:
                raise from_engine(error, retry_after_s=1) from error
            return _json(tokenize.ids_body(ids))
        if call.has_spans:
            spans = await self._engine.spans(call.prompt, add_special_tokens=True)
            return _json(tokenize.spans_body(spans))
        return _json(tokenize.ids_body(await self._engine.encode(call.prompt)))

    async def chat_tokenize(self, request: web.Request) -> web.Response:
        """Answer with the rendered chat and its tokens."""
        prompt = tokenize.parse_chat(await read_body(request, self._payload_limit_bytes))
        try:
            text = await self._engine.render_chat(prompt.messages, is_continued=prompt.is_continued)
        except RequestError as error:
            raise from_engine(error, retry_after_s=1) from error
        spans = await self._engine.spans(text, add_special_tokens=False)
        return _json(tokenize.chat_body(spans, text))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
