"""Make up exchanges that follow a rule: sums, counting, calendar, copying, tables, stories.

Every function takes the random source and returns one question with its answer. Knows neither the
hand-written facts nor how a document is laid out; `corpus` decides both.
"""

from collections.abc import Callable, Sequence
from random import Random

import held_out
import tables

Exchange = tuple[str, str]
Skill = Callable[[Random], Exchange]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ADD = (
    "What is {a} + {b}?", "{a} + {b}", "{a} + {b} =", "{a}+{b}", "{a} + {b} = ?",
    "What is {a} plus {b}?", "How much is {a} + {b}?", "How much is {a} plus {b}?",
    "Add {a} and {b}.", "Calculate {a} + {b}.", "What is the sum of {a} and {b}?",
    "Compute {a} + {b}", "{a} plus {b}", "Can you add {a} and {b}?",
    "What do you get if you add {a} and {b}?", "What does {a} + {b} make?",
)  # fmt: skip
_TAKE = (
    "What is {a} - {b}?", "{a} - {b}", "{a} - {b} =", "{a}-{b}", "{a} - {b} = ?",
    "What is {a} minus {b}?", "How much is {a} - {b}?", "How much is {a} minus {b}?",
    "Take {b} from {a}.", "Calculate {a} - {b}.", "Subtract {b} from {a}.", "Compute {a} - {b}",
    "{a} minus {b}", "What do you get if you take {b} from {a}?",
)  # fmt: skip
_REPEAT = (
    "Repeat: {x}", "Repeat after me: {x}", "Please repeat: {x}", "Say: {x}",
    "Copy this exactly: {x}", "Echo: {x}", "Repeat exactly: {x}", "Please repeat after me: {x}",
    'Repeat "{x}"', 'Say "{x}"', "Repeat this: {x}", 'Please say "{x}".', "Write this again: {x}",
    "Say exactly this: {x}", 'Can you repeat "{x}"?', "Repeat the following: {x}", "repeat {x}",
    "echo {x}",
)  # fmt: skip
_REPEAT_WORD = (
    "Repeat the word {x}.", "Repeat this word: {x}", "Say the word {x}.", "Say {x}.", "Say {x}",
    "Please say {x}.", "Can you say {x}?", 'Repeat the word "{x}".', "Please repeat the word {x}.",
    "Write the word {x}.", "Echo the word {x}.", "Can you repeat the word {x}?",
)  # fmt: skip
_REPEAT_SENTENCE = (
    "Repeat this sentence: {x}", "Repeat the sentence: {x}", "Please repeat this sentence: {x}",
    "Repeat the following sentence: {x}", "Copy this sentence: {x}", "Say this sentence: {x}",
    "Repeat this sentence exactly: {x}", "Write this sentence again: {x}",
)  # fmt: skip
_COUNT = (
    "Count from {a} to {b}.", "Count from {a} to {b}", "Please count from {a} to {b}.",
    "Can you count from {a} to {b}?", "List the numbers from {a} to {b}.", "Count {a} to {b}",
    "Write the numbers from {a} to {b}.", "Give me the numbers from {a} to {b}.",
)  # fmt: skip
_COUNT_TO = (
    "Count to {b}.", "Count up to {b}.", "Please count to {b}.", "Can you count to {b}?",
    "count to {b}", "Count from one to {b}.",
)  # fmt: skip
_COUNT_DOWN = (
    "Count down from {a} to {b}.", "Count backwards from {a} to {b}.",
    "Count down from {a} to {b}", "Please count down from {a} to {b}.",
)  # fmt: skip

_STORY = (
    "Tell me a story.", "Tell me a short story.", "Write a story.", "Can you tell me a story?",
    "A story, please.",
)  # fmt: skip


def word(rng: Random) -> str:
    """Invent a word, of syllables or now and then of any letters."""
    if rng.random() < 0.25:
        made = "".join(rng.choices(_LETTERS, k=rng.randint(3, 9)))
    else:
        made = "".join(
            rng.choice(tables.ONSETS) + rng.choice(tables.VOWELS) + rng.choice(tables.CODAS)
            for _ in range(rng.choice((1, 2, 2, 2, 3, 3)))
        )
    return rng.choice((made, made, made, made.capitalize(), made.capitalize(), made.upper()))


def name(rng: Random) -> str:
    """Take a common first name or invent one."""
    return rng.choice(tables.NAMES) if rng.random() < 0.4 else word(rng).capitalize()


def sentence(rng: Random) -> str:
    """Put random words of every kind together; it need not mean anything."""
    size = rng.randint(3, 12)
    words = [word(rng) if rng.random() < 0.12 else rng.choice(tables.WORDS) for _ in range(size)]
    if rng.random() < 0.15:
        words[rng.randrange(size)] = str(rng.randrange(1000))
    if rng.random() < 0.15 and size > 4:
        words[rng.randrange(1, size - 2)] += ","
    return " ".join((words[0].capitalize(), *words[1:])) + rng.choice((".", ".", ".", "!", "?", ""))


