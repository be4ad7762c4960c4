"""What completions and chat share: what each field comes to, and each bound violated once."""

import json

import pytest
from dialect_config import dialect_config

from engine import LogprobsMode, SamplingParams
from server.dialects.chat import ChatDialect
from server.dialects.completions import CompletionsDialect
from server.errors import Problem

BIAS = "`logit_bias` must map token ids >= 0 and < 32000. Given: "
SEED = f"`seed` must be >= {-(2**63)} and <= {2**64 - 1}. Given: "
TOP = "Input validation error: "
ROUTES = {
    "completions": (CompletionsDialect, {"prompt": "A"}),
    "chat": (ChatDialect, {"messages": [{"role": "user", "content": "A"}]}),
}
both = pytest.mark.parametrize("route", ROUTES)


def parse(route, **fields):
    dialect, needed = ROUTES[route]
    return dialect(dialect_config()).parse(json.dumps({**needed, **fields}).encode())


def generation(route, **fields):
    return parse(route, **fields).generations()[0]


def refusal(route, **fields):
    with pytest.raises(Problem) as caught:
        generation(route, **fields)
    assert caught.value.status == 422
    return caught.value


@both
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"temperature": 1}, {}),
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"temperature": 1e-300}, {"temperature": 1e-4}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0, "do_sample": True, "top_p": 0.5}, {"do_sample": False, "top_p": 0.5}),
        ({"do_sample": False}, {"do_sample": False}),
        ({"do_sample": False, "temperature": 1, "top_p": 1, "top_k": 0}, {"do_sample": False}),
        ({"do_sample": False, "temperature": 0.8}, {"temperature": 0.8}),
        ({"do_sample": False, "min_p": 0.1}, {"min_p": 0.1}),
        ({"top_p": 1, "typical_p": 1, "min_p": 0}, {}),
        ({"top_p": 0.9, "typical_p": 0.8}, {"top_p": 0.9, "typical_p": 0.8}),
        ({"top_k": 0}, {}),
        ({"top_k": -1}, {}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"min_p": 1}, {"min_p": 1.0}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"seed": -(2**63)}, {"seed": 2**63}),
        ({"seed": 2**64 - 1}, {"seed": 2**64 - 1}),
        ({"frequency_penalty": 2, "presence_penalty": -2},
         {"frequency_penalty": 2.0, "presence_penalty": -2.0}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
        ({"stop": []}, {}),
        ({"logit_bias": {"0": -100, "31999": 100}}, {"logit_bias": ((0, -100.0), (31_999, 100.0))}),
        ({"ignore_eos": True, "min_tokens": 3}, {"ignore_eos": True, "min_new_tokens": 3}),
        ({"min_new_tokens": 3}, {"min_new_tokens": 3}),
        ({"watermark": True}, {"watermark": True}),
        ({"prefix_caching": False}, {"is_prefix_cached": False}),
        ({"n": 1, "best_of": 1, "suffix": None, "user": "u", "model": "dummy"}, {}),
        ({"response_format": {"type": "text"}, "stream_options": {"x": 1}, "logit_bias": {}}, {}),
        ({"adapter_id": None, "grammar": None, "details": True, "top_n_tokens": 3}, {}),
    ],
)  # fmt: skip
def test_fields_come_to(route, fields, expected):
    params = generation(route, **{"seed": 5, **fields}).params
    assert params == SamplingParams(
        **{"max_new_tokens": 1, "do_sample": True, "seed": 5} | expected
    )


@both
def test_every_field_may_be_null(route):
    body = type(parse(route).asked)
    nulls = {field: None for field in body.__struct_fields__ if field not in ("prompt", "messages")}
    assert generation(route, **nulls).params.do_sample is True


