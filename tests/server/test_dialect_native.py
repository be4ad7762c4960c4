"""TGI's parameters: what each comes to, each bound violated once, and in which order."""

import json

import pytest
from dialect_config import dialect_config

from engine import LogprobsMode, SamplingParams
from server.dialects.tgi import CompatDialect, GenerateDialect, GenerateStreamDialect
from server.errors import Problem

ABSENT = object()
INT = "`int | null`, got "
TOP = "Input validation error: "


def body(parameters=ABSENT, **fields):
    given = {"inputs": "A", **fields}
    return json.dumps(
        given if parameters is ABSENT else {**given, "parameters": parameters}
    ).encode()


def generation(parameters=ABSENT, *, dialect=GenerateDialect, config=None, **fields):
    call = dialect(config or dialect_config()).parse(body(parameters, **fields))
    return call.generations()[0]


def refusal(parameters=ABSENT, **options):
    with pytest.raises(Problem) as caught:
        generation(parameters, **options)
    assert caught.value.status == 422
    assert caught.value.message.startswith(TOP)
    return caught.value


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {}),
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"repetition_penalty": 1e-300}, {"repetition_penalty": 1e-4}),
        ({"frequency_penalty": -2}, {"frequency_share_penalty": -2.0}),
        ({"frequency_penalty": 2.0}, {"frequency_share_penalty": 2.0}),
        ({"stop": ["a", "b", "c", "d"]}, {"stop": ("a", "b", "c", "d")}),
        ({"watermark": True}, {"watermark": True}),
        ({"prefix_caching": False}, {"is_prefix_cached": False}),
        ({"prefix_caching": True}, {"is_prefix_cached": True}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        ({"ignore_eos_token": True}, {"ignore_eos": True}),
        ({"min_new_tokens": 3}, {"min_new_tokens": 3}),
        ({"details": True}, {"logprobs": LogprobsMode.WARPED}),
        ({"decoder_input_details": True}, {"logprobs": LogprobsMode.WARPED}),
        (
            {"details": True, "top_n_tokens": 5},
            {"logprobs": LogprobsMode.WARPED, "num_top_logprobs": 5},
        ),
        ({"top_n_tokens": 5}, {}),
        ({"max_new_tokens": 1}, {"max_new_tokens": 1}),
        ({"max_new_tokens": 4_294_967_295}, {"max_new_tokens": 4_294_967_295}),
        ({"best_of": 0}, {}),
        ({"best_of": 1}, {}),
    ],
)
def test_greedy_parameters_come_to(parameters, expected):
    params = generation({"seed": 0, **parameters}).params
    common = {"max_new_tokens": 1, "keep_stop": True, "length_first": True}
    assert params == SamplingParams(**common | expected)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"do_sample": True}, {}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 1000}, {"temperature": 1000.0}),
        ({"temperature": 1e-300}, {"temperature": 1e-4}),
        ({"top_k": 1}, {"top_k": 1}),
        ({"top_k": 2_147_483_647}, {"top_k": 2_147_483_647}),
        ({"top_p": 0.95}, {"top_p": 0.95}),
        ({"typical_p": 0.95}, {"typical_p": 0.95}),
        (
            {"do_sample": False, "temperature": 0.8, "top_p": 0.95},
            {"temperature": 0.8, "top_p": 0.95},
        ),
        ({"do_sample": True, "seed": 2**64 - 1}, {"seed": 2**64 - 1}),
        ({"do_sample": True, "temperature": 1.0}, {}),
    ],
)
def test_sampling_parameters_come_to(parameters, expected):
    params = generation({"seed": 7, **parameters}).params
    common = {
        "max_new_tokens": 1,
        "keep_stop": True,
        "length_first": True,
        "do_sample": True,
        "seed": 7,
    }
    assert params == SamplingParams(**common | expected)


