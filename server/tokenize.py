"""TokenizeRoutes: text to ids, ids to text, and counts; no permit, no step: only the tokenizer."""

from aiohttp import web

from engine import Engine, EngineError
from server.body import read_body
from server.dialects import messages, messages_reply, tokenize
from server.dialects.call import ChatPrompt, DialectConfig
from server.errors import from_engine


class TokenizeRoutes:
    """Encodes and decodes without generating."""

    def __init__(self, engine: Engine, dialect: DialectConfig, payload_limit_bytes: int) -> None:
        self._engine = engine
        self._dialect = dialect
        self._payload_limit_bytes = payload_limit_bytes

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer `inputs` with ids, texts and offsets, `prompt` or `messages` with ids."""
        body = await read_body(request, self._payload_limit_bytes)
        call = tokenize.parse(self._dialect, body)
        if isinstance(call.prompt, ChatPrompt):
            return _json(tokenize.ids_body(await self._chat_ids(call.prompt)))
        if call.has_spans:
            spans = await self._engine.spans(call.prompt, add_special_tokens=True)
            return _json(tokenize.spans_body(spans))
        return _json(tokenize.ids_body(await self._engine.encode(call.prompt)))

    async def chat_tokenize(self, request: web.Request) -> web.Response:
        """Answer with the rendered chat and its tokens."""
        prompt = tokenize.parse_chat(await read_body(request, self._payload_limit_bytes))
        try:
            text = await self._engine.render_chat(prompt.chat())
        except EngineError as error:
            raise from_engine(error, retry_after_s=1) from error
        spans = await self._engine.spans(text, add_special_tokens=False)
        return _json(tokenize.chat_body(spans, text))

    async def count_message_tokens(self, request: web.Request) -> web.Response:
        """Answer with the number of tokens that `/v1/messages` would read."""
        body = await read_body(request, self._payload_limit_bytes)
        prompt = messages.parse_count(self._dialect, body)
        return _json(messages_reply.count_body(len(await self._chat_ids(prompt))))

    async def detokenize(self, request: web.Request) -> web.Response:
        """Answer with the text of token ids."""
        body = await read_body(request, self._payload_limit_bytes)
        ids = tokenize.parse_ids(self._dialect, body)
        return _json(tokenize.text_body(await self._engine.decode(ids)))

    async def _chat_ids(self, prompt: ChatPrompt) -> list[int]:
        try:
            return await self._engine.encode_chat(prompt.chat())
        except EngineError as error:
            raise from_engine(error, retry_after_s=1) from error


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
