"""Rows with a grammar say what it allows: alone, in a batch and after a preemption."""

import json
import random
import string

import numpy as np
import pytest
import torch
from schemas import assert_valid, random_schema
from tiny_models import EOS, VOCAB_SIZE, load_tiny, make_bench, random_prompts, run, save_tiny_model
from tokenizers import decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.compute.grammar import Constraint, Masks
from engine.compute.kernels.reference import Reference
from engine.compute.logits import Logits
from engine.compute.sampler import Sampler, SamplerRow
from engine.errors import InvalidGrammar
from engine.grammar import Grammar, GrammarKind
from engine.matchers import MAX_SOURCE, Matchers, Vocabulary
from engine.outputs import FinishReason
from engine.sampling_params import LogprobsMode, SamplingParams

LENGTHS = [5, 1, 19, 40, 12, 27]
WORDS = Grammar(GrammarKind.REGEX, "([a-z]{3,7} ){3}[a-z]{4}!")
GRAMMARS = [
    None,
    Grammar(GrammarKind.REGEX, "[0-9a-f]{30}"),
    Grammar(GrammarKind.LARK, 'start: line{4}\nline: /[A-Z]+/ " = " /[0-9]{1,3}/ ";"'),
    Grammar(GrammarKind.JSON_SCHEMA, json.dumps({"type": "array", "items": {"type": "integer"}})),
    Grammar(GrammarKind.CHOICE, '["the first of several choices", "the other, which is longer"]'),
    WORDS,
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(path):
    return load_tiny(path)


@pytest.fixture(scope="module")
def matchers(path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path).backend_tokenizer.to_str()
    return Matchers(Vocabulary(tokenizer, VOCAB_SIZE, (EOS,)))


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
"""The characters by which the tokenizer's vocabulary writes bytes, in the order of its ids."""


def said(sequence):
    ids = sequence.token_ids[sequence.num_prompt :]
    return decoders.ByteLevel().decode([ALPHABET[i] for i in ids if i < EOS])


def ids_of(text):
    return [ALPHABET.index(char) for char in text]


def ask_for(bench, schemas, max_new_tokens):
    """Ask for an answer to each schema, with its own seed."""
    return [
        bench.submit(
            [65, seed % 256],
            grammar=Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema)),
            max_new_tokens=max_new_tokens,
            do_sample=True,
            seed=seed,
        )
        for seed, schema in enumerate(schemas)
    ]


def test_every_answer_that_ended_validates_and_one_cut_is_its_beginning(model, matchers):
    rng = random.Random(6)
    schemas = [random_schema(rng) for _ in range(280)]
    limits = {"num_blocks": 2048, "max_waiting": 300, "max_batch_size": 32}
    bench = make_bench(model, matchers=matchers, **limits)
    whole = ask_for(bench, schemas, 220)
    finishes = run(bench)
    bench = make_bench(model, matchers=matchers, **limits)
    cut = ask_for(bench, schemas, 12)
    num_cut = sum(finish.reason is FinishReason.LENGTH for finish in run(bench).values())
    ended = [finishes[s.sequence_id].reason is FinishReason.EOS_TOKEN for s in whole]
    for sequence, schema, has_ended, beginning in zip(whole, schemas, ended, cut, strict=True):
        assert sequence.token_ids[: beginning.num_tokens] == beginning.token_ids
        if has_ended:
            assert_valid(said(sequence), schema)
    print(f"{sum(ended)} ended, {1 - sum(ended) / len(ended):.1%} unfinished; {num_cut} were cut")
    assert sum(ended) >= 200
    assert num_cut >= 100
    assert len({said(sequence) for sequence in whole}) > 200


@pytest.mark.parametrize("sampled", [{}, {"do_sample": True, "temperature": 1.2}])
def test_alone_in_a_batch_and_after_a_preemption_the_tokens_are_the_same(model, matchers, sampled):
    prompts = random_prompts(3, LENGTHS)
    asked = [
        {"grammar": grammar, "seed": seed, "max_new_tokens": 40, **sampled}
        for seed, grammar in enumerate(GRAMMARS)
    ]

    def answers(**limits):
        bench = make_bench(model, matchers=matchers, **limits)
        sequences = [bench.submit(p, **a) for p, a in zip(prompts, asked, strict=True)]
        run(bench)
        return [s.token_ids[s.num_prompt :] for s in sequences], sequences

    pairs = zip(prompts, asked, strict=True)
    alone = [make_bench(model, matchers=matchers).generate([p], **a)[0] for p, a in pairs]
    assert len({i for ids in alone for i in ids}) >= 8
    assert alone[-1][-1] == EOS
    batched, _ = answers(max_batch_tokens=20)
    assert batched == alone
    preempted, sequences = answers(num_blocks=44, max_total_tokens=128, max_input_tokens=127)
    assert preempted == alone
    assert sequences[-1].num_preempted >= 1