@pytest.mark.parametrize(
    ("parameters", "is_sampled"),
    [
        (ABSENT, True),
        (None, True),
        ({}, False),
        ({"temperature": 1.0}, False),
        ({"do_sample": None}, False),
        ({"temperature": None, "top_k": None, "top_p": None, "typical_p": None}, False),
        ({"temperature": 0.999}, True),
        ({"do_sample": True}, True),
    ],
)
def test_whether_a_request_samples(parameters, is_sampled):
    assert generation(parameters).params.do_sample is is_sampled


RANGES = [
    ({"temperature": 0}, "`temperature` must be strictly positive. Given: 0.0"),
    ({"temperature": -1.5}, "`temperature` must be strictly positive. Given: -1.5"),
    ({"temperature": 1e-400}, "`temperature` must be strictly positive. Given: 0.0"),
    ({"temperature": 1000.5}, "`temperature` must be <= 1000.0. Given: 1000.5"),
    ({"temperature": 1e308}, "`temperature` must be <= 1000.0. Given: 1e+308"),
    ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive. Given: 0.0"),
    ({"repetition_penalty": 1e9}, "`repetition_penalty` must be <= 1000.0. Given: 1000000000.0"),
    ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0. Given: 2.1"),
    ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0. Given: -2.1"),
    ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0. Given: 0.0"),
    ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0. Given: 1.0"),
    ({"typical_p": 0.0}, "`typical_p` must be > 0.0 and < 1.0. Given: 0.0"),
    ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0. Given: 1.0"),
    ({"top_k": 0}, "`top_k` must be strictly positive. Given: 0"),
    ({"top_k": -1}, "`top_k` must be strictly positive. Given: -1"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive. Given: 0"),
    ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"stop": [""]}, "`stop` must not contain an empty string"),
    ({"seed": -1}, "`seed` must be >= 0 and <= 18446744073709551615. Given: -1"),
    ({"seed": 2**64}, f"`seed` must be >= 0 and <= 18446744073709551615. Given: {2**64}"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"truncate": 0}, "`truncate` must be strictly positive and less than 1023. Given: 0"),
    ({"truncate": 1024}, "`truncate` must be strictly positive and less than 1023. Given: 1024"),
    ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1. Given: 2"),
    ({"best_of": 2, "do_sample": True, "seed": 1},
     "`seed` must not be set when `best_of` > 1. Given: 1"),
    ({"adapter_id": "a"}, "`adapter_id` must be null, since no adapters are loaded. Given: a"),
    ({"grammar": {"type": "ebnf", "value": "a"}},
     "`grammar.type` must be one of json, json_object, json_schema, regex, choice, lark. "
     "Given: ebnf"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "message"), RANGES)
@pytest.mark.parametrize("dialect", [GenerateDialect, CompatDialect])
def test_a_value_out_of_range_is_told_with_its_limit(dialect, parameters, message):
    assert refusal(parameters, dialect=dialect).message == TOP + message


