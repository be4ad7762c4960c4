"""The grammar of our streams: what every one obeys, whatever it says.

    stream  = *(event | comment), each ended by one blank line, ASCII only
    native  = *token last | *token error                 no [DONE]
    chat    = role *content reason [usage] [DONE] | [role *content] error [DONE]
    text    = *token, one of each index with its reason, [usage] [DONE] | *token error [DONE]
    typed   = *event last | *event error                 each named by its type, no [DONE]

A stream that ends cleanly has exactly one end; one that was cut has none. `check_*` raise
AssertionError, and return what the stream says.
"""

import json
from dataclasses import dataclass, field

COMMENT = b":"
DONE = b"data: [DONE]"


@dataclass
class Said:
    """What a stream said, put together."""

    text: str = ""
    """What a person would read."""
    events: list[dict] = field(default_factory=list)
    """All events in order, without [DONE] and comments."""
    token_ids: list[int] = field(default_factory=list)
    """Native streams only."""
    finish_reason: str | None = None
    usage: dict | None = None
    error: dict | None = None
    texts: dict[int, str] = field(default_factory=dict)
    """Completions: one text an index."""
    num_comments: int = 0


def check(path: str, body: bytes, *, is_whole: bool = True, num_prompts: int = 1) -> Said:
    """Check a stream by the grammar of the route it came from."""
    if path == "/v1/chat/completions":
        return check_chat(body, is_whole=is_whole)
    if path == "/v1/completions":
        return check_completions(body, is_whole=is_whole, num_prompts=num_prompts)
    if path == "/v1/responses":
        return check_responses(body, is_whole=is_whole)
    if path == "/v1/messages":
        return check_messages(body, is_whole=is_whole)
    return check_native(body, is_whole=is_whole)


def check_native(body: bytes, *, is_whole: bool = True) -> Said:
    """Check a stream of `/generate_stream` or `/`."""
    blocks, said = _blocks(body, is_whole)
    assert DONE not in blocks, "[DONE] on a native route breaks the old client"
    said.events = [_data(block) for block in blocks]
    ends = [number for number, event in enumerate(said.events) if _is_native_end(event)]
    _one_end(ends, len(said.events), is_whole)
    for number, event in enumerate(said.events, start=1):
        if "error" in event:
            said.error = _native_error(event)
            break
        said.token_ids.append(_native_token(event, number))
    tokens = [event["token"] for event in said.events if "token" in event]
    said.text = "".join(token["text"] for token in tokens if not token["special"])
    if ends and said.error is None:
        _check_native_end(said)
    return said


def check_chat(body: bytes, *, is_whole: bool = True) -> Said:
    """Check a stream of `/v1/chat/completions`."""
    chunks, said = _openai(body, "chat.completion.chunk", is_whole)
    if chunks:
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    for chunk in chunks:
        assert said.usage is None, "a chunk after the usage"
        if not chunk["choices"]:
            assert said.finish_reason is not None, "the usage came before the reason"
            said.usage = chunk["usage"]
            continue
        (choice,) = chunk["choices"]
        assert said.finish_reason is None, "a chunk after the reason"
        said.text += choice["delta"].get("content", "")
        said.finish_reason = choice["finish_reason"]
    _check_end(said, is_whole, said.finish_reason is not None)
    return said


def check_completions(body: bytes, *, is_whole: bool = True, num_prompts: int = 1) -> Said:
    """Check a stream of `/v1/completions`."""
    chunks, said = _openai(body, "text_completion", is_whole)
    reasons: dict[int, str] = {}
    for chunk in chunks:
        assert said.usage is None, "a chunk after the usage"
        if not chunk["choices"]:
            said.usage = chunk["usage"]
            continue
        (choice,) = chunk["choices"]
        index = choice["index"]
        assert index not in reasons, f"a chunk of index {index} after its reason"
        said.texts[index] = said.texts.get(index, "") + choice["text"]
        if choice["finish_reason"] is not None:
            reasons[index] = choice["finish_reason"]
    said.text, said.finish_reason = said.texts.get(0, ""), reasons.get(0)
    _check_end(said, is_whole, len(reasons) == num_prompts)
    return said


