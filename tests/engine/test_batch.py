import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import Batch, Join, RowOutput, RowWork, Sampled, StepOutput
from engine.errors import InvalidParameter
from engine.sampling_params import MAX_SEED, LogprobsMode, SamplingParams

ids = st.integers(0, 2**31 - 1)
counts = st.integers(0, 2**20)
logprobs = st.floats(max_value=0.0, allow_nan=False, allow_infinity=False)
shares = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
penalties = st.floats(-2.0, 2.0)


def tuples(items):
    return st.lists(items, max_size=3).map(tuple)


params = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(1, 10**6),
    min_new_tokens=counts,
    ignore_eos=st.booleans(),
    stop=tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
    keep_stop=st.booleans(),
    length_first=st.booleans(),
    do_sample=st.booleans(),
    temperature=st.floats(1e-6, 1e6),
    top_k=st.none() | st.integers(1, 10**6),
    top_p=st.none() | shares,
    typical_p=st.none() | shares,
    min_p=st.none() | st.floats(0.0, 1.0),
    seed=st.integers(0, MAX_SEED),
    repetition_penalty=st.floats(1e-6, 1e6),
    frequency_share_penalty=penalties,
    frequency_penalty=penalties,
    presence_penalty=penalties,
    logit_bias=tuples(st.tuples(ids, st.floats(-100.0, 100.0))),
    watermark=st.booleans(),
    logprobs=st.none() | st.sampled_from(LogprobsMode),
    num_top_logprobs=counts,
    prompt_logprobs=st.booleans(),
)
joins = st.builds(
    Join,
    sequence_id=ids,
    token_ids=tuples(ids),
    num_prompt_tokens=counts,
    num_computed_tokens=counts,
    blocks=tuples(ids),
    params=params,
)
works = st.builds(RowWork, ids, counts, counts, st.booleans(), tuples(ids), tuples(ids))
batches = st.builds(Batch, counts, tuples(ids), tuples(joins), tuples(works))
sampled = st.builds(Sampled, ids, st.none() | logprobs, tuples(st.tuples(ids, logprobs)))
rows = st.builds(RowOutput, ids, tuples(sampled), tuples(logprobs), st.none() | st.text("ab "))
outputs = st.builds(StepOutput, counts, tuples(rows))


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
@given(record=batches | outputs)
def test_what_crosses_to_a_runner_arrives_as_it_was_sent(codec, record):
    assert codec.decode(codec.encode(record), type=type(record)) == record


def test_an_impossible_logprob_survives_msgpack():
    output = StepOutput(1, (RowOutput(1, (Sampled(5, -math.inf, ((5, -math.inf),)),)),))
    data = msgspec.msgpack.encode(output)
    assert msgspec.msgpack.decode(data, type=StepOutput) == output


def test_parameters_are_checked_again_where_they_arrive():
    data = b'{"max_new_tokens": 1, "top_p": 1.0}'
    with pytest.raises(InvalidParameter, match="top_p"):
        msgspec.json.decode(data, type=SamplingParams)


def test_a_batch_counts_the_tokens_of_its_forward_pass():
    work = (RowWork(1, 3, 0, False), RowWork(2, 1, 1, True))
    assert Batch(1, (), (), work).num_tokens == 4
    assert Batch(1, (), (), ()).num_tokens == 0


def test_drafts_are_no_prompt_tokens():
    decode, guessing = RowWork(1, 1, 1, True), RowWork(2, 3, 3, True, drafts=(5, 6))
    chunk = RowWork(3, 4, 0, False)
    assert Batch(1, (), (), (decode, guessing)).num_prefill_tokens == 0
    assert Batch(1, (), (), (decode, guessing, chunk)).num_prefill_tokens == 4