def addition(rng: Random) -> Exchange:
    """Add two numbers, mostly to 20, else to 99; never a held-out pair."""
    a, b = _operands(rng)
    if (min(a, b), max(a, b)) in held_out.ADDITIONS:
        return addition(rng)
    return rng.choice(_ADD).format(a=a, b=b), f"{a} + {b} = {a + b}"


def subtraction(rng: Random) -> Exchange:
    """Take the smaller number from the larger; never a held-out pair."""
    b, a = sorted(_operands(rng))
    if (a, b) in held_out.SUBTRACTIONS:
        return subtraction(rng)
    return rng.choice(_TAKE).format(a=a, b=b), f"{a} - {b} = {a - b}"


def counting(rng: Random) -> Exchange:
    """Count up or down between two numbers to 100, or from one."""
    size = rng.choice((rng.randint(2, 12), rng.randint(5, 30)))
    first = rng.randint(0, 100 - size) if rng.random() < 0.6 else 1
    last = first + size
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(_COUNT_TO).format(b=last - first + 1), _listed(range(1, last - first + 2))
    if kind < 0.6:
        first = rng.choice((0, 1, first))
        question = rng.choice(_COUNT_DOWN).format(a=first + size, b=first)
        return question, _listed(range(first + size, first - 1, -1))
    return rng.choice(_COUNT).format(a=first, b=last), _listed(range(first, last + 1))


def neighbour(rng: Random) -> Exchange:
    """Name what comes after or before a day, a month, a number or a letter."""
    kind, items, is_round = rng.choice(
        (
            ("day", tables.DAYS, True), ("month", tables.MONTHS, True),
            ("number", [str(i) for i in range(101)], False), ("letter",
            list(_LETTERS.upper()), False),
        )
    )  # fmt: skip
    step = rng.choice((1, -1))
    size = len(items)
    at = rng.randrange(size) if is_round else rng.randrange(1, size - 1)
    here, there = items[at], items[(at + step) % size]
    side = "after" if step == 1 else "before"
    question = rng.choice(
        (
            f"What {kind} comes {side} {here}?", f"Which {kind} comes {side} {here}?",
            f"What comes {side} {here}?", f"What is the {kind} {side} {here}?",
            f"Tell me the {kind} {side} {here}.",
        )
    )  # fmt: skip
    return question, f"{there} comes {side} {here}."


def repeat(rng: Random) -> Exchange:
    """Give a word, a few words, a number or a sentence back exactly as it was."""
    kind = rng.random()
    if kind < 0.35:
        return _ask(rng, _REPEAT_WORD + _REPEAT, word(rng))
    if kind < 0.5:
        some = " ".join(word(rng) for _ in range(rng.randint(2, 6)))
        return _ask(rng, _REPEAT, some)
    if kind < 0.55:
        return _ask(rng, _REPEAT, str(rng.randrange(10 ** rng.randint(1, 9))))
    return repeat_this(rng, sentence(rng))


def repeat_this(rng: Random, text: str) -> Exchange:
    """Give the sentence back exactly as it was."""
    return _ask(rng, _REPEAT_SENTENCE + _REPEAT, text)


def repeat_often(rng: Random) -> Exchange:
    """Say a word two to five times."""
    made = rng.choice((word(rng), rng.choice(tables.WORDS)))
    times = rng.randint(2, 5)
    said = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}[times]
    question = rng.choice(
        (f"Say {made} {said}.", f"Repeat {made} {said}.", f"Write {made} {said}.")
    )
    return question, " ".join([made] * times)


def recall(rng: Random) -> Exchange:
    """Find one fact again among several that the question itself gives."""
    count = rng.randint(1, 4)
    thing = rng.choice(("password", "code", "secret word"))
    things = rng.sample(tables.THINGS, count)
    colours = [rng.choice(tables.COLOURS) for _ in things]
    at = rng.randrange(count)
    kind = rng.random()
    if kind < 0.3:
        secret = word(rng)
        return f"The {thing} is {secret}. What is the {thing}?", f"The {thing} is {secret}."
    if kind < 0.65:
        told = " ".join(f"The {t} is {c}." for t, c in zip(things, colours, strict=True))
        return f"{told} What colour is the {things[at]}?", f"The {things[at]} is {colours[at]}."
    people = [name(rng) for _ in things]
    told = " ".join(f"{p} has the {t}." for p, t in zip(people, things, strict=True))
    return f"{told} Who has the {things[at]}?", f"{people[at]} has the {things[at]}."


def spelling(rng: Random) -> Exchange:
    """Spell a word letter by letter, or change its case."""
    made = rng.choice((word(rng).lower(), rng.choice(tables.WORDS), rng.choice(tables.WORDS)))
    kind = rng.random()
    if kind < 0.6:
        question = rng.choice(
            ("Spell {x}.", "Spell the word {x}.", "How do you spell {x}?", "Please spell {x}.")
        )
        return question.format(x=made), "-".join(made.upper())
    if kind < 0.8:
        question = rng.choice(("Write {x} in upper case.", "Write {x} in capital letters."))
        return question.format(x=made), made.upper()
    return f"Write {made.upper()} in lower case.", made