def test_an_end_comes_where_the_grammar_has_one_whatever_min_new_tokens_says(model, matchers):
    bench = make_bench(model, matchers=matchers)
    fixed = Grammar(GrammarKind.REGEX, "abc")
    open_ended = Grammar(GrammarKind.REGEX, "[a-z]+")
    early = bench.submit([65], grammar=fixed, min_new_tokens=20)
    late = bench.submit([66], grammar=open_ended, min_new_tokens=20, do_sample=True, seed=1)
    free = bench.submit([66], grammar=open_ended, do_sample=True, seed=1, logit_bias=((EOS, 100),))
    finishes = run(bench)
    assert said(early) == "abc"
    assert finishes[early.sequence_id].reason is FinishReason.EOS_TOKEN
    assert late.num_output > 20
    assert free.num_output == 2


def test_a_row_whose_grammar_nothing_knows_ends_with_an_error(model, matchers):
    bench = make_bench(model)
    refused = bench.submit([65], grammar=WORDS)
    free = bench.submit([66])
    finishes = run(bench)
    assert "grammar cannot be followed" in str(finishes[refused.sequence_id].error)
    assert refused.num_output == 0
    assert free.num_output == 24


def test_a_matcher_that_fails_in_the_middle_ends_its_row_alone(model, matchers):
    prompts = random_prompts(5, LENGTHS[:3])
    expected = make_bench(model, matchers=matchers).generate(prompts, grammar=WORDS)
    bench = make_bench(model, matchers=matchers)
    struck, *others = [bench.submit(prompt, grammar=WORDS) for prompt in prompts]
    bench.step()
    bench.step()
    bench.runner._constraints[struck.sequence_id].take(ids_of("!")[0])  # as nothing here would
    finishes = run(bench)
    assert finishes[struck.sequence_id].reason is FinishReason.ERROR
    assert "cannot be followed any further" in str(finishes[struck.sequence_id].error)
    assert struck.num_output == 2
    assert [s.token_ids[s.num_prompt :] for s in others] == expected[1:]


def constrained(matchers, params, grammar=WORDS):
    constraint = Constraint(matchers, grammar, [])
    constraint.fill()
    tokens = np.zeros(8, np.int64)
    return SamplerRow(params, tokens, 1, 1, constraint)


@pytest.mark.parametrize("kernels", [None, Reference(torch.float32)])
def test_native_logprobs_are_after_the_mask_and_openais_before(matchers, kernels):
    torch.manual_seed(0)
    values = torch.randn(3, VOCAB_SIZE)
    missing = -VOCAB_SIZE % 32
    tops = torch.nn.functional.pad(values, (0, missing), value=-torch.inf).view(3, -1, 32).amax(-1)
    logits = Logits(values, None if kernels is None else tops)
    asked = {"max_new_tokens": 4, "num_top_logprobs": 3}
    params = [
        SamplingParams(max_new_tokens=4, logprobs=LogprobsMode.WARPED),
        SamplingParams(logprobs=LogprobsMode.WARPED, do_sample=True, **asked),
        SamplingParams(logprobs=LogprobsMode.RAW, **asked),
    ]
    sampler = Sampler(VOCAB_SIZE, (EOS,), 0.5, 2.0, torch.device("cpu"), kernels)
    warped, drawn, raw = sampler.sample(logits, [constrained(matchers, p) for p in params])
    letters = ids_of(string.ascii_lowercase)
    assert warped.token_id == letters[int(values[0, letters].argmax())]
    own = values[0, letters].log_softmax(-1)
    assert warped.logprob == pytest.approx(float(own.max()), abs=1e-5)
    own = dict(zip(letters, values[1, letters].log_softmax(-1).tolist(), strict=True))
    assert drawn.logprob == pytest.approx(own[drawn.token_id], abs=1e-5)
    assert dict(drawn.top) == pytest.approx({i: own[i] for i, _ in drawn.top}, abs=1e-5)
    assert raw.token_id == letters[int(values[2, letters].argmax())]
    assert raw.logprob == pytest.approx(float(values[2].log_softmax(-1)[raw.token_id]), abs=1e-5)
    assert [token_id for token_id, _ in raw.top] == values[2].topk(3).indices.tolist()


