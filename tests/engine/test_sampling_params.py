import dataclasses
import math

import pytest

from engine.errors import InvalidParameter, RequestError
from engine.sampling_params import LogprobsMode, SamplingParams

NAN, INF = math.nan, math.inf
TINY = 5e-324
BELOW_ONE = math.nextafter(1.0, 0.0)
ABOVE_ONE = math.nextafter(1.0, 2.0)
ABOVE_TWO = math.nextafter(2.0, 3.0)
ABOVE_100 = math.nextafter(100.0, 101.0)

GOOD = [
    ("max_new_tokens", [1, 2, 10**9]),
    ("min_new_tokens", [0, 1, 10**9]),
    ("temperature", [TINY, 1.0, 1e308]),
    ("repetition_penalty", [TINY, 1.0, 1e308]),
    ("frequency_share_penalty", [-2.0, 0.0, 2.0]),
    ("frequency_penalty", [-2.0, 0.0, 2.0]),
    ("presence_penalty", [-2.0, 0.0, 2.0]),
    ("top_k", [None, 1, 10**9]),
    ("top_p", [None, TINY, BELOW_ONE]),
    ("typical_p", [None, TINY, BELOW_ONE]),
    ("min_p", [None, 0.0, 1.0]),
    ("seed", [0, 2**64 - 1]),
    ("stop", [(), ("a",), (" ", "\n")]),
    ("num_top_logprobs", [0, 20]),
    ("logit_bias", [(), ((0, -100.0), (7, 100.0))]),
    ("logprobs", [None, *LogprobsMode]),
]
BAD = [
    ("max_new_tokens", [0, -1]),
    ("min_new_tokens", [-1]),
    ("temperature", [0.0, -0.0, -TINY, -1.0, INF, NAN]),
    ("repetition_penalty", [0.0, -1.0, INF, -INF, NAN]),
    ("frequency_share_penalty", [-ABOVE_TWO, ABOVE_TWO, INF, -INF, NAN]),
    ("frequency_penalty", [-ABOVE_TWO, ABOVE_TWO, INF, -INF, NAN]),
    ("presence_penalty", [-ABOVE_TWO, ABOVE_TWO, INF, -INF, NAN]),
    ("top_k", [0, -1]),
    ("top_p", [0.0, 1.0, -TINY, ABOVE_ONE, INF, NAN]),
    ("typical_p", [0.0, 1.0, -TINY, ABOVE_ONE, INF, NAN]),
    ("min_p", [-TINY, ABOVE_ONE, INF, NAN]),
    ("seed", [-1, 2**64]),
    ("stop", [("",), ("a", "")]),
    ("num_top_logprobs", [-1]),
    ("logit_bias", [((-1, 0.0),), ((0, ABOVE_100),), ((0, -ABOVE_100),), ((0, NAN),)]),
]


def pairs(table):
    return [(field, value) for field, values in table for value in values]


def build(field, value):
    return SamplingParams(**{"max_new_tokens": 1, field: value})


@pytest.mark.parametrize(("field", "value"), pairs(GOOD))
def test_what_is_in_range_is_kept(field, value):
    assert getattr(build(field, value), field) == value


@pytest.mark.parametrize(("field", "value"), pairs(BAD))
def test_what_is_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(InvalidParameter, match=f"`{field}` must ") as caught:
        build(field, value)
    assert caught.value.field == field


def test_the_message_says_the_limit_and_the_value():
    with pytest.raises(RequestError) as caught:
        build("frequency_penalty", 2.5)
    assert str(caught.value) == "`frequency_penalty` must be -2.0 to 2.0. Given: 2.5"


def test_every_bounded_field_is_violated_once():
    free = {"ignore_eos", "keep_stop", "length_first", "do_sample", "watermark"}
    free |= {"prompt_logprobs", "is_prefix_cached", "grammar", "adapter"}
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert fields - free - {"logprobs"} == {field for field, _ in BAD}


@pytest.mark.parametrize(
    ("field", "value", "has_penalty"),
    [
        ("seed", 1, False),
        ("temperature", 0.5, False),
        ("logit_bias", ((1, 1.0),), False),
        ("repetition_penalty", 1.1, True),
        ("repetition_penalty", 1.0, False),
        ("frequency_share_penalty", -0.1, True),
        ("frequency_penalty", 0.1, True),
        ("presence_penalty", -0.1, True),
        ("presence_penalty", 0.0, False),
    ],
)
def test_a_penalty_makes_the_choice_depend_on_the_tokens_so_far(field, value, has_penalty):
    assert build(field, value).has_penalty is has_penalty


def test_parameters_are_frozen_and_given_by_name():
    with pytest.raises(dataclasses.FrozenInstanceError):
        build("seed", 1).seed = 2
    with pytest.raises(TypeError):
        SamplingParams(1)
