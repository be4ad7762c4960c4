"""A scripted model that thinks, talks and calls, and the template that goes with it."""

from in_process import EOS, byte_tokenizer

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
QWEN = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<think>{% if enable_thinking is false %}</think>{% endif %}"
    "\n{% endif %}"
)
"""Opens the thought itself, as those of several models do."""
SAYS = (
    'I ask.</think>\n\nLet me see.\n<tool_call>\n{"name": "get_weather", "arguments": '
    '{"city": "Köln \\"}\\""}}\n</tool_call>\n<tool_call>{"name": "now", "arguments": {}}'
    "</tool_call>"
)
CALLS = [("get_weather", {"city": 'Köln "}"'}), ("now", {})]


def script(text):
    """Let the model say a text and end."""
    return [*byte_tokenizer().encode(text), EOS]


def last_prompt(server):
    """Spell the prompt of the last sequence."""
    joins = [join for batch in server.runner.batches for join in batch.join]
    return byte_tokenizer().decode(list(joins[-1].token_ids))