PARTS = {"output_text": "text", "reasoning_text": "text", "function_call_arguments": "arguments"}
"""What items of a response hold, and the key that has it whole."""


def check_responses(body: bytes, *, is_whole: bool = True) -> Said:
    """Check a stream of `/v1/responses`."""
    ends = ("response.completed", "response.incomplete")
    said = _typed(body, is_whole, ends, "response.failed")
    numbered = [*said.events, *([said.error] if said.error else [])]
    assert [event["sequence_number"] for event in numbered] == [*range(len(numbered))]
    steps = [event for event in said.events if event["type"] not in ends]
    kinds = [event["type"] for event in steps[:2]]
    assert kinds == ["response.created", "response.in_progress"][: len(kinds)]
    is_finished = is_whole and said.error is None
    said.texts = _items(steps[2:], is_finished=is_finished)
    deltas = [e["delta"] for e in said.events if e["type"] == "response.output_text.delta"]
    said.text = "".join(deltas)
    if is_finished:
        answer = said.events[-1]["response"]
        for index, item in enumerate(answer["output"]):
            whole = item["arguments"] if "arguments" in item else item["content"][0]["text"]
            assert whole == said.texts[index], "joined deltas are not the item"
        assert len(answer["output"]) == len(said.texts)
        assert said.events[-1]["type"] == f"response.{answer['status']}"
        said.finish_reason, said.usage = answer["status"], answer["usage"]
    return said


def _items(steps: list[dict], *, is_finished: bool) -> dict[int, str]:
    """Check that items come one after another, each whole; return what each gained."""
    texts: dict[int, str] = {}
    expected = ["output_item.added"]
    for step in steps:
        kind, index = step["type"].removeprefix("response."), step["output_index"]
        assert kind in expected, f"{kind} instead of {expected}"
        part, _, stage = kind.rpartition(".")
        if kind == "output_item.added":
            assert index == len(texts)
            texts[index] = ""
            is_call = step.get("item", {}).get("type") == "function_call"
            one = "function_call_arguments"
            expected = [f"{one}.delta", f"{one}.done"] if is_call else ["content_part.added"]
        elif kind == "content_part.added":
            one = step.get("part", {}).get("type", "output_text")
            expected = [f"{one}.delta", f"{one}.done"]
        elif stage == "delta":
            texts[index] += step["delta"]
        elif part in PARTS:
            assert step.get(PARTS[part], texts[index]) == texts[index]
            is_call = part == "function_call_arguments"
            expected = ["output_item.done" if is_call else "content_part.done"]
        else:
            is_item = kind == "output_item.done"
            expected = ["output_item.added" if is_item else "output_item.done"]
        assert index == len(texts) - 1
    if is_finished:
        assert texts
        assert expected == ["output_item.added"], f"the end instead of {expected}"
    return texts


def check_messages(body: bytes, *, is_whole: bool = True) -> Said:
    """Check a stream of `/v1/messages`."""
    said = _typed(body, is_whole, ("message_stop",), "error")
    steps = [event["type"] for event in said.events]
    is_finished = is_whole and said.error is None
    head, tail = steps[:1], steps[-2:] if is_finished else []
    assert head == ["message_start"][: len(head)]
    assert tail == (["message_delta", "message_stop"] if is_finished else [])
    blocks = said.events[1 : len(steps) - len(tail)]
    _check_blocks([event for event in blocks if event["type"] != "ping"], is_finished=is_finished)
    deltas = [event["delta"] for event in blocks if event["type"] == "content_block_delta"]
    said.text = "".join(delta.get("text", "") for delta in deltas)
    if is_finished:
        end = said.events[-2]
        said.finish_reason, said.usage = end["delta"]["stop_reason"], end["usage"]
    return said


