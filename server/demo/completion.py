"""Completion: a prompt goes on, and the text grows token by token."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from server.demo.answer import Answer
from server.demo.model import Model
from server.demo.patience import patiently
from server.demo.problems import told

EXAMPLES = ["What is Deep Learning?", "How do you make cheese?", "Count from one to five."]


@dataclass(frozen=True, slots=True)
class Completion:
    """The tab `Completion` and its endpoint `/complete`."""

    model: Model

    async def complete(
        self, prompt: str, max_new_tokens: int = 100, temperature: float = 0.0, top_p: float = 1.0
    ) -> AsyncGenerator[tuple[str, str], None]:
        """Go on with the prompt; yields the text so far, and a line of numbers about it."""
        answer = Answer()
        parameters = {"max_new_tokens": int(max_new_tokens), **sampling(temperature, top_p)}
        tokens = patiently(self.model.tokens(prompt, **parameters))
        with told(self.model.url):
            async with aclosing(tokens):
                async for token in tokens:
                    answer.take(token)
                    yield answer.text, answer.status()
        yield answer.text, answer.status()

    def show(self) -> None:
        """Lay the tab out."""
        with gr.Row():
            with gr.Column(scale=2):
                prompt = gr.Textbox(
                    EXAMPLES[0],
                    label="Prompt",
                    lines=4,
                    max_lines=12,
                    placeholder="Write a beginning",
                )
                gr.Examples([[text] for text in EXAMPLES], prompt, label="Try")
                num_tokens = gr.Slider(1, 500, 100, step=1, label="Tokens at most")
                temperature = gr.Slider(
                    0, 2, 0, step=0.05, label="Temperature", info="0 takes the likeliest token"
                )
                top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top p")
                with gr.Row():
                    stop = gr.Button("Stop", variant="secondary")
                    start = gr.Button("Generate", variant="primary")
            with gr.Column(scale=3):
                text = gr.Textbox(
                    label="It goes on", lines=16, max_lines=24, interactive=False, autoscroll=True
                )
                status = gr.Markdown("Nothing asked yet.", elem_classes="status", label="Numbers")
        running = gr.on(
            [start.click, prompt.submit],
            self.complete,
            [prompt, num_tokens, temperature, top_p],
            [text, status],
            api_name="complete",
            show_progress="hidden",  # the line of numbers shows it
        )
        stop.click(None, cancels=running)


def sampling(temperature: float, top_p: float) -> dict[str, Any]:
    """Say how to choose tokens in TGI's words, which know no temperature of 0 and no top_p of 1."""
    if temperature <= 0:
        return {"do_sample": False}
    chosen = {"do_sample": True, "temperature": temperature}
    return chosen if top_p >= 1 else {**chosen, "top_p": top_p}
