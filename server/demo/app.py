"""make_demo: the tabs of the app in one page; every function in it is a generator."""

from html import escape

import gradio as gr

from server.demo.as_you_type import AsYouType
from server.demo.chat import Chat
from server.demo.completion import Completion
from server.demo.examples import show_examples
from server.demo.look import ICON_PATH
from server.demo.model import Model
from server.demo.picture import Picture
from server.demo.side_by_side import SideBySide

_MAX_RUNS = 64
"""At a time; each holds one or two requests to the server, which has limits of its own."""
_MAX_WAITING = 256
_PICTURES_LAST_S = 600


def make_demo(model: Model) -> gr.Blocks:
    """Lay the app out for a server; `launch` it to serve it."""
    with gr.Blocks(
        title="Millrace",
        analytics_enabled=False,
        delete_cache=(_PICTURES_LAST_S, _PICTURES_LAST_S),
    ) as demo:
        gr.HTML(_masthead(model.url))
        for name, show in (
            ("Completion", Completion(model).show),
            ("Chat", Chat(model).show),
            ("Side by side", SideBySide(model).show),
            ("As you type", AsYouType(model).show),
            ("Picture", Picture(model).show),
            ("Gradio's examples", show_examples),
        ):
            with gr.Tab(name):
                show()
    return demo.queue(default_concurrency_limit=_MAX_RUNS, max_size=_MAX_WAITING)


def _masthead(url: str) -> str:
    return (
        f'<div class="masthead">{ICON_PATH.read_text()}<div><h1>Millrace</h1>'
        f"<p>Every token as it comes, from {escape(url)}</p></div></div>"
    )