@pytest.mark.parametrize(
    ("parameters", "message"),
    [case for case in RANGES if "best_of" not in case[0]],
)
def test_ranges_are_those_of_a_stream_too(parameters, message):
    assert refusal(parameters, dialect=GenerateStreamDialect).message == TOP + message


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"max_new_tokens": -1}, "`parameters.max_new_tokens`: expected `int` >= 0"),
        ({"max_new_tokens": 2**32}, "`parameters.max_new_tokens`: expected `int` <= 4294967295"),
        ({"max_new_tokens": 1.0}, "`parameters.max_new_tokens`: expected " + INT + "`float`"),
        ({"max_new_tokens": True}, "`parameters.max_new_tokens`: expected " + INT + "`bool`"),
        ({"max_new_tokens": "1"}, "`parameters.max_new_tokens`: expected " + INT + "`str`"),
        ({"top_k": 1.5}, "`parameters.top_k`: expected `int | null`, got `float`"),
        ({"top_k": 2**31}, "`parameters.top_k`: expected `int` <= 2147483647"),
        ({"top_k": -(2**31) - 1}, "`parameters.top_k`: expected `int` >= -2147483648"),
        ({"top_n_tokens": -1}, "`parameters.top_n_tokens`: expected `int` >= 0"),
        ({"best_of": -1}, "`parameters.best_of`: expected `int` >= 0"),
        ({"truncate": -1}, "`parameters.truncate`: expected `int` >= 0"),
        ({"min_new_tokens": -1}, "`parameters.min_new_tokens`: expected `int` >= 0"),
        ({"seed": "1"}, "`parameters.seed`: expected `int | null`, got `str`"),
        ({"temperature": "1"}, "`parameters.temperature`: expected `float | null`, got `str`"),
        ({"temperature": True}, "`parameters.temperature`: expected `float | null`, got `bool`"),
        ({"temperature": 10**400}, "`parameters.temperature`: number out of range"),
        ({"seed": 10**4000},
         "`seed` must be >= 0 and <= 18446744073709551615. Given: 1" + "0" * 63 + "…"),
        ({"do_sample": 1}, "`parameters.do_sample`: expected `bool | null`, got `int`"),
        ({"stop": "x"}, "`parameters.stop`: expected `array | null`, got `str`"),
        ({"stop": [None]}, "`parameters.stop[0]`: expected `str`, got `null`"),
        ({"stop": ["x" * 1001]}, "`parameters.stop[0]`: expected `str` of length <= 1000"),
        ([], "`parameters`: expected `object | null`, got `array`"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_told_with_its_path(parameters, what):
    assert refusal(parameters).message == TOP + what


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"inputs": ["a"]}, "`inputs`: expected `str`, got `array`"),
        ({"inputs": None}, "`inputs`: expected `str`, got `null`"),
        ({"inputs": "x" * 8_000_001}, "`inputs`: expected `str` of length <= 8000000"),
    ],
)
def test_inputs_are_a_text_that_is_not_empty(fields, what):
    assert refusal(**fields).message == TOP + what


def test_missing_inputs_are_named():
    with pytest.raises(Problem, match="`inputs` is missing") as caught:
        GenerateDialect(dialect_config()).parse(b"{}")
    assert (caught.value.status, caught.value.field) == (422, "inputs")


ORDER = [
    ({"best_of": 3}, "best_of"),
    ({"best_of": 2}, "best_of"),
    ({"temperature": 0}, "temperature"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"top_p": 1}, "top_p"),
    ({"typical_p": 1}, "typical_p"),
    ({"top_k": 0}, "top_k"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"stop": list("abcde")}, "stop"),
    ({"seed": -1}, "seed"),
    ({"top_n_tokens": 6}, "top_n_tokens"),
    ({}, "inputs"),
    ({"truncate": 0}, "truncate"),
    ({"adapter_id": "a"}, "adapter_id"),
    ({"grammar": {"type": "x"}}, "grammar.type"),
]


@pytest.mark.parametrize("first", range(2, len(ORDER)), ids=lambda first: ORDER[first][1])
def test_of_several_faults_the_first_in_tgis_order_is_told(first):
    wrong = {}
    for parameters, _ in ORDER[first:]:
        wrong |= parameters
    inputs = "" if first <= [field for _, field in ORDER].index("inputs") else "A"
    assert refusal(wrong, inputs=inputs).field == ORDER[first][1]


@pytest.mark.parametrize(
    ("dialect", "parameters", "message"),
    [
        (GenerateStreamDialect, {"best_of": 0},
         "`best_of` != 1 is not supported when streaming tokens. Given: 0"),
        (GenerateStreamDialect, {"best_of": 2, "decoder_input_details": True},
         "`best_of` != 1 is not supported when streaming tokens. Given: 2"),
        (GenerateStreamDialect, {"best_of": 1, "decoder_input_details": True, "top_p": 1},
         "`decoder_input_details` == true is not supported when streaming tokens"),
        (GenerateDialect, {"best_of": 3, "temperature": 0},
         "`best_of` must be > 0 and <= 2. Given: 3"),
    ],
)  # fmt: skip
def test_what_needs_no_permit_is_refused_before_one_is_taken(dialect, parameters, message):
    with pytest.raises(Problem) as caught:
        dialect(dialect_config()).parse(body(parameters))
    assert caught.value.message == TOP + message


