"""Turns of other dialects, said as OpenAI's chat says them; so that its dialect does the rest.

Every limit, refusal and parameter of a chat then holds for `/v1/responses` and `/v1/messages`, too.
"""

from collections.abc import Sequence
from typing import Any

from server.dialects import ranges
from server.dialects.bodies import ChatBody, ChatMessageBody, ContentPart, OpenAIBody
from server.errors import invalid


def as_chat(asked: OpenAIBody, turns: Sequence[ChatMessageBody], **changes: Any) -> ChatBody:
    """Give the chat that means the same: the common fields, these turns, and what is changed."""
    shared = {name: getattr(asked, name) for name in OpenAIBody.__struct_fields__}
    return ChatBody(**{**shared, "messages": list(turns), **changes})


def text_of(field: str, content: str | Sequence[ContentPart], kinds: Sequence[str]) -> str:
    """Join the text of parts of these kinds; raises a Problem that names any other."""
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        here = f"{field}[{number}]"
        if part.type not in kinds:
            what = f"parts of type `{ranges.shown(part.type)}`"
            raise ranges.unsupported(f"{here}.type", what)
        if part.text is None:
            raise invalid(f"`{here}.text` is missing", f"{here}.text")
    return "".join(part.text or "" for part in content)


def refuse_choices(asked: OpenAIBody) -> None:
    """Refuse several answers where the dialect has a place for one."""
    ranges.require(asked.n in (None, 1), "n", "must be 1", asked.n)
