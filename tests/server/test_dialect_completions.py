import json

import pytest
from dialect_config import dialect_config

from server.dialects.completions import CompletionsDialect
from server.errors import Problem


def parse(**fields):
    return CompletionsDialect(dialect_config()).parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("one", ["one"]),
        (["one"], ["one"]),
        (["one", "two", "three", "four"], ["one", "two", "three", "four"]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([0], [(0,)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
        (list(range(1000)), [tuple(range(1000))]),
    ],
)
def test_each_prompt_is_a_sequence_with_a_permit(prompt, prompts):
    call = parse(prompt=prompt)
    generations = call.generations()
    assert [generation.prompt for generation in generations] == prompts
    assert call.num_permits == len(prompts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`prompt` is missing"),
        ({"prompt": None}, "`prompt`: expected `str | array`, got `null`"),
        ({"prompt": {}}, "`prompt`: expected `str | array`, got `object`"),
        ({"prompt": ""}, "`prompt` cannot be empty"),
        ({"prompt": []}, "`prompt` cannot be empty"),
        ({"prompt": [[]]}, "`prompt` cannot be empty"),
        ({"prompt": ["a", ""]}, "`prompt` cannot be empty"),
        ({"prompt": ["a", 1]}, "`prompt` must hold only texts, only token ids, or only lists"),
        ({"prompt": [1, [1]]}, "`prompt` must hold only texts, only token ids, or only lists"),
        ({"prompt": [True]}, "`prompt[0]`: expected `int | str | array`, got `bool`"),
        ({"prompt": [1.5]}, "`prompt[0]`: expected `int | str | array`, got `float`"),
        ({"prompt": [None]}, "`prompt[0]`: expected `int | str | array`, got `null`"),
        ({"prompt": [[1, "a"]]}, "`prompt[0][1]`: expected `int`, got `str`"),
        ({"prompt": [-1]}, "`prompt[0]`: expected `int` >= 0"),
        ({"prompt": [2**64]}, f"`prompt` must hold token ids >= 0 and < 32000. Given: {2**64}"),
        ({"prompt": [32_000]}, "`prompt` must hold token ids >= 0 and < 32000. Given: 32000"),
        (
            {"prompt": [[1], [1, 2**31 - 1]]},
            "`prompt` must hold token ids >= 0 and < 32000. Given: 2147483647",
        ),
        ({"prompt": "x" * 8_000_001}, "`prompt`: expected `str` of length <= 8000000"),
        ({"prompt": [1], "echo": True}, "`echo` of token ids needs `logprobs`"),
        (
            {"prompt": "a", "echo": True, "logprobs": 0, "stream": True},
            "`echo` with `logprobs` cannot be streamed",
        ),
        (
            {"prompt": "a", "echo": True, "logprobs": 0},
            "`echo` with `logprobs` needs a server started with --enable-prefill-logprobs",
        ),
        ({"prompt": "a", "best_of": 1, "n": 2}, "`best_of` must be >= `n` (2) and <= 16. Given: 1"),
        ({"prompt": "a", "best_of": 17}, "`best_of` must be >= `n` (1) and <= 16. Given: 17"),
        (
            {"prompt": "a", "best_of": 2, "stream": True},
            "`best_of` must equal `n` (1) in a stream. Given: 2",
        ),
        ({"prompt": ["a", "b"], "n": 9}, "`n` times 2 prompts must be <= 16. Given: 9"),
        (
            {"prompt": [1], "return_full_text": True},
            "`return_full_text` needs a prompt of text",
        ),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(fields, message):
    with pytest.raises(Problem) as caught:
        parse(**fields).generations()
    assert caught.value.status == 422
    assert caught.value.message == f"Input validation error: {message}"


@pytest.mark.parametrize("fields", [{"suffix": ""}, {"echo": False}, {"return_full_text": False}])
def test_what_changes_nothing_is_not_refused(fields):
    assert parse(prompt=[1], **fields).generations()


def test_each_prompt_has_a_seed_of_its_own_unless_the_client_gave_one():
    drawn = parse(prompt=["a", "b"]).generations()
    assert len({generation.params.seed for generation in drawn}) == 2
    given = parse(prompt=["a", "b"], seed=3).generations()
    assert {generation.params.seed for generation in given} == {3}


def test_the_choices_of_several_prompts_follow_one_another():
    call = parse(prompt=["a", "b"], n=2, best_of=3, seed=5)
    assert call.num_permits == 6
    generations = call.generations()
    assert [generation.prompt for generation in generations] == ["a"] * 3 + ["b"] * 3
    assert [generation.params.seed for generation in generations] == [5, 6, 7, 5, 6, 7]
    assert all(generation.params.logprobs for generation in generations)  # to tell the likeliest


def test_an_echo_without_new_tokens_makes_one_that_is_not_shown():
    (generation,) = parse(prompt="a", echo=True, max_tokens=0).generations()
    assert generation.max_new_tokens == 1
