"""SideBySide: one request sent twice at once, streamed and not, so that one sees the difference."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import gradio as gr

from server.demo.answer import Answer
from server.demo.model import Model
from server.demo.patience import patiently
from server.demo.problems import told
from server.demo.race import Race


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The tab `Side by side` and its endpoint `/side_by_side`."""

    model: Model

    async def side_by_side(
        self, prompt: str, max_new_tokens: int = 200
    ) -> AsyncGenerator[tuple[str, str, str], None]:
        """Ask twice at once; yields the streamed text so far, the whole text once it is there,
        and a drawing of the times of both as HTML.
        """
        answer, race = Answer(), Race()
        num_tokens = int(max_new_tokens)
        whole = asyncio.create_task(self.model.whole(prompt, max_new_tokens=num_tokens))
        whole.add_done_callback(lambda _: race.whole_arrived(answer.elapsed_s()))
        tokens = patiently(self.model.tokens(prompt, max_new_tokens=num_tokens))
        try:
            with told(self.model.url):
                async with aclosing(tokens):
                    async for token in tokens:
                        answer.take(token)
                        text = whole.result() if whole.done() else ""
                        yield answer.text, text, race.draw(answer)
                while not whole.done():
                    await asyncio.wait((whole,), timeout=1)
                    yield answer.text, "", race.draw(answer)
                yield answer.text, await whole, race.draw(answer, is_over=True)
        finally:
            whole.cancel()
            await asyncio.wait((whole,))

    def show(self) -> None:
        """Lay the tab out."""
        with gr.Row(equal_height=True):
            prompt = gr.Textbox("How do you make cheese?", label="Prompt", scale=4)
            num_tokens = gr.Slider(20, 1000, 300, step=10, label="Tokens at most", scale=3)
        with gr.Row():
            stop = gr.Button("Stop", variant="secondary")
            start = gr.Button("Ask both ways", variant="primary")
        times = gr.HTML(Race().draw(Answer()), label="Times")
        with gr.Row(equal_height=True):
            with gr.Column():
                streamed = gr.Textbox(label="Streamed", lines=12, max_lines=12, interactive=False)
            with gr.Column():
                whole = gr.Textbox(label="Not streamed", lines=12, max_lines=12, interactive=False)
        running = gr.on(
            [start.click, prompt.submit],
            self.side_by_side,
            [prompt, num_tokens],
            [streamed, whole, times],
            api_name="side_by_side",
            show_progress="hidden",
        )
        stop.click(None, cancels=running)