@both
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.1}, "`temperature` must be >= 0.0 and <= 1000.0. Given: -0.1"),
        ({"temperature": 1001}, "`temperature` must be >= 0.0 and <= 1000.0. Given: 1001.0"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive. Given: 0.0"),
        ({"repetition_penalty": 1001}, "`repetition_penalty` must be <= 1000.0. Given: 1001.0"),
        ({"frequency_penalty": 2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0. Given: 2.5"),
        ({"presence_penalty": -3}, "`presence_penalty` must be >= -2.0 and <= 2.0. Given: -3.0"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and <= 1.0. Given: 0.0"),
        ({"top_p": 1.1}, "`top_p` must be > 0.0 and <= 1.0. Given: 1.1"),
        ({"typical_p": 0}, "`typical_p` must be > 0.0 and <= 1.0. Given: 0.0"),
        ({"min_p": -0.5}, "`min_p` must be >= 0.0 and <= 1.0. Given: -0.5"),
        ({"min_p": 1.5}, "`min_p` must be >= 0.0 and <= 1.0. Given: 1.5"),
        ({"top_k": -2}, "`top_k` must be >= -1. Given: -2"),
        ({"max_tokens": 0}, "`max_tokens` must be strictly positive. Given: 0"),
        ({"max_completion_tokens": 0},
         "`max_completion_tokens` must be strictly positive. Given: 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive. Given: 0"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"stop": ""}, "`stop` must not contain an empty string"),
        ({"seed": 2**64}, SEED + str(2**64)),
        ({"seed": -(2**63) - 1}, SEED + str(-(2**63) - 1)),
        ({"logit_bias": {"32000": 1}}, BIAS + "32000"),
        ({"logit_bias": {"-1": 1}}, BIAS + "-1"),
        ({"logit_bias": {"x": 1}}, BIAS + "x"),
        ({"logit_bias": {"\u0661": 1}}, BIAS + "\u0661"),
        ({"logit_bias": {"": 1}}, BIAS + ""),
        ({"logit_bias": {"1": 100.5}}, "`logit_bias` must be >= -100.0 and <= 100.0. Given: 100.5"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 1023. Given: 0"),
        ({"truncate": 1024},
         "`truncate` must be strictly positive and less than 1023. Given: 1024"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_told_with_its_limit(route, fields, message):
    assert refusal(route, **fields).message == TOP + message
    assert parse(route, **fields).num_permits == 1  # ranges come after the permit


@both
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "`n` must be >= 1 and <= 16. Given: 0"),
        ({"n": 17}, "`n` must be >= 1 and <= 16. Given: 17"),
        ({"max_tokens": 5, "max_completion_tokens": 6},
         "`max_completion_tokens` must equal `max_tokens` (5). Given: 6"),
        ({"max_tokens": 5, "max_completion_tokens": 5, "max_new_tokens": 6},
         "`max_new_tokens` must equal `max_tokens` (5). Given: 6"),
        ({"min_tokens": 5, "min_new_tokens": 6},
         "`min_new_tokens` must equal `min_tokens` (5). Given: 6"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name_before_the_permit(route, fields, message):
    with pytest.raises(Problem) as caught:
        parse(route, **fields)
    assert (caught.value.status, caught.value.message) == (422, TOP + message)


@both
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": 1}, "`model`: expected `str | null`, got `int`"),
        ({"model": "m" * 2049}, "`model`: expected `str` of length <= 2048"),
        ({"stream": 1}, "`stream`: expected `bool | null`, got `int`"),
        ({"stream_options": []}, "`stream_options`: expected `object | null`, got `array`"),
        ({"max_tokens": -1}, "`max_tokens`: expected `int` >= 0"),
        ({"max_tokens": 2**32}, "`max_tokens`: expected `int` <= 4294967295"),
        ({"temperature": "1"}, "`temperature`: expected `float | null`, got `str`"),
        ({"top_k": 2**31}, "`top_k`: expected `int` <= 2147483647"),
        ({"seed": 1.5}, "`seed`: expected `int | null`, got `float`"),
        ({"n": -1}, "`n`: expected `int` >= 0"),
        ({"stop": 1}, "`stop`: expected `str | array | null`, got `int`"),
        ({"stop": "x" * 1001}, "`stop`: expected `str` of length <= 1000"),
        ({"logit_bias": [1.0]}, "`logit_bias`: expected `object | null`, got `array`"),
        ({"logit_bias": {"1": True}}, "`logit_bias[...]`: expected `float`, got `bool`"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}},
         "`logit_bias`: expected `object` of length <= 1024"),
        ({"response_format": {}}, "`response_format.type` is missing"),
        ({"grammar": {}}, "`grammar.type` is missing"),
        ({"grammar": {"type": "regex", "value": 1}},
         "`grammar.value`: expected `str | object | array | null`, got `int`"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_told_with_its_path(route, fields, message):
    assert refusal(route, **fields).message == TOP + message


@both
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
def test_the_length_has_three_names(route, name):
    asked = generation(route, **{name: 7})
    assert (asked.max_new_tokens, asked.params.max_new_tokens) == (7, 7)


@both
def test_the_same_length_under_two_names_is_no_contradiction(route):
    assert generation(route, max_tokens=7, max_completion_tokens=7).max_new_tokens == 7


@both
def test_without_a_length_the_handler_fills_the_context(route):
    asked = generation(route)
    assert (asked.max_new_tokens, asked.truncate) == (None, None)


@both
def test_stop_strings_are_cut_and_the_end_token_wins_over_length(route):
    params = generation(route, stop="x").params
    assert (params.keep_stop, params.length_first) == (False, False)


@pytest.mark.parametrize(
    ("route", "fields", "expected"),
    [
        ("completions", {}, (None, 0)),
        ("completions", {"logprobs": 0}, (LogprobsMode.RAW, 0)),
        ("completions", {"logprobs": 20}, (LogprobsMode.RAW, 20)),
        ("chat", {"logprobs": False}, (None, 0)),
        ("chat", {"logprobs": True}, (LogprobsMode.RAW, 0)),
        ("chat", {"logprobs": True, "top_logprobs": 20}, (LogprobsMode.RAW, 20)),
        ("chat", {"top_logprobs": 0}, (None, 0)),
    ],
)
def test_logprobs_are_the_models_own(route, fields, expected):
    params = generation(route, **fields).params
    assert (params.logprobs, params.num_top_logprobs) == expected


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("completions", {"logprobs": 21}, "`logprobs` must be >= 0 and <= 20. Given: 21"),
        ("completions", {"logprobs": -1}, "`logprobs`: expected `int` >= 0"),
        ("completions", {"logprobs": True}, "`logprobs`: expected `int | null`, got `bool`"),
        ("completions", {"logprobs": 10**9},
         "`logprobs` must be >= 0 and <= 20. Given: 1000000000"),
        ("chat", {"logprobs": 1}, "`logprobs`: expected `bool | null`, got `int`"),
        ("chat", {"logprobs": True, "top_logprobs": 21},
         "`top_logprobs` must be >= 0 and <= 20. Given: 21"),
        ("chat", {"top_logprobs": 1}, "`top_logprobs` needs `logprobs` to be true"),
    ],
)  # fmt: skip
def test_logprobs_have_bounds(route, fields, message):
    assert refusal(route, **fields).message == TOP + message


@both
@pytest.mark.parametrize(("stream", "is_stream"), [(True, True), (False, False), (None, False)])
def test_the_body_says_whether_to_stream(route, stream, is_stream):
    assert parse(route, stream=stream).is_stream is is_stream
    assert parse(route, stream=stream).headers == {}


@both
def test_seeds_that_nobody_gave_differ_from_request_to_request(route):
    assert len({generation(route).params.seed for _ in range(20)}) == 20


@both
def test_each_choice_has_a_permit_and_a_seed_of_its_own(route):
    call = parse(route, n=3)
    assert call.num_permits == 3
    assert len({generation.params.seed for generation in call.generations()}) == 3
    seeds = [generation.params.seed for generation in parse(route, n=3, seed=7).generations()]
    assert seeds == [7, 8, 9]
    last = [
        generation.params.seed for generation in parse(route, n=2, seed=2**64 - 1).generations()
    ]
    assert last == [2**64 - 1, 0]
