"""Turns that are, or nearly are, what the formats of calls know; and ways to cut them."""

import json

from hypothesis import strategies as st

NAMES = frozenset({"f", "get_weather"})
FRAGMENTS = {
    "hermes": ["<tool_call>", "</tool_call>", "<tool_", "call>", "\n"],
    "llama3_json": ["<|python_tag|>", "; ", ";", "<|py", "thon_tag|>"],
    "mistral": ["[TOOL_CALLS]", "[CALL_ID]", "a1", "[ARGS]", "[TOOL", "_CALLS]", "f", ", "],
    "pythonic": ["[f(", ")]", "), ", "a=", "'x'", '"y"', "f(b=[1, {'k': None}])", "True", "1.5"],
}
JSON_FRAGMENTS = [
    *('{"name": "f", "arguments": {', '{"name": "f", "parameters": {"a": "}"', '"arguments": {}'),
    *('"name": "get_weather"', "{", "}", "[", "]", '"', "\\", ": ", ",", " ", "é", '{"', '"a": 1'),
]
PROSE = ["<think>", "</think>", "Hello ", "world.", "\n\n", "<", "[", "<th", "ink>"]


def cut(text, places):
    """Cut a text at these places."""
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@st.composite
def turns(draw, name):
    """Make up texts that are, or nearly are, what the format knows."""
    fragments = FRAGMENTS[name] + JSON_FRAGMENTS * (name != "pythonic") + PROSE
    valid = [call(name, "f", '{"a": [1, {"b": "<tool_call>}"}]}'), call(name, "get_weather", "{}")]
    return "".join(draw(st.lists(st.sampled_from(fragments + valid), max_size=12)))


def call(name, tool, arguments):
    """Write one call as a model does."""
    match name:
        case "hermes":
            return f'<tool_call>\n{{"name": "{tool}", "arguments": {arguments}}}\n</tool_call>'
        case "llama3_json":
            return f'<|python_tag|>{{"name": "{tool}", "parameters": {arguments}}}'
        case "mistral":
            return f"[TOOL_CALLS]{tool}[ARGS]{arguments}"
        case "pythonic":
            values = ", ".join(f"{k}={v!r}" for k, v in json.loads(arguments).items())
            return f"[{tool}({values})]"
