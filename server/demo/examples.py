"""Gradio's own examples of generator functions, as its pages print them; they ask no model.

https://www.gradio.app/guides/streaming-outputs
https://www.gradio.app/guides/getting-started-with-the-python-client
"""

import gradio as gr

from server.examples.count import count
from server.examples.diffusion import fake_diffusion


def show_examples() -> None:
    """Lay the tab out; the endpoints are `/count` and `/fake_diffusion`."""
    gr.Markdown("### A counter\n`gr.Interface(count, gr.Number(value=10), gr.Textbox())`")
    gr.Interface(count, gr.Number(value=10), gr.Textbox())
    gr.Markdown(
        "### A picture from noise, step by step\n"
        '`gr.Interface(fake_diffusion, gr.Slider(1, 10, 3, step=1), "image")`'
    )
    gr.Interface(fake_diffusion, gr.Slider(1, 10, 3, step=1), "image")
