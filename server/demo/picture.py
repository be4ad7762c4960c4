"""Picture: what the model might have said, drawn after each token, as a diffusion's steps are."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from math import exp
from typing import Any

import gradio as gr
from PIL import Image

from server.demo.chart import Choice, draw
from server.demo.model import Model
from server.demo.patience import Newest, patiently
from server.demo.problems import told

NUM_ALTERNATIVES = 5
"""As many as TGI gives unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The tab `Picture` and its endpoint `/picture`."""

    model: Model
    newest: Newest = field(default_factory=Newest)

    async def picture(
        self, prompt: str, request: gr.Request, steps: int = 12, temperature: float = 0.0
    ) -> AsyncGenerator[tuple[Image.Image, str], None]:
        """Draw the next tokens' probabilities; a newer call of the same session ends this one.

        Yields a picture after each token, and the text so far.
        """
        choices: list[list[Choice]] = []
        num_steps = int(steps)
        sampled = {"do_sample": temperature > 0, "temperature": temperature or None}
        yield draw(choices, num_steps), ""
        if not prompt.strip():
            return
        with self.newest.run(request.session_hash) as newer, told(self.model.url):
            tokens = patiently(
                self.model.tokens(
                    prompt, max_new_tokens=num_steps, top_n_tokens=NUM_ALTERNATIVES, **sampled
                ),
                newer,
            )
            async with aclosing(tokens):
                async for token in tokens:
                    if token is not None:
                        choices.append(choices_of(token))
                    text = "".join(c.text for row in choices for c in row if c.is_taken)
                    yield draw(choices, num_steps), text

    def show(self) -> None:
        """Lay the tab out."""
        with gr.Row():
            with gr.Column(scale=2):
                prompt = gr.Textbox("Once upon a time", label="Prompt", lines=4, max_lines=12)
                steps = gr.Slider(1, 16, 12, step=1, label="Steps", info="A token each")
                temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature")
                start = gr.Button("Draw", variant="primary")
                text = gr.Textbox(label="It goes on", lines=4, interactive=False)
            picture = gr.Image(
                draw([], 12),
                label="What it might have said",
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                scale=3,
            )
        gr.on(
            [prompt.input, steps.input, temperature.input, start.click],
            self.picture,
            [prompt, steps, temperature],
            [picture, text],
            api_name="picture",
            trigger_mode="multiple",  # the newest ends the others; Gradio's `cancels` cannot
            show_progress="hidden",
        )


def choices_of(token: Any) -> list[Choice]:
    """List what could have come at a token's place, likeliest first, and what did."""
    taken = token.token
    others = {top["text"]: top["logprob"] for top in token.top_tokens or []}
    logprobs = {**others, taken.text: taken.logprob}
    ordered = sorted(logprobs.items(), key=lambda pair: -pair[1])
    return [Choice(text, exp(logprob), text == taken.text) for text, logprob in ordered]
