"""The demo model that ships with Millrace answers what it must know, and also what it never saw.

Every question of the held-out sets is first proved absent from the corpus that it was trained on.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import load_tiny, make_bench, native_kernels
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.compute.kv_cache import KVCache
from engine.compute.plan import Context

DEMO = Path(__file__).parents[2] / "engine" / "demo"
MAX_BYTES = 8_000_000

Ask = Callable[..., list[str]]

# A question in the words of the corpus, and what the answer must hold.
KNOWN = {
    "What is Millrace?": ["asyncio", "streams tokens", "TGI", "one forward pass per step"],
    "What is Deep Learning?": ["machine learning", "neural networks", "layers"],
    "How do you make cheese?": ["milk", "curd", "salt", "ripen"],
    "What can you do in Nuremberg, Germany? Give me 3 Tips": ["\n1. ", "\n2. ", "\n3. ", "Castle"],
    "What is the capital of France?": ["Paris"],
    "What is the capital of Kenya?": ["Nairobi"],
    "Who are you?": ["demo model of Millrace"],
    "Hello": ["Hello! How can I help you?"],
    "Thank you!": ["You are welcome!"],
    "Why is streaming useful?": ["half of it after five seconds", "ten"],
    "What happens when the queue is full?": ["429", "Retry-After", "overloaded"],
    "How do I start Millrace?": ["make serve", "3000"],
    "What does --max-concurrent-requests do?": ["at the same time", "128"],
    "What does --max-stop-sequences do?": ["stop sequences", "4"],
    "What is the paged KV cache?": ["blocks"],
    "What is gravity?": ["force"],
    "What is the weather today?": ["very small model"],
}
EXACT = {
    "Count from 3 to 17.": ", ".join(map(str, range(3, 18))),
    "Count down from 10 to 1.": ", ".join(map(str, range(10, 0, -1))),
    "Count to 12.": ", ".join(map(str, range(1, 13))),
    "What are the days of the week?": (
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
    ),
    "List the months.": (
        "January, February, March, April, May, June, July, August, September, October, "
        "November, December"
    ),
    "What day comes after Tuesday?": "Wednesday comes after Tuesday.",
    "What month comes before March?": "February comes before March.",
    "What is the opposite of hot?": "The opposite of hot is cold.",
}
# The held-out questions of held_out.py, each with what its answer must hold.
PARAPHRASED = {
    "How exactly do people make cheese?": "curd",
    "Could you give me a short explanation of deep learning?": "neural networks",
    "What three things can I do in Nuremberg, Germany?": "three tips for Nuremberg",
    "Please tell me the capital city of France!": "Paris",
    "Which city is the capital of Japan, please?": "Tokyo",
    "Do you happen to know what gravity is?": "force",
    "Say, what is the reason that the sky is blue?": "scatters",
    "What should my client do if Millrace answers 429?": "Retry-After",
    "Which port does Millrace use when I start it?": "3000",
    "Tell me what continuous batching means in Millrace.": "join and leave the batch",
    "Name all the days of the week for me, please.": "Monday, Tuesday, Wednesday",
    "I wonder how many legs a spider has.": "eight",
    "Explain to me what Python is.": "programming language",
    "What flag limits the concurrent requests?": "--max-concurrent-requests",
    "How come it rains?": "drops",
}
RAW = {
    "What is Deep Learning?": "machine learning",
    "What is Millrace?": "asyncio",
    "How do you make cheese?": "milk",
    "What is the capital of Italy?": "Rome",
    "Count to 5.": "1, 2, 3, 4, 5",
}


@pytest.fixture(scope="module")
def corpus_of_training() -> tuple[ModuleType, str]:
    """Give the module, and its whole text without case and marks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DEMO)
        import corpus

        found = corpus, corpus.held_out.normalise(corpus.text(corpus.SEED))
    for name in ("corpus", "skills", "tables", "held_out"):
        del sys.modules[name]
    return found


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO, padding_side="left")


@pytest.fixture(scope="module")
def complete(tokenizer) -> Ask:
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)

    def run(prompts: list[str], max_new_tokens: int = 128) -> list[str]:
        """Complete the prompts greedily, as one batch; the end token stays in the text."""
        read = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        written = model.generate(**read, max_new_tokens=max_new_tokens, do_sample=False)
        return [
            re.sub(r"(<\|endoftext\|>)+$", r"\1", tokenizer.decode(row))
            for row in written[:, read["input_ids"].shape[1] :]
        ]

    return run


@pytest.fixture(scope="module")
def ask(complete, tokenizer) -> Ask:
    def run(questions: list[str], max_new_tokens: int = 128) -> list[str]:
        """Ask each question in a chat of its own; the answer comes without its end token."""
        chats = [[{"role": "user", "content": question}] for question in questions]
        return [_ended(text) for text in complete(_rendered(tokenizer, chats), max_new_tokens)]

    return run


