"""What went wrong, in words that say what to do: huggingface_hub's errors become `gr.Error`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is httpx's own
    GenerationError,
    HfHubHTTPError,
    HTTPError,
    IncompleteGenerationError,
    InferenceTimeoutError,
    OverloadedError,
)

_BROKE_OFF = "The server broke off. The text so far stays; ask again when the server is back."


@contextmanager
def told(url: str) -> Iterator[None]:
    """Raise what fails inside as a message for the person in front of the app."""
    try:
        yield
    except HTTPError as error:
        raise gr.Error(sentence(error, url), print_exception=False) from error


def sentence(error: HTTPError, url: str) -> str:
    """Say what happened, and what can be done about it."""
    response = _response(error)
    status = response.status_code if response is not None else None
    if isinstance(error, OverloadedError) or status == 429:
        wait = response.headers.get("Retry-After") if response is not None else None
        return f"The server is full. Try again in {f'{wait} s' if wait else 'a moment'}."
    if status in (401, 403):
        return "The server asks for a key. Start the demo with --key, or set MILLRACE_API_KEY."
    if isinstance(error, GenerationError | IncompleteGenerationError):
        return f"The model could not go on: {_words(error.args[0])}"
    if response is not None or not _is_transport(error):
        return f"The server did not take it: {_message(error, response)}"
    return _unreachable(error, url)


def _unreachable(error: HTTPError, url: str) -> str:
    if isinstance(error, InferenceTimeoutError):
        return f"The server at {url} does not answer in time. Ask again, or for fewer tokens."
    if "Connect" in type(error).__name__:
        return (
            f"No server answers at {url}. Start one with `millrace serve`, "
            "or name another with --url."
        )
    return _BROKE_OFF


def _response(error: BaseException | None) -> Any:
    """Find the answer that an error is about, its own or that of its cause."""
    while error is not None:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            return error.response
        error = error.__cause__
    return None


def _is_transport(error: HTTPError) -> bool:
    """Tell errors of the connection from those that a server has sent in its stream."""
    return not type(error).__module__.startswith("huggingface_hub")


def _message(error: HTTPError, response: Any) -> str:
    """Take the server's own words where it has sent some."""
    try:
        return _words(json.loads(response.text)["error"])
    except (AttributeError, ValueError, KeyError, TypeError):
        return _words(error.args[0])


def _words(said: Any) -> str:
    """Give the sentence of an error: TGI sends it bare, OpenAI's routes in an object."""
    return str(said["message"] if isinstance(said, dict) else said)
