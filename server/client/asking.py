"""Asking: one request in the words of each dialect. Knows neither connections nor answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.question import Dialect

Message = dict[str, str]
"""One turn: its `role` and its `content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen, by TGI's names; what is None is left to the server."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Tell whether anything asks for chance; without it the likeliest token is taken."""
        drawn = (self.temperature, self.top_p, self.top_k, self.seed)
        return any(value is not None for value in drawn)


def native_body(prompt: str, sampling: Sampling) -> dict[str, Any]:
    """Ask by TGI's `/generate_stream`."""
    parameters = _given(
        max_new_tokens=sampling.max_new_tokens, stop=list(sampling.stop), **_shared(sampling)
    )
    # TGI takes a temperature of 1 and a seed alone for greedy.
    return {
        "inputs": prompt,
        "parameters": parameters | {"details": True, "do_sample": sampling.is_drawn},
    }


def completion_body(
    prompt: str, sampling: Sampling, model: str, *, has_logprobs: bool
) -> dict[str, Any]:
    """Ask by OpenAI's `/v1/completions`; greedy without anything else, as TGI is."""
    body = _openai(sampling, model) | {"prompt": prompt}
    if not sampling.is_drawn:
        body["temperature"] = 0.0
    return body | {"logprobs": 1} if has_logprobs else body


def chat_body(messages: Sequence[Message], sampling: Sampling, model: str) -> dict[str, Any]:
    """Ask by OpenAI's `/v1/chat/completions`."""
    return _openai(sampling, model) | {"messages": list(messages)}


def full_url(url: str) -> str:
    """Write an address as `http://host:port`, where only a host and a port were typed."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def dialect_of(info: object) -> Dialect:
    """Tell by the answer to `GET /info` which route completes a prompt; None is no answer."""
    is_tgi = isinstance(info, dict) and "model_id" in info
    return Dialect.TGI if is_tgi else Dialect.COMPLETIONS


def _openai(sampling: Sampling, model: str) -> dict[str, Any]:
    asked = _given(
        max_tokens=sampling.max_new_tokens, stop=list(sampling.stop), **_shared(sampling)
    )
    return asked | {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _shared(sampling: Sampling) -> dict[str, Any]:
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "seed")
    return {name: getattr(sampling, name) for name in names}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [])}