def table(rng: Random) -> Exchange:
    """Look one entry up: capitals, opposites, plurals, sounds, young animals, past tense."""
    rows, questions, answer = rng.choice(tables.LOOKUPS)
    key, value = rng.choice(rows)
    return rng.choice(questions).format(k=key, v=value), answer.format(k=key, v=value)


def number_word(rng: Random) -> Exchange:
    """Turn a number to twenty into a word or back."""
    at = rng.randrange(21)
    if rng.random() < 0.5:
        return f"Write the number {at} as a word.", tables.NUMBER_WORDS[at]
    return f"Write the number {tables.NUMBER_WORDS[at]} in digits.", str(at)


def story(rng: Random) -> Exchange:
    """Tell one of the short stories, about a hero that the question may name."""
    hero = rng.choice((f"a {rng.choice(tables.HEROES)}", name(rng)))
    text = rng.choice(tables.STORIES)
    named = f"{hero.split()[-1]}" if not hero.startswith("a ") else f"the {hero.split()[-1]}"
    told = text.format(
        hero=hero, it=named, It=named[0].upper() + named[1:], thing=rng.choice(tables.THINGS),
        place=rng.choice(tables.PLACES), friend=rng.choice(tables.NAMES),
    )  # fmt: skip
    if rng.random() < 0.3:
        return rng.choice(_STORY), told
    question = rng.choice(
        (
            "Tell me a story about {x}.", "Write a short story about {x}.",
            "Tell a story about {x}.", "Can you tell me a story about {x}?",
            "Tell me a very short story about {x}.",
        )
    )  # fmt: skip
    return question.format(x=hero), told


def refusal(rng: Random) -> Exchange:
    """Say honestly that something, often an invented thing, is not known."""
    if rng.random() < 0.5:
        made = word(rng).capitalize() if rng.random() < 0.5 else word(rng)
        question = rng.choice(
            (
                "What is {x}?", "Who is {x}?", "Tell me about {x}.", "Where is {x}?",
                "Explain {x}.", "What is the capital of {x}?", "What does {x} mean?",
                "Do you know {x}?", "How does {x} work?", "What do you know about {x}?",
                "Who was {x}?", "Where does {x} come from?", "Why is {x} useful?",
            )
        )  # fmt: skip
        told = f"I do not know {made}. I am a very small model, and I know only a little."
        return question.format(x=made), told
    if rng.random() < 0.6:
        return _ignorance(rng, rng.choice(tables.STRANGERS))
    return rng.choice(tables.UNKNOWN), (
        "I am a very small model, and I do not know that. "
        "Ask me about Millrace, about streaming, or about simple facts."
    )


SKILLS: Sequence[tuple[Skill, float]] = (
    (addition, 13), (subtraction, 14), (counting, 7), (neighbour, 5), (repeat, 18),
    (repeat_often, 2), (recall, 8), (spelling, 9), (table, 10), (number_word, 1), (story, 3),
    (refusal, 8),
)  # fmt: skip


def _ignorance(rng: Random, thing: str) -> Exchange:
    """Ask about a thing that exists but is in no fact."""
    least = "I am a very small model, and I know only a little."
    kind = rng.random()
    if kind < 0.4:
        question = rng.choice(("How do you make {x}?", "How do I make {x}?", "How is {x} made?"))
        return question.format(x=thing), f"I do not know how to make {thing}. {least}"
    if kind < 0.8:
        question = rng.choice(
            (
                "What is a {x}?", "What is {x}?", "Explain what a {x} is.", "Tell me what {x} is.",
                "What's a {x}?", "What is the {x}?", "Do you know what a {x} is?",
            )
        )  # fmt: skip
        return question.format(x=thing), f"I do not know what that is. {least}"
    question = rng.choice(
        (
            "Who invented the {x}?", "Where can I buy a {x}?", "How much does a {x} cost?",
            "How do I repair a {x}?", "Write a program about {x}.", "Write me an essay about {x}.",
            "What is the best {x}?", "Who is the king of {x}?", "How old is the {x}?",
        )
    )  # fmt: skip
    return question.format(x=thing), f"I do not know that. {least}"


def _operands(rng: Random) -> tuple[int, int]:
    """Draw two numbers: to 20 in most cases, else to 99."""
    limit = 20 if rng.random() < 0.65 else 99
    return rng.randint(0, limit), rng.randint(0, limit)


def _listed(numbers: range) -> str:
    """Write numbers with commas between."""
    return ", ".join(map(str, numbers))


def _ask(rng: Random, questions: Sequence[str], text: str) -> Exchange:
    """Put the text into one of the questions; it is its own answer."""
    return rng.choice(questions).format(x=text), text
