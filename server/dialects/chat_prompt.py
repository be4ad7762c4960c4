"""Messages in OpenAI's words to what the model's chat template takes.

Contents become plain texts, and the arguments of calls objects, as templates expect them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.dialects import ranges
from server.dialects.bodies import MAX_TOOL_DEPTH, ChatMessageBody, ToolCallBody
from server.dialects.call import ChatPrompt
from server.errors import invalid


def chat_prompt(
    turns: Sequence[ChatMessageBody],
    variables: Mapping[str, Any] | None = None,
    *,
    is_ending_wanted: bool = False,
) -> ChatPrompt:
    """Read messages; if the assistant speaks last, its turn goes on."""
    if not turns:
        raise invalid("`messages` cannot be empty", "messages")
    messages = tuple(_message(f"messages[{number}]", turn) for number, turn in enumerate(turns))
    _name_results(messages)
    is_continued = turns[-1].role == "assistant" and not turns[-1].tool_calls
    return ChatPrompt(messages, is_continued, variables or {}, is_ending_wanted)


def read_arguments(field: str, arguments: str | dict[str, Any] | None) -> str | dict[str, Any]:
    """Give the object that a text stands for; a text that stands for none as it is."""
    if isinstance(arguments, str):
        try:
            value = msgspec.json.decode(arguments)
        except RecursionError:
            raise invalid(f"`{field}` is nested too deeply", field) from None
        except (msgspec.DecodeError, UnicodeError):
            return arguments
        if not isinstance(value, dict):
            return arguments
        arguments = value
    ranges.check_depth(field, arguments, MAX_TOOL_DEPTH)
    return arguments or {}


def _message(field: str, turn: ChatMessageBody) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": _content(f"{field}.content", turn)}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(turn, name)) is not None:
            message[name] = value
    if turn.tool_calls:
        calls = enumerate(turn.tool_calls)
        message["tool_calls"] = [_call(f"{field}.tool_calls[{n}]", call) for n, call in calls]
    return message


def _name_results(messages: Sequence[dict[str, Any]]) -> None:
    """Give each result the name of what was called: clients send an id, some templates want both.

    The template of Hermes refuses results without a name.
    """
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call.get("id", "")] = call["function"]["name"]
        name = names.get(message.get("tool_call_id", ""))
        if message["role"] == "tool" and name is not None:
            message.setdefault("name", name)


def _content(field: str, turn: ChatMessageBody) -> str:
    """Return a message's text, its parts joined as TGI joins them."""
    if turn.content is None:
        if turn.tool_calls:
            return ""
        raise invalid(f"`{field}` is missing", field)
    if isinstance(turn.content, str):
        return turn.content
    for number, part in enumerate(turn.content):
        here = f"{field}[{number}]"
        if part.type != "text":
            what = f"parts of type `{ranges.shown(part.type)}`"
            raise ranges.unsupported(f"{here}.type", what)
        if part.text is None:
            raise invalid(f"`{here}.text` is missing", f"{here}.text")
    return "".join(part.text or "" for part in turn.content)


def _call(field: str, call: ToolCallBody) -> dict[str, Any]:
    is_function = call.type in (None, "function")
    ranges.require(is_function, f"{field}.type", "must be `function`", call.type)
    arguments = read_arguments(f"{field}.function.arguments", call.function.arguments)
    function = {"name": call.function.name, "arguments": arguments}
    own = {} if call.id is None else {"id": call.id}
    return {**own, "type": "function", "function": function}
