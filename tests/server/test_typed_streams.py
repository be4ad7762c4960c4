"""Streams with typed events: however the text came in pieces, they add up to the whole answer."""

import json

import pytest
from dialect_config import dialect_config
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_turns import NAMES, cut, turns
from streams import check_messages, check_responses

from engine import Delta, Finish, FinishReason, Token, Usage
from server.dialects.call import EncodedPrompt
from server.dialects.messages import MessagesDialect
from server.dialects.responses import ResponsesDialect
from server.dialects.tools.formats import FORMATS
from server.dialects.tools.turn import Kind

USER = {"role": "user", "content": "Hi"}
USAGE = Usage(5, 2, 9, 0.0, 0.0, 0.0)
REASONS = [FinishReason.EOS_TOKEN, FinishReason.LENGTH]
untimed = settings(deadline=None, max_examples=60)
every_format = pytest.mark.parametrize("name", FORMATS)


def ask_messages(config, has_tools, is_stream):
    asked = {"messages": [USER], "max_tokens": 9, "stream": is_stream}
    if has_tools:
        asked["tools"] = [{"name": name, "input_schema": {}} for name in sorted(NAMES)]
    return MessagesDialect(config).parse(json.dumps(asked).encode())


def ask_responses(config, has_tools, is_stream):
    asked = {"input": "Hi", "stream": is_stream, "include": ["message.output_text.logprobs"]}
    if has_tools:
        asked["tools"] = [{"type": "function", "name": name} for name in sorted(NAMES)]
    return ResponsesDialect(config).parse(json.dumps(asked).encode())


def answered(call, deltas, ending):
    reply = call.reply("r", 0, [EncodedPrompt(5, ending)])
    return b"".join([*(reply.delta(0, delta) for delta in deltas), reply.end()])


def deltas_of(pieces, sizes, reason, logprob):
    """Make a token of each piece and put some into one delta; the last one may have none."""
    tokens = [Token(1, piece, piece, False, logprob) for piece in pieces]
    finish = Finish(reason, "".join(pieces), USAGE)
    while tokens:
        size = sizes.pop() if sizes else 1
        taken, tokens = tokens[:size], tokens[size:]
        yield Delta(tuple(taken), None if tokens else finish)
    if not pieces:
        yield Delta((), finish)


def blocks_of(body):
    """Put the blocks of a stream together as a client does."""
    said = check_messages(body)
    blocks = []
    for event in said.events:
        if event["type"] == "content_block_start":
            blocks.append((event["content_block"], []))
        elif event["type"] == "content_block_delta":
            blocks[event["index"]][1].append(event["delta"])
    return [(block["type"], block.get("name"), joined(deltas)) for block, deltas in blocks]


def joined(deltas):
    return "".join(
        delta.get("text", delta.get("thinking", delta.get("partial_json", ""))) for delta in deltas
    )


def whole_blocks(body):
    return [
        (block["type"], block.get("name"), block.get("text", block.get("thinking")))
        for block in json.loads(body)["content"]
    ]


def without_ids(items):
    return [
        {key: value for key, value in item.items() if key not in ("id", "call_id", "content")}
        | {"texts": [part["text"] for part in item.get("content", ())]}
        for item in items
    ]


def made_up(data, name):
    """Draw a configuration, a text and a way in which it comes."""
    config = dialect_config(tool_format=name, has_reasoning=data.draw(st.booleans()))
    pieces = cut(data.draw(turns(name)), data.draw(st.lists(st.integers(0, 500), max_size=8)))
    sizes = data.draw(st.lists(st.integers(1, 3), max_size=8))
    reason = data.draw(st.sampled_from(REASONS))
    logprob = data.draw(st.sampled_from([None, -1.0]))
    split = list(deltas_of(pieces, sizes, reason, logprob))
    return config, list(deltas_of(["".join(pieces)], [], reason, logprob)), split


def parsed(call, text, ending):
    """Say what a whole text holds, by the parser alone: content, thoughts and calls."""
    parser = call.parser([EncodedPrompt(5, ending)])
    if parser is None:
        return text, "", []
    gains = parser.feed(text) + parser.end()
    return (
        "".join(gain.text for gain in gains if gain.kind is Kind.CONTENT),
        "".join(gain.text for gain in gains if gain.kind is Kind.REASONING),
        [gain.text for gain in gains if gain.kind is Kind.CALL],
    )


def sorted_out(blocks, text, thought, called):
    """Say the same of (kind, name, text) of each block, for the names that kinds have."""
    return (
        "".join(block[2] for block in blocks if block[0] == text),
        "".join(block[2] for block in blocks if block[0] == thought),
        [block[1] for block in blocks if block[0] == called],
    )


@every_format
@untimed
@given(data=st.data(), has_tools=st.booleans(), ending=st.sampled_from(["", "<think>\n"]))
def test_the_events_of_messages_add_up_to_the_whole_answer(name, data, has_tools, ending):
    config, in_one, split = made_up(data, name)
    whole = answered(ask_messages(config, has_tools, False), in_one, ending)
    stream = answered(ask_messages(config, has_tools, True), split, ending)
    blocks = blocks_of(stream)
    inputs = [block.get("input") for block in json.loads(whole)["content"]]
    for (kind, tool, text), (whole_kind, whole_tool, whole_text), arguments in zip(
        blocks, whole_blocks(whole), inputs, strict=True
    ):
        assert (kind, tool) == (whole_kind, whole_tool)
        if kind == "tool_use":
            assert arguments == {"INVALID_JSON": text} or arguments == json.loads(text or "{}")
        else:
            assert text == whole_text
    found = sorted_out(blocks, "text", "thinking", "tool_use")
    call = ask_messages(config, has_tools, True)
    assert found == parsed(call, in_one[0].finish.text, ending)
    assert check_messages(stream).finish_reason == json.loads(whole)["stop_reason"]


@every_format
@untimed
@given(data=st.data(), has_tools=st.booleans(), ending=st.sampled_from(["", "<think>\n"]))
def test_the_events_of_responses_add_up_to_the_whole_answer(name, data, has_tools, ending):
    config, in_one, split = made_up(data, name)
    whole = json.loads(answered(ask_responses(config, has_tools, False), in_one, ending))
    said = check_responses(answered(ask_responses(config, has_tools, True), split, ending))
    last = said.events[-1]["response"]
    assert without_ids(last["output"]) == without_ids(whole["output"])
    for usage in (last["usage"], whole["usage"]):
        del usage["output_tokens_details"]  # pieces are other tokens than the whole
    assert (last["status"], last["usage"]) == (whole["status"], whole["usage"])
    blocks = [
        (item["type"], item.get("name"), said.texts[index])
        for index, item in enumerate(last["output"])
    ]
    found = sorted_out(blocks, "message", "reasoning", "function_call")
    call = ask_responses(config, has_tools, True)
    assert found == parsed(call, in_one[0].finish.text, ending)
    done = [event for event in said.events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == last["output"]
    for event in said.events:
        if event["type"] == "response.output_text.done":
            deltas = [
                logprob
                for other in said.events
                if other["type"] == "response.output_text.delta"
                and other["output_index"] == event["output_index"]
                for logprob in other["logprobs"]
            ]
            assert event["logprobs"] == deltas
