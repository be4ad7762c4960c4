"""What the commands make of a server's events and refusals, without a server."""

import pytest

from server.client.answer import Answer, AnswerToken
from server.client.asking import (
    Sampling,
    chat_body,
    completion_body,
    dialect_of,
    full_url,
    native_body,
)
from server.client.failure import ExitCode, Failure, refusal
from server.client.summary import details, speed_line, token_table
from server.question import Dialect

DRAWN = Sampling(
    max_new_tokens=5,
    temperature=1.0,
    top_p=0.9,
    top_k=7,
    repetition_penalty=1.2,
    seed=3,
    stop=("a", "b"),
)


def filled(*events):
    """Fill an answer with events that come a second after each other, the first after 0.5 s."""
    answer = Answer(sent=10.0)
    texts = [answer.add(event, 10.5 + number) for number, event in enumerate(events)]
    assert "".join(texts) == answer.text
    return answer


def native(text, special=False, logprob=-0.5, **end):
    token = {"id": 1, "text": text, "logprob": logprob, "special": special}
    return {"token": token, "generated_text": None, "details": None} | end


def test_a_native_answer_has_its_text_and_what_its_end_tells():
    told = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 9}
    told |= {"seed": 4, "cached_tokens": 2}
    answer = filled(
        native("a"), native("ü"), native("</s>", True, None, generated_text="aü", details=told)
    )
    answer.check_end()
    assert answer.text == "aü"
    assert answer.tokens == [
        AnswerToken("a", -0.5),
        AnswerToken("ü", -0.5),
        AnswerToken("</s>", None),
    ]
    assert details(answer).splitlines() == [
        "finish reason  eos_token",
        "tokens         3",
        "prompt tokens  9 (2 from the cache)",
        "seed           4",
    ]
    assert speed_line(answer) == "first token after 500 ms, 3 tokens, 1.0 tokens/s"
    assert speed_line(answer, "cancelled").endswith("tokens/s, cancelled")


def test_a_native_end_without_details_is_an_end():
    answer = filled(native("a", generated_text="a"))
    answer.check_end()
    assert details(answer).splitlines()[2:] == ["prompt tokens  -", "seed           -"]
    assert speed_line(answer) == "first token after 500 ms, 1 token"


def choice(finish_reason=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def test_a_chats_greeting_is_no_token():
    usage = {"prompt_tokens": 4, "completion_tokens": 3}
    answer = filled(
        choice(role="assistant", content=""),
        choice(content="a"),
        choice(content=""),
        choice(content="b"),
        choice("stop"),
        {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 1}}},
    )
    assert (answer.text, answer.num_events, answer.count) == ("ab", 3, 3)
    assert answer.first == 11.5
    assert (answer.finish_reason, answer.num_cached_tokens) == ("stop", 1)
    assert speed_line(answer).startswith("first token after 1500 ms, 3 tokens, 1.0 tokens/s")


def test_thoughts_are_tokens_and_no_part_of_the_answer():
    answer = filled(
        choice(role="assistant", content=""),
        choice(reasoning_content="Hm"),
        choice(reasoning_content="."),
        choice(content="a"),
        choice("stop"),
    )
    assert (answer.text, answer.thoughts, answer.num_events) == ("a", "Hm.", 3)
    assert answer.first == 11.5


def test_an_answer_without_a_count_has_that_of_its_events():
    answer = filled(choice(role="assistant", content="a"), choice(content="b"), choice("length"))
    assert (answer.text, answer.count) == ("ab", 2)


def test_completions_show_tokens_where_logprobs_were_asked_for():
    shown = {"tokens": ["a", "b"], "token_logprobs": [-0.1, None]}
    answer = filled({"choices": [{"text": "ab", "logprobs": shown, "finish_reason": "stop"}]})
    assert token_table(answer).splitlines() == [
        "token  logprob  probability",
        '"a"     -0.100       90.5 %',
        '"b"          -            -',
    ]
    assert token_table(Answer()) == "the server showed no tokens"


