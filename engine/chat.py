"""Chat: messages as the model's template takes them, and the lines by which a renderer is asked.

Knows neither the template's language nor who renders: `chats.py` asks `chat_process.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import TemplateError

Messages = tuple[Mapping[str, Any], ...]

MAX_RENDER_S = 0.8
"""With what it takes to ask and to answer, below a second."""
MAX_RENDER_BYTES = 256 * 2**20
MAX_GROWTH = 4
"""A rendered chat may have so many times the characters of the question, and some more."""
FREE_CHARACTERS = 65_536
_MAX_REASON = 1000
"""Characters of what a template says when it refuses."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a model's chats are rendered by."""

    chat_template: str | Mapping[str, str] | None
    """One, or several by name."""
    special_tokens: Mapping[str, str]
    """What it knows by names such as `bos_token`."""


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages to render."""

    messages: Messages
    is_continued: bool = False
    """The last message goes on: it gets no end, and no other begins."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """What the template knows beside the messages, such as `tools`."""

    def num_characters(self) -> int:
        """Say about how much there is to render."""
        size = sum(len(str(message.get("content") or "")) for message in self.messages)
        if self.variables or any("tool_calls" in message for message in self.messages):
            size += len(str(self.variables)) + len(str(self.messages))
        return size


def template_line(template: Template) -> bytes:
    """Write the first line for a renderer."""
    return _line([template.chat_template, template.special_tokens])


def read_template(line: bytes) -> Template:
    """Read what `template_line` wrote."""
    return Template(*json.loads(line))


def question(chat: Chat) -> bytes:
    """Write a chat for a renderer, on a line."""
    return _line([chat.messages, chat.is_continued, chat.variables])


def read_question(line: bytes) -> Chat:
    """Read what `question` wrote."""
    messages, is_continued, variables = json.loads(line)
    return Chat(tuple(messages), is_continued, variables)


def answer(text: str | None, refusal: str | None = None) -> bytes:
    """Write what became of a chat, on a line: its text, or why there is none."""
    return _line([text, None if refusal is None else refusal[:_MAX_REASON]])


def read_answer(line: bytes) -> str:
    """Read the text of an answer; raises TemplateError."""
    text, refusal = json.loads(line)
    if refusal is not None:
        raise TemplateError(refusal)
    return str(text)


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=dict).encode() + b"\n"