@pytest.mark.parametrize("kernels", [None, Reference(torch.float32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_leave_what_may_come_and_nothing_else(matchers, kernels, dtype):
    torch.manual_seed(0)
    rows = torch.randn(2, VOCAB_SIZE + 7).to(dtype)
    constraints = [Constraint(matchers, Grammar(GrammarKind.REGEX, r), []) for r in ("[a-c]", "")]
    for constraint in constraints:
        constraint.fill()
    masked = Masks(VOCAB_SIZE, torch.device("cpu"), kernels).apply(list(rows), constraints)
    for row, values, allowed in zip(rows, masked.values, (ids_of("abc"), [EOS]), strict=True):
        assert values.isfinite().nonzero()[:, 0].tolist() == allowed
        assert values[allowed].tolist() == row[allowed].tolist()
    if kernels is not None:
        assert masked.tops.tolist() == masked.values.view(2, -1, 32).amax(-1).tolist()


def test_no_more_grammars_are_kept_than_the_bound_allows(matchers):
    few = Matchers.__new__(Matchers)
    few.__dict__ |= matchers.__dict__
    few._kept = type(matchers._kept)(200 * 2**20)
    grammars = [Grammar(GrammarKind.REGEX, f"a{i}") for i in range(100)]
    for grammar in grammars:
        few.keep(grammar, 2 * 2**20)
        assert grammar in few
    assert len(few._kept) == 9
    assert not few.matcher(grammars[0]).is_error()  # compiled again
    with pytest.raises(InvalidGrammar, match=f"at most {MAX_SOURCE} characters. Given: 100001"):
        few.keep(Grammar(GrammarKind.REGEX, "a" * 100_001), 1)


STATES = Grammar(
    GrammarKind.LARK,
    "start: (A | B | C | D)*\n"
    + "\n".join(f"{c.upper()}: /[a-z]*{c}[a-z]{{14}}{c.upper()}/" for c in "abcd"),
)
"""Nearly every token adds states to its lexer."""


def test_a_lexer_that_one_answer_has_filled_is_not_the_next_ones(matchers):
    dice = random.Random(0)

    def walk(constraint, num_steps):
        for step in range(num_steps):
            constraint.fill()
            if constraint.error is not None:
                return step
            constraint.take(dice.choice(ids_of("abcdefgh")))
        return num_steps

    filling = Constraint(matchers, STATES, ())
    assert walk(filling, 100_000) < 100_000
    assert "too many states" in filling.error
    assert walk(Constraint(matchers, STATES, ()), 20) == 20


def test_an_answer_goes_on_where_others_have_filled_its_lexer(matchers):
    dice = random.Random(0)
    text = dice.choices(ids_of("abcdefgh"), k=60)
    others, ours = Constraint(matchers, STATES, ()), Constraint(matchers, STATES, ())
    ours.take(text[0])
    while others.error is None:
        others.fill()
        others.take(dice.choice(ids_of("abcdefgh")))
    for token_id in text[1:]:
        ours.fill()
        assert ours.error is None
        ours.take(token_id)
    alone = Constraint(matchers, STATES, text)
    ours.fill()
    alone.fill()
    assert alone.error is None
    assert (ours.mask == alone.mask).all()


def test_a_row_with_a_grammar_gets_no_drafts_and_the_same_tokens(model, matchers):
    grammar = Grammar(GrammarKind.REGEX, "(ab)*c{200}")
    prompt = random_prompts(9, [12])[0]
    plain, guessing = (make_bench(model, matchers=matchers, max_drafts=most) for most in (0, 3))
    expected = plain.generate([prompt], grammar=grammar, max_new_tokens=60)
    assert guessing.generate([prompt], grammar=grammar, max_new_tokens=60) == expected
