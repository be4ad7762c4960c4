"""Model: a server that generates, asked through huggingface_hub; works with any server that is TGI.

Knows nothing of Gradio. Whoever closes one of its generators closes the connection to the server,
which frees the place there. Raises huggingface_hub's errors; `server.demo.problems` has the words.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import AsyncInferenceClient, TextGenerationStreamOutput


@dataclass(frozen=True, slots=True)
class Model:
    """Where the server is, and the key it asks for."""

    url: str
    key: str | None = field(default=None, repr=False)

    async def tokens(
        self, prompt: str, **parameters: Any
    ) -> AsyncGenerator[TextGenerationStreamOutput, None]:
        """Stream the tokens of a completion, each with its logprob."""
        async with self._client() as client:
            stream: Any = await client.text_generation(
                prompt, stream=True, details=True, **parameters
            )
            async with aclosing(stream):
                async for token in stream:
                    yield token

    async def whole(self, prompt: str, **parameters: Any) -> str:
        """Wait for a completion and give all of it at once."""
        async with self._client() as client:
            text = await client.text_generation(prompt, return_full_text=False, **parameters)
            return str(text).lstrip()

    async def reply(
        self, messages: list[dict[str, str]], **parameters: Any
    ) -> AsyncGenerator[str, None]:
        """Stream the pieces of text that answer a chat."""
        async with self._client() as client:
            stream: Any = await client.chat_completion(messages, stream=True, **parameters)
            async with aclosing(stream):
                async for chunk in stream:
                    if chunk.choices:
                        yield chunk.choices[0].delta.content or ""

    def _client(self) -> AsyncInferenceClient:
        """Give a client for one call: it keeps what it has opened until it is closed."""
        # without a token it would send the one that the person has for the hub
        return AsyncInferenceClient(self.url, token=self.key or "-")
