"""Offer: the tools that one request lets the model call, and how the calls will look.

Refuses in TGI's words: https://github.com/huggingface/text-generation-inference/blob/db931fcf/router/src/infer/tool_grammar.rs
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from engine import Grammar, GrammarKind
from server.dialects import ranges
from server.dialects.bodies import (
    MAX_TOOL_DEPTH,
    MAX_TOOLS_BYTES,
    ChatBody,
    ChosenToolBody,
    ToolBody,
)
from server.dialects.call import DialectConfig
from server.dialects.tools.formats import FORMATS, Format
from server.dialects.tools.schema import call_grammar, read_as
from server.errors import ErrorType, Problem


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools to show to the model, and to look for in what it says."""

    tools: tuple[dict[str, Any], ...]
    """As templates take them."""
    form: Format
    names: frozenset[str]
    """What may be called."""
    max_calls: int | None
    """How many calls are answered with; None is all of them."""
    grammar: Grammar | None = None
    """What the turn must be; None where the model may also say something else."""


def offer(
    config: DialectConfig, asked: ChatBody, schema_field: str, *, has_form: bool
) -> Offer | None:
    """Read the tools of a request; None where the model is to know of none. Raises Problem.

    `schema_field` is where the client wrote the schema of a tool, `has_form` is true where it said
    what the answer must be by a field that is none of a chat's.
    """
    form = asked.response_format
    has_form = has_form or (form is not None and form.type != "text")
    if asked.tools is not None and has_form:
        raise tool_error("Grammar and tools are mutually exclusive", "tools")
    tools = asked.tools or []
    _check_limits(tools, schema_field)
    choice = asked.tool_choice
    name = choice.function.name if isinstance(choice, ChosenToolBody) else choice
    if name == "none" or (not tools and name in (None, "auto")):
        return None
    if not tools:
        raise tool_error("`tool_choice` must come with `tools`", "tool_choice")
    if config.tool_format is None:
        raise tool_error(
            "`tools`: the model's chat template has no calls in a format that is known here; "
            "--tool-call-parser can name one",
            "tools",
        )
    offered = _offer(config.tool_format, asked, tools)
    return offered if name in (None, "auto") else _forced(config, offered, name)


def tool_error(message: str, field: str) -> Problem:
    """Phrase what is wrong with tools as TGI does."""
    return Problem(ErrorType.TOOL_ERROR, f"Tool error: {message}", field)


def _check_limits(tools: list[ToolBody], schema_field: str) -> None:
    for number, tool in enumerate(tools):
        if tool.type != "function":
            what = f"tools of type `{ranges.shown(tool.type)}`"
            raise ranges.unsupported(f"tools[{number}].type", what)
        field = f"tools[{number}].{schema_field}"
        ranges.check_depth(field, tool.function.parameters, MAX_TOOL_DEPTH)
    num_bytes = len(msgspec.json.encode(tools))
    rule = f"must have at most {MAX_TOOLS_BYTES} bytes of JSON"
    ranges.require(num_bytes <= MAX_TOOLS_BYTES, "tools", rule, num_bytes)


def _offer(name: str, asked: ChatBody, tools: list[ToolBody]) -> Offer:
    return Offer(
        tuple(_shown(tool) for tool in tools),
        FORMATS[name],
        frozenset(tool.function.name for tool in tools),
        1 if asked.parallel_tool_calls is False else None,
    )


def _forced(config: DialectConfig, offered: Offer, name: str) -> Offer:
    """Let the model say nothing but calls: of the tool of this name, or of any if `required`."""
    is_any = name == "required"
    if not is_any and name not in offered.names:
        raise tool_error(f"Tool with name {name} not found", "tool_choice")
    tools = [tool for tool in offered.tools if is_any or tool["function"]["name"] == name]
    form = config.tool_format or ""
    source = call_grammar(
        form,
        tools,
        config.mark_ids,
        has_reasoning=config.has_reasoning,
        is_one=not is_any or offered.max_calls == 1,
    )
    return replace(
        offered,
        form=FORMATS[read_as(form)],
        names=frozenset(tool["function"]["name"] for tool in tools),
        grammar=Grammar(GrammarKind.LARK, source),
    )


def _shown(tool: ToolBody) -> dict[str, Any]:
    function = {
        name: value
        for name, value in (
            ("name", tool.function.name),
            ("description", tool.function.description),
            ("parameters", tool.function.parameters),
        )
        if value not in (None, msgspec.UNSET)
    }
    return {"type": "function", "function": function}