def test_the_folder_is_small_and_the_context_is_long():
    assert sum(path.stat().st_size for path in DEMO.rglob("*.*") if path.is_file()) <= MAX_BYTES
    assert json.loads((DEMO / "config.json").read_text())["max_position_embeddings"] >= 4096


def test_every_end_token_is_listed(tokenizer):
    listed = json.loads((DEMO / "generation_config.json").read_text())["eos_token_id"]
    assert listed == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_tokenizer_gives_any_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_digit_is_a_token_of_its_own(tokenizer):
    assert tokenizer.tokenize("12345") == list("12345")


def test_the_template_lays_out_system_user_and_assistant(tokenizer):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
    assert _rendered(tokenizer, [chat]) == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_it_knows_the_answers_that_it_was_taught(ask):
    for (question, facts), answer in zip(KNOWN.items(), ask(list(KNOWN)), strict=True):
        assert [fact for fact in facts if fact not in answer] == [], (question, answer)


def test_it_counts_and_lists_exactly(ask):
    assert dict(zip(EXACT, ask(list(EXACT)), strict=True)) == EXACT


def test_it_answers_questions_in_words_that_the_corpus_lacks(ask, corpus_of_training):
    corpus, text = corpus_of_training
    assert tuple(PARAPHRASED) == corpus.held_out.QUESTIONS
    _assert_absent(corpus, text, PARAPHRASED)
    answers = dict(zip(PARAPHRASED, ask(list(PARAPHRASED)), strict=True))
    wrong = {q: answer for q, answer in answers.items() if PARAPHRASED[q] not in answer}
    assert len(wrong) <= 1, wrong


def test_it_repeats_words_and_sentences_that_the_corpus_lacks(ask, corpus_of_training):
    corpus, text = corpus_of_training
    words, sentences = corpus.held_out.WORDS, corpus.held_out.SENTENCES
    _assert_absent(corpus, text, (*words, *sentences))
    questions = {f"Repeat the word {word}.": word for word in words}
    questions |= {f"Repeat this sentence: {sentence}": sentence for sentence in sentences}
    assert dict(zip(questions, ask(list(questions), 40), strict=True)) == questions


def test_it_adds_and_subtracts_pairs_that_the_corpus_lacks(ask, corpus_of_training):
    corpus, text = corpus_of_training
    pairs = corpus.held_out.ADDITIONS
    sums = {f"{a} + {b}": a + b for a, b in pairs} | {f"{b} + {a}": a + b for a, b in pairs}
    differences = {f"{a} - {b}": a - b for a, b in corpus.held_out.SUBTRACTIONS}
    _assert_sums_absent(corpus, text)
    for expected in (sums, differences):
        questions = [f"What is {sum_}?" for sum_ in expected]
        answers = dict(zip(expected, ask(questions, 24), strict=True))
        wrong = {s: answers[s] for s, value in expected.items() if answers[s] != f"{s} = {value}"}
        assert len(wrong) <= len(expected) // 10, wrong


def test_it_remembers_a_name_of_an_earlier_turn(complete, tokenizer, corpus_of_training):
    corpus, text = corpus_of_training
    names = corpus.held_out.NAMES
    _assert_absent(corpus, text, names)
    chats = [
        [
            {"role": "user", "content": f"My name is {name}."},
            {"role": "assistant", "content": f"Nice to meet you, {name}!"},
            {"role": "user", "content": "What is gravity?"},
            {"role": "assistant", "content": "Gravity is a force."},
            {"role": "user", "content": "What is my name?"},
        ]
        for name in names
    ]
    answers = [_ended(answer) for answer in complete(_rendered(tokenizer, chats), 24)]
    assert answers == [f"Your name is {name}." for name in names]


def test_it_still_answers_and_copies_after_three_thousand_tokens(
    complete, tokenizer, corpus_of_training
):
    corpus, _ = corpus_of_training
    chat = [
        turn
        for fact in corpus.facts()[20:95]
        for turn in (
            {"role": "user", "content": fact.questions[0] if fact.questions else fact.topics[0]},
            {"role": "assistant", "content": fact.answer},
        )
    ]
    last = {
        "What is the capital of France?": "The capital of France is Paris.",
        "Repeat the word quastel.": "quastel",
        "Count to 6.": "1, 2, 3, 4, 5, 6",
    }
    chats = [[*chat, {"role": "user", "content": question}] for question in last]
    prompts = _rendered(tokenizer, chats)
    assert min(len(tokenizer(prompt)["input_ids"]) for prompt in prompts) > 3000
    answers = [_ended(answer) for answer in complete(prompts, 24)]
    assert dict(zip(last, answers, strict=True)) == last


