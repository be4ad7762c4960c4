import pytest
from fakes import FakeVocabulary

from engine.admission import AdmissionQueue
from engine.detokenizer import Detokenizer
from engine.errors import Overloaded
from engine.sampling_params import SamplingParams
from engine.sequence import Sequence, State

PARAMS = SamplingParams(max_new_tokens=1)


def sequence(sequence_id=1, num_prompt=1, submitted_at=0.0):
    prompt_ids = [97] * num_prompt
    detokenizer = Detokenizer(FakeVocabulary(), prompt_ids)
    return Sequence(sequence_id, prompt_ids, PARAMS, detokenizer, submitted_at)


def queue(max_waiting=2, max_waiting_tokens=100, max_queue_s=None):
    return AdmissionQueue(max_waiting, max_waiting_tokens, max_queue_s)


def preempted(waiting, **kwargs):
    """Make a sequence that ran and was preempted."""
    one = sequence(**kwargs)
    waiting.push(one, 1)
    waiting.remove(one)
    one.move("start")
    one.started_at = 0.0
    one.move("preempt")
    return one


def ids(waiting):
    return [one.sequence_id for one in waiting]


def test_first_come_is_first_in_line():
    waiting = queue()
    for number in (3, 1):
        waiting.push(sequence(number), 0)
    assert ids(waiting) == [3, 1]
    assert next(iter(waiting)).sequence_id == 3
    assert next(iter(waiting)).state is State.WAITING


@pytest.mark.parametrize(
    ("max_waiting", "num_free_rows", "num_admitted"),
    [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 2, 3), (3, 0, 3), (0, 5, 5)],
)
def test_so_many_as_wait_and_as_have_a_free_row_are_admitted(
    max_waiting, num_free_rows, num_admitted
):
    waiting = queue(max_waiting)
    for number in range(num_admitted):
        waiting.push(sequence(number), num_free_rows)
    late = sequence(99)
    with pytest.raises(Overloaded, match=f"{num_admitted} sequences wait, at most {max_waiting}"):
        waiting.push(late, num_free_rows)
    assert late.state is State.NEW
    assert ids(waiting) == list(range(num_admitted))


@pytest.mark.parametrize(
    ("sizes", "is_admitted"),
    [([5, 5], True), ([5, 6], False), ([9, 1], True), ([9, 2], False), ([1, 9, 1], False)],
)
def test_prompt_tokens_are_bounded(sizes, is_admitted):
    waiting = queue(max_waiting=10, max_waiting_tokens=10)
    *first, last = sizes
    for number, size in enumerate(first):
        waiting.push(sequence(number, size), 10)
    if is_admitted:
        waiting.push(sequence(99, last), 10)
        assert waiting.num_tokens == sum(sizes)
    else:
        with pytest.raises(Overloaded, match=f"at most 10 may. Given: {last}"):
            waiting.push(sequence(99, last), 10)
        assert waiting.num_tokens == sum(first)


def test_a_prompt_longer_than_the_bound_is_admitted_when_nobody_waits():
    waiting = queue(max_waiting_tokens=10)
    waiting.push(sequence(1, 50), 0)
    assert waiting.num_tokens == 50
    with pytest.raises(Overloaded):
        waiting.push(sequence(2, 1), 0)


def test_removing_gives_back_place_and_tokens():
    waiting = queue(max_waiting=2, max_waiting_tokens=5)
    one, two = sequence(1, 3), sequence(2, 2)
    waiting.push(one, 0)
    waiting.push(two, 0)
    waiting.remove(one)
    assert (ids(waiting), waiting.num_tokens) == ([2], 2)
    waiting.push(sequence(3, 3), 0)
    assert (ids(waiting), waiting.num_tokens) == ([2, 3], 5)


def test_a_preempted_sequence_goes_before_all_others():
    waiting = queue()
    first, second = preempted(waiting, sequence_id=7), preempted(waiting, sequence_id=8)
    waiting.push(sequence(1), 0)
    waiting.push_front(second)
    waiting.push_front(first)
    assert ids(waiting) == [7, 8, 1]


def test_a_preempted_sequence_is_never_refused():
    waiting = queue(max_waiting=0, max_waiting_tokens=1)
    one, two = (preempted(waiting, sequence_id=n, num_prompt=50) for n in (1, 2))
    waiting.push_front(two)
    waiting.push_front(one)
    assert ids(waiting) == [1, 2]


def test_a_preempted_sequence_takes_no_place_from_new_ones():
    waiting = queue(max_waiting=1)
    waiting.push_front(preempted(waiting, sequence_id=1))
    num_free_rows = 1  # the one it has left
    waiting.push(sequence(2), num_free_rows)
    with pytest.raises(Overloaded):
        waiting.push(sequence(3), num_free_rows)


def test_a_preempted_sequences_prompt_takes_no_tokens_from_new_ones():
    waiting = queue(max_waiting_tokens=10)
    waiting.push_front(preempted(waiting, sequence_id=1, num_prompt=10))
    waiting.push(sequence(2, 10), 1)
    with pytest.raises(Overloaded):
        waiting.push(sequence(3, 1), 1)


@pytest.mark.parametrize(
    ("now", "expired"), [(0.0, []), (5.0, []), (5.5, [1]), (7.0, [1]), (7.5, [1, 2])]
)
def test_those_that_wait_longer_than_the_limit_expire(now, expired):
    waiting = queue(max_queue_s=5.0)
    waiting.push(sequence(1, submitted_at=0.0), 0)
    waiting.push(sequence(2, submitted_at=2.0), 0)
    assert [one.sequence_id for one in waiting.expired(now)] == expired
    assert ids(waiting) == [1, 2]


def test_without_a_limit_nobody_expires():
    waiting = queue()
    waiting.push(sequence(), 0)
    assert waiting.expired(1e9) == []


def test_a_preempted_sequence_does_not_expire():
    waiting = queue(max_queue_s=5.0)
    waiting.push_front(preempted(waiting, sequence_id=1))
    assert waiting.expired(1e9) == []
