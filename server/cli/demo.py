"""`millrace demo`: the Gradio app, asking a server that runs somewhere; needs an extra."""

import os

import click

from server.cli.asking_options import LOCAL_SERVER
from server.config import ConfigError
from server.demo.extra import check_gradio


@click.command
@click.option("--url", default=LOCAL_SERVER, show_default=True, help="The server to ask.")
@click.option(
    "--key",
    envvar="MILLRACE_API_KEY",
    help="API key to send; if the app listens to other machines, also its password.  "
    "[env: MILLRACE_API_KEY]",
)
@click.option("--hostname", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", "-p", type=click.IntRange(1, 65_535), default=7860, show_default=True, help="Port."
)
@click.option("--child", "is_child", is_flag=True, hidden=True)
def demo(url: str, key: str | None, hostname: str, port: int, is_child: bool) -> None:
    """Open a Gradio app in which every text and picture grows as it is generated.

    It sends nothing to anybody but the server at --url.
    """
    try:
        check_gradio()
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_FLAGGING_MODE="never",  # it would write into whatever folder this is
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    os.environ.pop("HF_HUB_OFFLINE", None)  # with it, the client refuses even this machine
    # Here and not above: they bring Gradio, which reads those names when it is imported.
    from server.demo.model import Model
    from server.demo.serving import serve_demo

    try:
        serve_demo(Model(url.rstrip("/"), key), hostname, port, is_child=is_child)
    except OSError as error:
        place = f"--hostname {hostname} --port {port}"
        raise click.ClickException(f"cannot listen on {place}") from error