def _check_blocks(steps: list[dict], *, is_finished: bool) -> None:
    """Check that blocks come one after another, each with its beginning and its end."""
    num_blocks, is_open = 0, False
    for step in steps:
        kind = step["type"].removeprefix("content_block_")
        assert kind in (("delta", "stop") if is_open else ("start",)), kind
        assert step["index"] == num_blocks
        is_open = kind != "stop"
        num_blocks += kind == "stop"
    if is_finished:
        assert num_blocks
        assert not is_open


def _typed(body: bytes, is_whole: bool, ends: tuple[str, ...], failure: str) -> Said:
    """Check what streams of named events have in common."""
    blocks, said = _blocks(body, is_whole, is_named=True)
    for block in blocks:
        name, data = block.split(b"\n", 1)
        said.events.append(_data(data))
        assert name == b"event: " + said.events[-1]["type"].encode(), "another name than type"
    types = [event["type"] for event in said.events]
    _one_end([i for i, t in enumerate(types) if t in (*ends, failure)], len(types), is_whole)
    if failure in types:
        said.error = said.events.pop()
        assert said.error["error"]["message"]
        assert said.error["error_type"]
    return said


def _blocks(body: bytes, is_whole: bool, *, is_named: bool = False) -> tuple[list[bytes], Said]:
    """Split into events; a stream that was cut may end inside of one."""
    assert body.isascii(), "raw characters such as U+2028 break clients that split lines"
    assert b"\r" not in body
    *blocks, rest = body.split(b"\n\n")
    assert not (is_whole and rest), f"the stream ends inside an event: {rest!r}"
    said = Said(num_comments=blocks.count(COMMENT))
    events = [block for block in blocks if block != COMMENT]
    for block in events:
        assert block.startswith(b"event: " if is_named else b"data: "), block
        assert block.count(b"\n") == is_named, f"one data line an event: {block!r}"
    return events, said


def _data(block: bytes) -> dict:
    event = json.loads(block.removeprefix(b"data: "))
    assert isinstance(event, dict)
    return event


def _one_end(ends: list[int], num_events: int, is_whole: bool) -> None:
    if is_whole:
        assert ends == [num_events - 1], f"ends at {ends} of {num_events} events"
    else:
        assert not ends, "the stream has its end, so it is not cut"


def _is_native_end(event: dict) -> bool:
    return "error" in event or event["generated_text"] is not None


def _native_error(event: dict) -> dict:
    assert set(event) == {"error", "error_type"}, event
    assert isinstance(event["error"], str)
    return event


def _native_token(event: dict, number: int) -> int:
    keys = [key for key in event if key != "top_tokens"]
    assert keys == ["index", "token", "generated_text", "details"], keys
    assert event["index"] == number
    assert list(event["token"]) == ["id", "text", "logprob", "special"]
    assert event["details"] is None or event["generated_text"] is not None
    return event["token"]["id"]


def _check_native_end(said: Said) -> None:
    last = said.events[-1]
    assert last["generated_text"].endswith(said.text), "joined tokens are not the text"
    if (details := last["details"]) is not None:
        said.finish_reason = details["finish_reason"]
        assert details["generated_tokens"] == len(said.token_ids)
        said.usage = details


def _openai(body: bytes, kind: str, is_whole: bool) -> tuple[list[dict], Said]:
    """Check what chunks have in common; return those that are not errors."""
    blocks, said = _blocks(body, is_whole)
    ends = [number for number, block in enumerate(blocks) if block == DONE]
    _one_end(ends, len(blocks), is_whole)
    said.events = [_data(block) for block in blocks if block != DONE]
    chunks = [event for event in said.events if "error" not in event]
    assert len(said.events) - len(chunks) <= 1, "more than one error"
    if len(chunks) < len(said.events):
        assert "error" in said.events[-1], "an event after the error"
        said.error = said.events[-1]
        assert said.error["error"]["message"]
        assert said.error["error_type"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) <= 1
    for chunk in chunks:
        assert chunk["object"] == kind
        assert chunk["id"]
    return chunks, said


def _check_end(said: Said, is_whole: bool, is_finished: bool) -> None:
    if is_whole:
        assert is_finished != (said.error is not None), "neither reason nor error, or both"