def test_a_token_is_shown_with_its_control_characters_written_out():
    assert '"\\u001b[2J\\n"' in token_table(filled(native("\x1b[2J\n")))


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"error": "boom", "error_type": "generation"}, "an error: boom"),
        ({"error": {"message": "boom", "type": "x"}}, "an error: boom"),
        ({"token": 3}, "not an event of TGI or OpenAI"),
        ({"token": None}, "not an event of TGI or OpenAI"),
        ({"choices": [3]}, "not an event of TGI or OpenAI"),
        ({"choices": [], "usage": {}}, "not an event of TGI or OpenAI"),
    ],
)
def test_what_is_no_event_or_an_error_ends_the_answer_and_keeps_its_text(event, sentence):
    answer = filled(native("a"))
    with pytest.raises(Failure, match=sentence) as failure:
        answer.add(event, 12.0)
    assert failure.value.code is ExitCode.FAILED
    assert answer.text == "a"


def test_a_stream_that_only_stops_has_no_end():
    with pytest.raises(Failure, match="has no end") as failure:
        filled(native("a")).check_end()
    assert failure.value.code is ExitCode.UNREACHABLE


REFUSALS = [
    (429, {"Retry-After": "3"}, b'{"error":"full"}', "ask again in 3 s (full)", 4),
    (429, {"Retry-After": "Fri, 1 Jan"}, b"", "ask again after Fri, 1 Jan", 4),
    (429, {}, b"", "ask again in a little while", 4),
    (401, {}, b'{"error":"no key"}', "wants a key: give it with --key or in MILLRACE_API_KEY", 1),
    (404, {}, b"Not Found", "http://a answers 404: Not Found; look at --url and --dialect", 1),
    (422, {}, b'{"error":"`top_p` is wrong","error_type":"validation"}', "`top_p` is wrong", 1),
    (422, {}, b'{"error":{"message":"`top_p`"}}', "`top_p`", 1),
    (400, {}, b'{"detail":"wrong"}', "wrong", 1),
    (400, {}, b'{"message":"wrong"}', "wrong", 1),
    (400, {}, b"[1]", "[1]", 1),
    (418, {}, b"", "http://a answers 418 and gives no reason", 1),
    (500, {}, b"broken", "the server failed with 500: broken", 1),
    (503, {}, b"", "the server failed with 503: it gave no reason", 1),
]


@pytest.mark.parametrize(("status", "headers", "body", "sentence", "code"), REFUSALS)
def test_a_refusal_says_what_to_do(status, headers, body, sentence, code):
    failure = refusal("http://a", status, headers, body)
    assert sentence in str(failure)
    assert failure.code == code


def test_sampling_goes_by_each_dialects_names():
    assert native_body("p", DRAWN) == {
        "inputs": "p",
        "parameters": {
            "max_new_tokens": 5,
            "temperature": 1.0,
            "top_p": 0.9,
            "top_k": 7,
            "repetition_penalty": 1.2,
            "seed": 3,
            "stop": ["a", "b"],
            "details": True,
            "do_sample": True,
        },
    }
    openai = {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 7,
        "repetition_penalty": 1.2,
        "seed": 3,
        "stop": ["a", "b"],
    }
    completion = completion_body("p", DRAWN, "m", has_logprobs=True)
    assert completion == openai | {"prompt": "p", "logprobs": 1}
    messages = [{"role": "user", "content": "hi"}]
    assert chat_body(messages, DRAWN, "m") == openai | {"messages": messages}


def test_without_a_sampling_option_a_completion_is_greedy_in_both_dialects():
    assert native_body("p", Sampling())["parameters"] == {"details": True, "do_sample": False}
    body = completion_body("p", Sampling(), "m", has_logprobs=False)
    assert body["temperature"] == 0.0
    assert "logprobs" not in body
    assert "temperature" not in chat_body([], Sampling(), "m")


def test_info_tells_tgi_from_the_rest():
    assert dialect_of({"model_id": "a"}) is Dialect.TGI
    assert dialect_of({"name": "a"}) is Dialect.COMPLETIONS
    assert dialect_of(None) is Dialect.COMPLETIONS


def test_an_address_needs_no_scheme():
    assert full_url("localhost:3000/") == "http://localhost:3000"
    assert full_url("https://a/v1/") == "https://a/v1"
