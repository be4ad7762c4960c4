"""Anthropic's turns and tools, said as OpenAI's chat says them.

A turn of the user may hold results of calls, each of which is a message of its own in a chat; a
turn of the assistant is one message, whatever blocks it has.
"""

from collections.abc import Iterator, Sequence

from server.dialects import ranges, turns
from server.dialects.bodies import (
    MAX_TOOL_CALLS,
    MAX_TOOL_DEPTH,
    CalledFunctionBody,
    ChatMessageBody,
    ChosenFunctionBody,
    ChosenToolBody,
    FunctionBody,
    TemplateOptions,
    ToolBody,
    ToolCallBody,
)
from server.dialects.messages_types import (
    CHOICES,
    CountTokensBody,
    MessageBlock,
    MessagesBody,
    MessageThinking,
    MessageTool,
    MessageToolChoice,
    MessageTurn,
)
from server.errors import invalid

_TEXTS = ("text",)
_ASSISTANTS = ("text", "thinking", "redacted_thinking", "tool_use")
_OTHERS = ("text", "tool_result")


def read_turns(asked: MessagesBody | CountTokensBody) -> list[ChatMessageBody]:
    """Read the system's words and all turns; raises Problem."""
    if not asked.messages:
        raise invalid("`messages` cannot be empty", "messages")
    said = []
    if asked.system:
        system = turns.text_of("system", asked.system, _TEXTS)
        said.append(ChatMessageBody(role="system", content=system))
    for number, turn in enumerate(asked.messages):
        said += _messages(f"messages[{number}].content", turn)
    return said


def read_tools(tools: Sequence[MessageTool] | None) -> list[ToolBody] | None:
    """Read what may be called; raises Problem."""
    if tools is None:
        return None
    for number, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            what = f"tools of type `{ranges.shown(tool.type)}`"
            raise ranges.unsupported(f"tools[{number}].type", what)
    return [
        ToolBody(
            function=FunctionBody(
                name=tool.name, description=tool.description, parameters=tool.input_schema
            )
        )
        for tool in tools
    ]


def read_choice(choice: MessageToolChoice | None) -> str | ChosenToolBody | None:
    """Read which tools may be used; raises Problem."""
    if choice is None:
        return None
    is_known = choice.type in CHOICES
    ranges.require(
        is_known, "tool_choice.type", f"must be one of {', '.join(CHOICES)}", choice.type
    )
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if choice.name is None:
        raise invalid("`tool_choice.name` is missing", "tool_choice.name")
    return ChosenToolBody(function=ChosenFunctionBody(name=choice.name))


def read_thinking(thinking: MessageThinking | None) -> TemplateOptions | None:
    """Say what the template is told, by both names that templates have for it."""
    if thinking is None or thinking.type is None:
        return None
    is_on = thinking.type != "disabled"
    return TemplateOptions(enable_thinking=is_on, thinking=is_on)


def _messages(field: str, turn: MessageTurn) -> list[ChatMessageBody]:
    if isinstance(turn.content, str):
        return [ChatMessageBody(role=turn.role, content=turn.content)]
    is_assistant = turn.role == "assistant"
    blocks = [(f"{field}[{number}]", block) for number, block in enumerate(turn.content)]
    _check_kinds(blocks, _ASSISTANTS if is_assistant else _OTHERS)
    return [_assistants(field, blocks)] if is_assistant else list(_others(turn.role, blocks))


def _check_kinds(blocks: Sequence[tuple[str, MessageBlock]], kinds: Sequence[str]) -> None:
    for here, block in blocks:
        if block.type not in kinds:
            what = f"parts of type `{ranges.shown(block.type)}`"
            raise ranges.unsupported(f"{here}.type", what)
        if block.type == "text" and block.text is None:
            raise invalid(f"`{here}.text` is missing", f"{here}.text")


def _assistants(field: str, blocks: Sequence[tuple[str, MessageBlock]]) -> ChatMessageBody:
    calls = [_call(here, block) for here, block in blocks if block.type == "tool_use"]
    rule = f"must have at most {MAX_TOOL_CALLS} blocks of type `tool_use`"
    ranges.require(len(calls) <= MAX_TOOL_CALLS, field, rule, len(calls))
    return ChatMessageBody(
        role="assistant",
        content="".join(block.text or "" for _, block in blocks),
        reasoning_content="".join(block.thinking or "" for _, block in blocks) or None,
        tool_calls=calls or None,
    )


def _call(here: str, block: MessageBlock) -> ToolCallBody:
    if block.name is None:
        raise invalid(f"`{here}.name` is missing", f"{here}.name")
    ranges.check_depth(f"{here}.input", block.input, MAX_TOOL_DEPTH)
    function = CalledFunctionBody(name=block.name, arguments=block.input)
    return ToolCallBody(function=function, id=block.id)


def _others(role: str, blocks: Sequence[tuple[str, MessageBlock]]) -> Iterator[ChatMessageBody]:
    """Give each result as a message, and what texts are between them as one."""
    texts: list[str] = []
    for here, block in blocks:
        if block.type == "text":
            texts.append(block.text or "")
            continue
        if texts:
            yield ChatMessageBody(role=role, content="".join(texts))
            texts = []
        yield _result(here, block)
    if texts or not blocks:
        yield ChatMessageBody(role=role, content="".join(texts))


def _result(here: str, block: MessageBlock) -> ChatMessageBody:
    if block.tool_use_id is None:
        raise invalid(f"`{here}.tool_use_id` is missing", f"{here}.tool_use_id")
    text = turns.text_of(f"{here}.content", block.content or "", _TEXTS)
    if block.is_error:  # templates have no other place for it
        text = f"Error: {text}"
    return ChatMessageBody(role="tool", content=text, tool_call_id=block.tool_use_id)