def test_a_range_is_not_looked_at_before_the_permit():
    call = GenerateDialect(dialect_config()).parse(body({"temperature": 0, "top_p": 5}, inputs=""))
    assert call.num_permits == 1


def test_a_server_with_one_sequence_says_that_best_of_is_not_allowed():
    config = dialect_config(max_best_of=1)
    problem = refusal({"best_of": 2, "do_sample": True}, config=config)
    assert problem.message == TOP + "`best_of` != 1 is not allowed for this endpoint. Given: 2"


def test_a_server_without_top_tokens_says_that_they_are_not_allowed():
    problem = refusal({"top_n_tokens": 1}, config=dialect_config(max_top_n_tokens=0))
    assert problem.message == TOP + "`top_n_tokens` != 0 is not allowed for this endpoint. Given: 1"


def test_best_of_takes_a_permit_a_sequence_and_draws_a_seed_for_each():
    call = GenerateDialect(dialect_config()).parse(body({"best_of": 2, "do_sample": True}))
    generations = call.generations()
    assert call.num_permits == len(generations) == 2
    seeds = [generation.params.seed for generation in generations]
    assert seeds[0] != seeds[1]
    assert all(generation.params.logprobs is LogprobsMode.WARPED for generation in generations)
    assert [generation.prompt for generation in generations] == ["A", "A"]
    assert call.generations() == generations


def test_seeds_that_nobody_gave_differ_from_request_to_request():
    assert len({generation().params.seed for _ in range(20)}) == 20


@pytest.mark.parametrize("dialect", [GenerateStreamDialect, CompatDialect])
def test_every_streamed_token_has_a_logprob(dialect):
    params = generation({"top_n_tokens": 2}, dialect=dialect, stream=True).params
    assert (params.logprobs, params.num_top_logprobs) == (LogprobsMode.WARPED, 2)


@pytest.mark.parametrize(
    ("is_enabled", "asked", "is_given", "has_header"),
    [(True, True, True, False), (False, True, False, True), (True, False, False, False)],
)
def test_prompt_logprobs_are_given_where_enabled_else_a_header_says_why(
    is_enabled, asked, is_given, has_header
):
    config = dialect_config(is_prompt_logprobs_enabled=is_enabled)
    call = GenerateDialect(config).parse(body({"decoder_input_details": asked}))
    assert call.generations()[0].params.prompt_logprobs is is_given
    assert bool(call.headers) is has_header


@pytest.mark.parametrize(
    ("dialect", "fields", "is_stream"),
    [
        (GenerateDialect, {"stream": True}, False),
        (GenerateStreamDialect, {"stream": False}, True),
        (CompatDialect, {}, False),
        (CompatDialect, {"stream": None}, False),
        (CompatDialect, {"stream": False}, False),
        (CompatDialect, {"stream": True}, True),
    ],
)
def test_which_route_streams(dialect, fields, is_stream):
    assert dialect(dialect_config()).parse(body({}, **fields)).is_stream is is_stream


def test_stream_is_typed_only_where_it_means_something():
    assert GenerateDialect(dialect_config()).parse(body({}, stream="yes"))
    with pytest.raises(Problem, match=r"`stream`: expected `bool \| null`, got `str`"):
        CompatDialect(dialect_config()).parse(body({}, stream="yes"))


def test_unknown_fields_are_ignored():
    known = generation({"seed": 1})
    assert generation({"seed": 1, "stop_sequences": ["x"], "x": {"y": []}}, z=1) == known


def test_truncation_and_length_are_handed_to_the_handler():
    asked = generation({"truncate": 1023, "max_new_tokens": 9})
    assert (asked.truncate, asked.max_new_tokens) == (1023, 9)
    asked = generation({})
    assert (asked.truncate, asked.max_new_tokens) == (None, None)
