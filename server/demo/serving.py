"""serve_demo: puts the app on a port until a signal, or until whoever started it is gone."""

import hmac
import os
import signal
import sys
import threading
from collections.abc import Callable
from tempfile import TemporaryDirectory

from server.demo.app import make_demo
from server.demo.look import HEAD, ICON_PATH, STYLE_PATH, theme
from server.demo.model import Model

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def serve_demo(model: Model, hostname: str, port: int, *, is_child: bool) -> None:
    """Serve the app; a child ends when its standard input does. Raises OSError for the port."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    if is_child:
        threading.Thread(target=_wait_for_the_parents_end, args=(over,), daemon=True).start()
    with TemporaryDirectory(prefix="millrace-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where it keeps each picture that it shows
        _launch(model, hostname, port)
        print(f"the demo is ready on http://{hostname}:{port}", flush=True)
        over.wait()


def _launch(model: Model, hostname: str, port: int) -> None:
    make_demo(model).launch(
        server_name=hostname,
        server_port=port,
        theme=theme(),
        css_paths=STYLE_PATH,
        head=HEAD,
        auth=_asks_for(model.key) if model.key and hostname not in _THIS_MACHINE else None,
        auth_message="Any name, and the server's key as the password.",
        footer_links=["api"],
        run_history=False,
        favicon_path=ICON_PATH,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )


def _asks_for(key: str) -> Callable[[str, str], bool]:
    """Give the check of a password: what the key opens must not be open to all through the app."""

    def check(name: str, password: str) -> bool:
        return hmac.compare_digest(password.encode(), key.encode())

    return check


def _wait_for_the_parents_end(over: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1 << 10):
        pass
    over.set()
