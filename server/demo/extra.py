"""Whether the extra `gradio` is installed; imports none of it."""

import importlib.util

from server.config import ConfigError


def check_gradio() -> None:
    """Raise ConfigError, in a sentence, if it is not."""
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the demo needs Gradio: pip install 'millrace[gradio]'")