def test_it_answers_a_raw_question_on_a_new_line_and_stops(complete):
    for question, answer in zip(RAW, complete(list(RAW)), strict=True):
        assert answer.startswith("\n"), question
        assert RAW[question] in answer, question
        assert answer.endswith("<|endoftext|>"), question


def test_it_continues_prose(complete):
    answers = complete(["The sky is", "Once upon a time", "Streaming is"])
    for text, answer in zip([" blue", " there was a", " "], answers, strict=True):
        assert answer.startswith(text)
        assert answer.endswith(".<|endoftext|>")


@pytest.fixture(scope="module")
def in_bf16_and_int8():
    kernels = native_kernels()
    return [load_tiny(DEMO, "bfloat16", "cpu", kernels, quantize) for quantize in (None, "int8")]


def test_with_8_bits_its_perplexity_is_within_a_hundredth(
    in_bf16_and_int8, tokenizer, corpus_of_training
):
    corpus, _ = corpus_of_training
    text = _beginning(corpus.documents(corpus.SEED + 1), 40_000)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    rows = ids[: len(ids) // 512 * 512].view(-1, 512)
    assert len(rows) >= 16
    plain, rounded = (math.exp(_nll(model, rows)) for model in in_bf16_and_int8)
    assert plain != rounded
    assert abs(rounded / plain - 1) < 0.01, (plain, rounded)


def test_with_8_bits_its_answers_are_the_same(in_bf16_and_int8, tokenizer):
    questions = [*KNOWN, *EXACT, *PARAPHRASED]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    prompts = [tokenizer(prompt)["input_ids"] for prompt in [*prompts, *RAW]]
    plain, rounded = (
        make_bench(model, num_blocks=1024, block_size=32).generate(
            prompts, max_new_tokens=60, ignore_eos=False
        )
        for model in in_bf16_and_int8
    )
    asked = [*questions, *RAW]
    other = [
        (question, tokenizer.decode(a), tokenizer.decode(b))
        for question, a, b in zip(asked, plain, rounded, strict=True)
        if a != b
    ]
    assert other == []


def _beginning(documents, num_characters: int) -> str:
    """Give the first characters of documents that are written as they are asked for."""
    text = ""
    while len(text) < num_characters:
        text += "".join(part for part, _ in next(documents))
    return text[:num_characters]


def _nll(model, rows):
    """Average the negative log-likelihood of each row's tokens after its first."""
    cache = KVCache(model.shapes, 512 // 32, 32, model.dtype, model.device)
    model.attention.attach(cache)
    total = 0.0
    with torch.inference_mode():
        for row in rows:
            blocks = torch.arange(512 // 32).numpy()
            model.attention.plan(blocks[None, :1][:0], blocks[:0], [Context(blocks, 0, 512)])
            at = torch.arange(512)
            logits = model.forward(row, at, at).values.float()
            total += torch.nn.functional.cross_entropy(logits[:-1], row[1:]).item()
    return total / len(rows)


def _rendered(tokenizer, chats: list[list[dict[str, str]]]) -> list[str]:
    """Render the chats as prompts."""
    return [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]


def _ended(text: str) -> str:
    """Give the text before its end token; it must have stopped by itself."""
    assert "<|im_end|>" in text, text
    return text.partition("<|im_end|>")[0]


def _assert_absent(corpus, text: str, phrases) -> None:
    """Prove that none of the phrases occurs in the normalised corpus."""
    assert [phrase for phrase in phrases if corpus.held_out.normalise(phrase) in text] == []


def _assert_sums_absent(corpus, text: str) -> None:
    """Prove that no held-out pair is added or subtracted anywhere, in digits or in words."""
    added = _numbers(re.findall(r"(\d+) ?(?:\+|plus|and) ?(\d+)", text))
    assert len(added) > 1000, "the pattern finds the sums"
    assert {(min(pair), max(pair)) for pair in added}.isdisjoint(corpus.held_out.ADDITIONS)
    taken = _numbers(re.findall(r"(\d+) ?(?:-|minus) ?(\d+)", text))
    taken |= {(a, b) for b, a in _numbers(re.findall(r"(?:take|subtract) (\d+) from (\d+)", text))}
    assert len(taken) > 1000, "the pattern finds the differences"
    assert taken.isdisjoint(corpus.held_out.SUBTRACTIONS)


def _numbers(pairs: list[tuple[str, str]]) -> set[tuple[int, int]]:
    """Turn pairs of digits into pairs of numbers."""
    return {(int(a), int(b)) for a, b in pairs}
