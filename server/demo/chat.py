"""Chat: a conversation in `gr.ChatInterface`; its stop button closes the connection."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from server.demo.model import Model
from server.demo.patience import patiently
from server.demo.problems import told

_NOTICE = "\n\n⚠️ "
"""Between an answer and the reason why it is not whole; the model is not shown what follows."""

EXAMPLES = ["What is Millrace?", "How do you make cheese?", "Count from one to five."]


@dataclass(frozen=True, slots=True)
class Chat:
    """The tab `Chat` and its endpoint `/chat`."""

    model: Model

    async def chat(
        self,
        message: str,
        history: list[dict[str, Any]],
        request: gr.Request,
        max_tokens: int = 300,
        temperature: float = 0.0,
    ) -> AsyncGenerator[str, None]:
        """Answer a message of a conversation; yields the answer so far."""
        answer = ""
        messages = [*map(_plain, history), {"role": "user", "content": message}]
        parameters = {"max_tokens": int(max_tokens), "temperature": temperature}
        pieces = patiently(self.model.reply(messages, **parameters))
        try:
            with told(self.model.url):
                async with aclosing(pieces):
                    async for piece in pieces:
                        answer += piece or ""
                        yield answer
        except gr.Error as error:
            if request.headers.get("x-gradio-user") != "app":
                raise
            # Raised in the page, it would cover the chat and leave its text box locked.
            yield f"{answer}{_NOTICE}{error.message}"

    def show(self) -> None:
        """Lay the tab out."""
        gr.ChatInterface(
            self.chat,
            chatbot=gr.Chatbot(
                height=460,
                show_label=False,
                buttons=["copy"],  # not "share", which sends the chat away
                placeholder="### Ask something\nStop at any time.",
            ),
            textbox=gr.Textbox(
                placeholder="Write a message", show_label=False, submit_btn="Send", stop_btn="Stop"
            ),
            additional_inputs=[
                gr.Slider(1, 2000, 300, step=1, label="Tokens at most", render=False),
                gr.Slider(0, 2, 0, step=0.05, label="Temperature", render=False),
            ],
            additional_inputs_accordion=gr.Accordion("More", open=False, render=False),
            examples=[[text] for text in EXAMPLES],
            cache_examples=False,
            api_name="chat",
        )


def _plain(message: dict[str, Any]) -> dict[str, str]:
    """Take role and text of a message; Gradio may keep the text in parts."""
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return {"role": message["role"], "content": str(content).partition(_NOTICE)[0]}
