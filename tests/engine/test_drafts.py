"""What is guessed for one sequence, and when nothing is."""

from hypothesis import given
from hypothesis import strategies as st

from engine.drafts import Drafts


def guess(token_ids, count=4):
    drafts = Drafts()
    return drafts.guess(token_ids, count) if drafts.find(token_ids) else ()


def test_the_guess_is_what_followed_the_same_three_tokens_the_last_time():
    assert guess([1, 2, 3, 4, 5, 9, 1, 2, 3, 6, 7, 9, 1, 2, 3]) == (6, 7, 9, 1)


def test_two_tokens_are_not_enough_and_neither_is_a_short_prompt():
    assert guess([1, 2, 3, 4, 5, 9, 2, 3]) == ()
    for ids in ([], [1], [1, 1], [1, 1, 1]):
        assert guess(ids) == ()


def test_no_more_is_guessed_than_was_asked_for():
    assert guess([1, 2, 3, 4, 5, 1, 2, 3], count=1) == (4,)


def test_a_guess_that_reaches_beyond_the_end_repeats_itself():
    assert guess([7, 1, 2, 1, 2, 1, 2], count=5) == (1, 2, 1, 2, 1)
    assert guess([5, 5, 5, 5], count=3) == (5, 5, 5)


def test_after_guesses_that_were_all_wrong_it_rests_for_longer_each_time():
    drafts, moments = Drafts(), []
    for step in range(200):
        if drafts.find([1, 2, 3] * (step + 2)):
            moments.append(step)
            drafts.learn(0)
    assert moments == [0, 2, 6, 14, 30, 62, 126, 190]


def test_a_guess_that_was_right_ends_the_resting():
    drafts, moments = Drafts(), []
    for step in range(20):
        if drafts.find([1, 2, 3] * (step + 2)):
            moments.append(step)
            drafts.learn(1 if len(moments) == 3 else 0)
    assert moments == [0, 2, 6, 7, 9, 13]


def test_a_long_prompt_is_noted_over_several_steps():
    ids = [*range(1000), 1, 2, 3]
    drafts = Drafts()
    assert [drafts.find(ids) for _ in range(4)] == [False, False, False, True]
    assert drafts.guess(ids, 2) == (4, 5)


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(1, 4), min_size=1, max_size=20),
    st.integers(1, 5),
)
def test_however_tokens_come_the_guess_follows_the_last_place_where_they_stood(ids, bursts, most):
    drafts, end = Drafts(), 0
    for burst in bursts:
        end += burst
        known = ids[:end]
        found = drafts.guess(known, most) if drafts.find(known) else ()
        assert found == by_search(known, most)
        if end >= len(ids):
            break


def by_search(ids, most):
    """Look at every place, the last first."""
    for end in range(len(ids) - 1, 2, -1):
        if ids[end - 3 : end] == ids[-3:]:
            return tuple(ids[end + at % (len(ids) - end)] for at in range(most))
    return ()
