"""A server that follows no grammars refuses them on every route, and never answers without."""

import pytest
from in_process import in_process
from raw_http import call

GRAMMAR = {"type": "regex", "value": "a"}
CHAT = {"messages": [{"role": "user", "content": "A"}]}
ASKED = [
    ("/", {"inputs": "A", "parameters": {"grammar": GRAMMAR}}),
    ("/generate", {"inputs": "A", "parameters": {"grammar": GRAMMAR}}),
    ("/generate_stream", {"inputs": "A", "parameters": {"grammar": GRAMMAR}}),
    ("/invocations", {"inputs": "A", "parameters": {"grammar": GRAMMAR}}),
    ("/vertex", {"instances": [{"inputs": "A", "parameters": {"grammar": GRAMMAR}}]}),
    ("/v1/completions", {"prompt": "A", "grammar": GRAMMAR}),
    ("/v1/completions", {"prompt": "A", "stream": True, "response_format": GRAMMAR}),
    ("/v1/chat/completions", {**CHAT, "grammar": GRAMMAR}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
]


@pytest.mark.parametrize(("path", "body"), ASKED)
async def test_it_is_refused_and_nothing_is_held(path, body):
    async with in_process() as server:
        answer = await call(server.url, "POST", path, body)
        assert answer.status == 422
        assert answer.json()["error_type"] == "validation"
        assert "is not supported: this server follows no grammars" in answer.body.decode()
        assert not any(server.held().values())
        assert not server.runner.batches
