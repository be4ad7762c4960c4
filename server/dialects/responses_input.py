"""The input and the tools of `/v1/responses`, said as OpenAI's chat says them.

What the assistant does in a row is one turn of a chat: a thought, a message, calls.
"""

from collections.abc import Sequence

from server.dialects import ranges, turns
from server.dialects.bodies import (
    MAX_TOOL_CALLS,
    CalledFunctionBody,
    ChatMessageBody,
    ChosenFunctionBody,
    ChosenToolBody,
    FunctionBody,
    ToolBody,
    ToolCallBody,
)
from server.dialects.chat_prompt import read_arguments
from server.dialects.responses_types import (
    TEXT_KINDS,
    THOUGHT_KINDS,
    FunctionChoice,
    FunctionTool,
    InputItem,
    ResponsesBody,
)
from server.errors import invalid

_SYSTEM, _ASSISTANT = "system", "assistant"


def read_turns(asked: ResponsesBody) -> list[ChatMessageBody]:
    """Read instructions and input; raises Problem."""
    if not asked.input:
        raise invalid("`input` cannot be empty", "input")
    said = _Turns()
    if asked.instructions is not None:
        said.all.append(ChatMessageBody(role=_SYSTEM, content=asked.instructions))
    if isinstance(asked.input, str):
        said.all.append(ChatMessageBody(role="user", content=asked.input))
        return said.all
    for number, item in enumerate(asked.input):
        said.add(f"input[{number}]", item)
    if not said.all:  # nothing but thoughts
        raise invalid("`input` cannot be empty", "input")
    return said.all


def read_tools(tools: Sequence[FunctionTool] | None) -> list[ToolBody] | None:
    """Read what may be called; raises Problem."""
    if tools is None:
        return None
    return [_tool(f"tools[{number}]", tool) for number, tool in enumerate(tools)]


def read_choice(choice: str | FunctionChoice | None) -> str | ChosenToolBody | None:
    """Read which tools may be used; raises Problem."""
    if not isinstance(choice, FunctionChoice):
        return choice
    name = _function_name("tool_choice", "choices", choice)
    return ChosenToolBody(function=ChosenFunctionBody(name=name))


class _Turns:
    """Turns in the making."""

    def __init__(self) -> None:
        self.all: list[ChatMessageBody] = []
        self._thought: str | None = None
        """It goes with what the assistant does next."""

    def add(self, field: str, item: InputItem) -> None:
        """Take an item; raises Problem."""
        match item.type:
            case None | "message":
                self._say(field, item)
            case "function_call":
                self._call(field, item)
            case "function_call_output":
                self.all.append(_output(field, item))
            case "reasoning":
                text = turns.text_of(f"{field}.content", item.content or "", THOUGHT_KINDS)
                self._thought = text or None
            case kind:
                what = f"items of type `{ranges.shown(kind)}`"
                raise ranges.unsupported(f"{field}.type", what)

    def _say(self, field: str, item: InputItem) -> None:
        if item.role is None:
            raise invalid(f"`{field}.role` is missing", f"{field}.role")
        if item.content is None:
            raise invalid(f"`{field}.content` is missing", f"{field}.content")
        role = _SYSTEM if item.role == "developer" else item.role
        content = turns.text_of(f"{field}.content", item.content, TEXT_KINDS)
        if role == _ASSISTANT:
            self._assistants(content)
        else:
            self.all.append(ChatMessageBody(role=role, content=content))

    def _call(self, field: str, item: InputItem) -> None:
        if item.name is None:
            raise invalid(f"`{field}.name` is missing", f"{field}.name")
        arguments = read_arguments(f"{field}.arguments", item.arguments)
        function = CalledFunctionBody(name=item.name, arguments=arguments)
        is_new = self._thought is not None or not self.all or self.all[-1].role != _ASSISTANT
        turn = self._assistants("") if is_new else self.all[-1]
        turn.tool_calls = [
            *(turn.tool_calls or ()),
            ToolCallBody(function=function, id=item.call_id),
        ]
        rule = f"must be one of at most {MAX_TOOL_CALLS} calls in a row"
        num_calls = len(turn.tool_calls)
        ranges.require(num_calls <= MAX_TOOL_CALLS, f"{field}.type", rule, num_calls)

    def _assistants(self, content: str) -> ChatMessageBody:
        turn = ChatMessageBody(role=_ASSISTANT, content=content, reasoning_content=self._thought)
        self._thought = None
        self.all.append(turn)
        return turn


def _output(field: str, item: InputItem) -> ChatMessageBody:
    if item.call_id is None:
        raise invalid(f"`{field}.call_id` is missing", f"{field}.call_id")
    if item.output is None:
        raise invalid(f"`{field}.output` is missing", f"{field}.output")
    text = turns.text_of(f"{field}.output", item.output, TEXT_KINDS)
    return ChatMessageBody(role="tool", content=text, tool_call_id=item.call_id)


def _tool(field: str, tool: FunctionTool) -> ToolBody:
    name = _function_name(field, "tools", tool)
    return ToolBody(
        function=FunctionBody(name=name, description=tool.description, parameters=tool.parameters)
    )


def _function_name(field: str, what: str, given: FunctionTool | FunctionChoice) -> str:
    if given.type != "function":
        kind = ranges.shown(given.type)
        raise ranges.unsupported(f"{field}.type", f"{what} of type `{kind}`")
    if given.name is None:
        raise invalid(f"`{field}.name` is missing", f"{field}.name")
    return given.name
