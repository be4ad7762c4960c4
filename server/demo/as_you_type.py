"""AsYouType: the text is continued at each keystroke; the run of the keystroke before is ended."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import gradio as gr

from server.demo.answer import Answer
from server.demo.model import Model
from server.demo.patience import Newest, patiently
from server.demo.problems import told


@dataclass(frozen=True, slots=True)
class AsYouType:
    """The tab `As you type` and its endpoint `/as_you_type`."""

    model: Model
    newest: Newest = field(default_factory=Newest)

    async def as_you_type(
        self, text: str, request: gr.Request, max_new_tokens: int = 40
    ) -> AsyncGenerator[tuple[str, str], None]:
        """Go on with a text that is being written; a newer call of the same session ends this one.

        Yields the continuation so far, and a line of numbers about it.
        """
        answer = Answer()
        if not text.strip():
            yield "", "Write something."
            return
        with self.newest.run(request.session_hash) as newer, told(self.model.url):
            tokens = self.model.tokens(text, max_new_tokens=int(max_new_tokens), do_sample=False)
            pieces = patiently(tokens, newer)
            async with aclosing(pieces):
                async for token in pieces:
                    answer.take(token)
                    yield answer.text, answer.status()

    def show(self) -> None:
        """Lay the tab out."""
        gr.Markdown(
            "Each keystroke sends the whole text again and ends the request before it; the server "
            "frees its place at once, and takes what it knows of the text from its cache."
        )
        with gr.Row(equal_height=True):
            with gr.Column():
                text = gr.Textbox(
                    label="Write",
                    lines=8,
                    max_lines=8,
                    placeholder="What is the capital of",
                    autofocus=True,
                )
            with gr.Column():
                continued = gr.Textbox(label="It goes on", lines=8, max_lines=8, interactive=False)
        status = gr.Markdown("Write something.", elem_classes="status", label="Numbers")
        num_tokens = gr.Slider(1, 200, 40, step=1, label="Tokens at most")
        text.input(
            self.as_you_type,
            [text, num_tokens],
            [continued, status],
            api_name="as_you_type",
            trigger_mode="multiple",  # the newest ends the others; Gradio's `cancels` cannot
            show_progress="hidden",
        )
