"""The checker of streams sees what is wrong with one."""

import json

import pytest
from streams import check


def event(value) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def native(index, text, *, end=None, details=None) -> bytes:
    token = {"id": index, "text": text, "logprob": -1.0, "special": False}
    return event({"index": index, "token": token, "generated_text": end, "details": details})


def chat(delta, reason=None) -> bytes:
    head = {"object": "chat.completion.chunk", "id": "c", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return event({**head, "choices": [choice]})


def text(index, said, reason=None) -> bytes:
    head = {"object": "text_completion", "id": "c", "created": 1, "model": "m"}
    choice = {"index": index, "text": said, "logprobs": None, "finish_reason": reason}
    return event({**head, "choices": [choice]})


NATIVE, CHAT, TEXT = "/generate_stream", "/v1/chat/completions", "/v1/completions"
A, LAST = native(1, "a"), native(2, "b", end="ab")
ERROR = event({"error": "no", "error_type": "generation"})
ROLE, WORD, END = (
    chat({"role": "assistant", "content": ""}),
    chat({"content": "a"}),
    chat({}, "stop"),
)
OPENAI_ERROR = event({"error": {"message": "no"}, "error_type": "generation"})
DONE = b"data: [DONE]\n\n"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


def typed(kind, **more) -> bytes:
    return b"event: " + kind.encode() + b"\n" + event({"type": kind, **more})


def numbered(*pairs) -> bytes:
    return b"".join(
        typed(f"response.{kind}", **{"output_index": 0, **more}, sequence_number=number)
        for number, (kind, more) in enumerate(pairs)
    )


def answer(status, said) -> dict:
    output = [{"content": [{"text": said}]}]
    return {"response": {"status": status, "output": output, "usage": {}}}


PLAIN = {"message": "no"}
BEGUN = [
    ("created", {}),
    ("in_progress", {}),
    ("output_item.added", {}),
    ("content_part.added", {}),
]
WORDS = [("output_text.delta", {"delta": "a"}), ("output_text.delta", {"delta": "b"})]
DONES = [("output_text.done", {}), ("content_part.done", {}), ("output_item.done", {})]
COMPLETED = ("completed", answer("completed", "ab"))
FAILED = ("failed", {"error": PLAIN, "error_type": "generation"})
BLOCK = typed("content_block_start", index=0)
START = typed("message_start") + BLOCK + typed("ping")
GAIN = typed("content_block_delta", index=0, delta={"text": "a"})
BLOCK_STOP = typed("content_block_stop", index=0)
STOP = (
    BLOCK_STOP
    + typed("message_delta", delta={"stop_reason": "end_turn"}, usage={})
    + typed("message_stop")
)
ANTHROPIC_ERROR = typed("error", error=PLAIN, error_type="generation")
GOOD = [
    (NATIVE, A + LAST, "ab"),
    (NATIVE, b":\n\n" + A + b":\n\n" + LAST, "ab"),
    (NATIVE, A + ERROR, "a"),
    (NATIVE, ERROR, ""),
    (CHAT, ROLE + WORD + END + DONE, "a"),
    (CHAT, ROLE + WORD + OPENAI_ERROR + DONE, "a"),
    (TEXT, text(0, "a") + text(0, "b", "length") + DONE, "ab"),
    (RESPONSES, numbered(*BEGUN, *WORDS, *DONES, COMPLETED), "ab"),
    (RESPONSES, b":\n\n" + numbered(*BEGUN, *WORDS, FAILED), "ab"),
    (RESPONSES, numbered(FAILED), ""),
    (MESSAGES, START + GAIN + GAIN + STOP, "aa"),
    (MESSAGES, START + GAIN + ANTHROPIC_ERROR, "a"),
    (MESSAGES, ANTHROPIC_ERROR, ""),
]
BAD = {
    "no end": (NATIVE, A),
    "nothing": (NATIVE, b""),
    "two ends": (NATIVE, A + LAST + LAST),
    "an event after the end": (NATIVE, LAST + A),
    "an error after the end": (NATIVE, A + LAST + ERROR),
    "an event after an error": (NATIVE, ERROR + A),
    "done on a native route": (NATIVE, A + LAST + DONE),
    "an index left out": (NATIVE, A + native(3, "b", end="ab")),
    "another text at the end": (NATIVE, A + native(2, "b", end="ax")),
    "another count": (
        NATIVE,
        A + native(2, "b", end="ab", details={"generated_tokens": 3, "finish_reason": "length"}),
    ),
    "half an event": (NATIVE, A + LAST[:-1]),
    "no space": (NATIVE, (A + LAST).replace(b"data: ", b"data:")),
    "two lines": (NATIVE, (A + LAST).replace(b',"token"', b',\ndata: "token"')),
    "a raw line separator": (NATIVE, A + LAST.replace(b'"b"', '"\u2028"'.encode())),
    "carriage returns": (NATIVE, (A + LAST).replace(b"\n", b"\r\n")),
    "no done": (CHAT, ROLE + WORD + END),
    "two dones": (CHAT, ROLE + WORD + END + DONE + DONE),
    "no reason": (CHAT, ROLE + WORD + DONE),
    "two reasons": (CHAT, ROLE + END + END + DONE),
    "a word after the reason": (CHAT, ROLE + END + WORD + DONE),
    "a reason and an error": (CHAT, ROLE + END + OPENAI_ERROR + DONE),
    "no role": (CHAT, WORD + END + DONE),
    "an error without done": (CHAT, ROLE + OPENAI_ERROR),
    "an event after done": (CHAT, ROLE + END + DONE + WORD),
    "no reason of a text": (TEXT, text(0, "a") + DONE),
    "a text after its reason": (TEXT, text(0, "a", "stop") + text(0, "b") + DONE),
    "no end of a response": (RESPONSES, numbered(*BEGUN, *WORDS, *DONES)),
    "a failure after the end": (RESPONSES, numbered(*BEGUN, *WORDS, *DONES, COMPLETED, FAILED)),
    "no beginning of a response": (RESPONSES, numbered(*WORDS, *DONES, COMPLETED)),
    "a word after the words": (RESPONSES, numbered(*BEGUN, *DONES, *WORDS, COMPLETED)),
    "a step left out": (RESPONSES, numbered(*BEGUN, *WORDS, *DONES[1:], COMPLETED)),
    "another text of a response": (RESPONSES, numbered(*BEGUN, WORDS[0], *DONES, COMPLETED)),
    "an item that does not end": (RESPONSES, numbered(*BEGUN, *WORDS, *DONES[:2], COMPLETED)),
    "arguments of a text": (
        RESPONSES,
        numbered(*BEGUN, ("function_call_arguments.delta", {"delta": "ab"}), *DONES, COMPLETED),
    ),
    "a gain of another item": (
        RESPONSES,
        numbered(
            *BEGUN, ("output_text.delta", {"delta": "ab", "output_index": 1}), *DONES, COMPLETED
        ),
    ),
    "another status": (
        RESPONSES,
        numbered(*BEGUN, *WORDS, *DONES, ("completed", answer("incomplete", "ab"))),
    ),
    "numbers that jump": (RESPONSES, numbered(*BEGUN) + numbered(FAILED)),
    "a name of another type": (MESSAGES, START + GAIN.replace(b"_delta", b"_stop", 1) + STOP),
    "no name": (MESSAGES, START + event({"type": "content_block_delta", "index": 0}) + STOP),
    "a block that does not end": (MESSAGES, START + GAIN + STOP.removeprefix(BLOCK_STOP)),
    "a block within a block": (MESSAGES, START + BLOCK + GAIN + STOP),
    "a gain of another block": (MESSAGES, START + GAIN.replace(b":0,", b":1,") + STOP),
    "no block": (MESSAGES, typed("message_start") + STOP.removeprefix(BLOCK_STOP)),
    "done on a typed route": (MESSAGES, START + GAIN + STOP + DONE),
    "no usage": (MESSAGES, START + GAIN + BLOCK_STOP + typed("message_stop")),
    "an event after an error of Anthropic's": (MESSAGES, START + ANTHROPIC_ERROR + GAIN),
}


@pytest.mark.parametrize(("path", "body", "said"), GOOD)
def test_a_good_stream_passes(path, body, said):
    assert check(path, body).text == said


@pytest.mark.parametrize("name", BAD)
def test_a_bad_stream_does_not(name):
    with pytest.raises((AssertionError, KeyError)):
        check(*BAD[name])


def test_a_stream_that_was_cut_has_no_end():
    assert check(NATIVE, A + LAST[:10], is_whole=False).text == "a"
    assert check(CHAT, ROLE + WORD, is_whole=False).text == "a"
    for path, body in ((NATIVE, A + LAST), (CHAT, ROLE + END + DONE)):
        with pytest.raises(AssertionError):
            check(path, body, is_whole=False)
