"""Write the corpus of the demo model: chats, plain questions with answers, and prose.

A document is a tuple of pieces; a piece is a text and whether the model learns to write it (what a
user or the system says is only read). The same seed gives the same corpus. Knows neither the
tokenizer nor torch; the facts are in `facts.txt`, the prose in `prose.txt`, the rules in `skills`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import held_out
import skills
from skills import Exchange

Piece = tuple[str, bool]
Document = tuple[Piece, ...]

SEED = 20
NUM_DOCUMENTS = 150_000
NUM_LONG_DOCUMENTS = 300
LONG_CHARACTERS = 14_500  # a little more than 4,096 tokens

START, END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIALS = (END_OF_TEXT, START, END)

_HERE = Path(__file__).parent
_TOPIC_SINGULAR = (
    "What is {t}?", "What is {t}?", "What's {t}?", "What is {t} exactly?", "So, what is {t}?",
    "What is {t}, please?", "Can you tell me what {t} is?", "Do you know what {t} is?",
    "I would like to know what {t} is.", "Could you tell me what {t} is?",
    "I want to know what {t} is.", "Explain what {t} is.", "Tell me what {t} is.", "what is {t}",
    "what is meant by {t}?",
)  # fmt: skip
_TOPIC_PLURAL = (
    "What are {t}?", "What are {t}?", "what are {t}", "What are {t} exactly?",
    "Can you tell me what {t} are?", "Do you know what {t} are?", "Tell me what {t} are.",
    "I would like to know what {t} are.", "Explain what {t} are.", "What are {t}, please?",
)  # fmt: skip
_TOPIC_ANY = (
    "Tell me about {t}.", "Explain {t}.", "Can you explain {t}?", "Please explain {t}.",
    "Define {t}.", "What do you know about {t}?", "Tell me something about {t}.",
    "Explain {t} to me.", "{T}?", "{t}", "Could you explain {t}?", "Describe {t}.",
    "Give me a short explanation of {t}.", "Explain {t} in simple words.",
    "I want to learn about {t}.", "What can you tell me about {t}?", "Say something about {t}.",
    "Explain to me {t}.", "Could you give me an explanation of {t}?",
)  # fmt: skip
_BEFORE = (
    "Please tell me: ", "Tell me: ", "I have a question: ", "Hello! ", "Hi, ", "Hey, ", "Say, ",
    "Question: ", "Please, ", "Can you help me? ", "Quick question: ", "One more question. ",
    "Well, ", "And ", "Now, ", "Okay, ", "Sorry, ", "Hello, ", "I wonder: ", "Please answer: ",
)  # fmt: skip
_AFTER = (" Please.", " Thanks!", " Thank you.", " please", " I am curious.", " Please tell me.")
_SYSTEM = (
    "You are a helpful assistant.", "You are a helpful assistant.",
    "You are the demo model of Millrace.", "You are a friendly assistant.",
    "Be helpful and polite.", "Answer the questions of the user.",
    "You are a small and honest assistant.", "You are an assistant that helps with Millrace.",
    "Answer as well as you can.", "You are a chat bot.", "You are a helpful AI assistant.",
)  # fmt: skip
_SYSTEM_BRIEF = (
    "Answer in one sentence.", "Answer in one short sentence.", "Be brief.",
    "Keep your answers short.", "You are a helpful assistant. Answer in one sentence.",
    "Give short answers.",
)  # fmt: skip
_WHO = ("Who are you?", "What is your name?", "What's your name?")
# What a user tells, how that is answered, how it is asked for later, the answer, and without it.
_MEMORIES = (
    (("My name is {x}.", "Call me {x}.", "Hello, my name is {x}.", "Hi, I'm {x}.", "I am {x}.",
      "My name is {x}", "Hi! My name is {x}. Nice to meet you."), "Nice to meet you, {x}!",
     ("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
     "Tell me my name.",
      "What am I called?", "Do you know my name?"),
     "Your name is {x}.", "You have not told me your name yet."),
    (("I live in {x}.", "I come from {x}.", "My home is in {x}."), "{x} must be a nice place.",
     ("Where do I live?", "Where do I come from?", "Where is my home?"),
     "You told me that it is {x}.", "You have not told me where you live."),
    (("My dog is called {x}.", "I have a dog called {x}.", "My dog's name is {x}."),
     "{x} is a good name for a dog.",
     ("What is my dog called?", "What is the name of my dog?", "What's my dog's name?"),
     "Your dog is called {x}.", "You have not told me the name of your dog."),
    (("Remember the word {x}.", "Please remember this word: {x}", "Keep the word {x} in mind."),
     "I will remember the word {x}.",
     ("Which word should you remember?", "What was the word?", "What word did I tell you?"),
     "The word is {x}.", "You have not told me a word yet."),
)  # fmt: skip
_PLAIN_SKILLS = (
    skills.addition,
    skills.subtraction,
    skills.counting,
    skills.neighbour,
    skills.table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One hand-written answer with its topics and the questions that lead to it."""

    topics: tuple[str, ...]
    is_plural: bool
    questions: tuple[str, ...]
    answer: str


def facts() -> list[Fact]:
    """Read the hand-written facts."""
    return [_fact(block) for block in _blocks("facts.txt")]


def documents(seed: int = SEED) -> Iterator[Document]:
    """Write the short documents: chats, plain questions with answers, and prose."""
    writer = _Writer(Random(seed))
    return (writer.document() for _ in range(NUM_DOCUMENTS))


def long_documents(seed: int = SEED) -> Iterator[Document]:
    """Write the chats that fill a whole context and ask for what was said far above."""
    writer = _Writer(Random(seed + 1))
    return (writer.long_chat() for _ in range(NUM_LONG_DOCUMENTS))


def text(seed: int = SEED) -> str:
    """Give the whole corpus as one text, as the model reads it."""
    every = (*documents(seed), *long_documents(seed))
    return "".join(part for document in every for part, _ in document)


class _Writer:
    """Draw documents from one random source."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._facts = facts()
        self._fact_weights = [2 + 2 * len(f.topics) + len(f.questions) for f in self._facts]
        self._sentences = [
            sentence for fact in self._facts for sentence in re.split(r"(?<=[.!?])\s", fact.answer)
        ]
        self._prose = _blocks("prose.txt")
        self._skills, self._weights = zip(*skills.SKILLS, strict=True)

    def document(self) -> Document:
        """Write one document of a kind drawn by chance."""
        kind = self._rng.random()
        if kind < 0.22:
            question, answer = self._exchange()
            return (question, False), (f"\n{answer}{END_OF_TEXT}", True)
        if kind < 0.27:
            return ((self._paragraph() + END_OF_TEXT, True),)
        if kind < 0.35:
            return _chat(None, self._remembering(self._rng.randint(0, 4)))
        if kind < 0.38:
            return self._told_by_system()
        size = self._rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
        exchanges = [self._exchange() for _ in range(size)]
        system = self._rng.choice(_SYSTEM) if self._rng.random() < 0.25 else None
        if self._rng.random() < 0.06:
            system = self._rng.choice(_SYSTEM_BRIEF)
            exchanges = [(question, _first_sentence(answer)) for question, answer in exchanges]
        return _chat(system, exchanges)

    def long_chat(self) -> Document:
        """Write one chat of memories, far apart, until it fills the context."""
        told: dict[int, str] = {}
        exchanges: list[Exchange] = []
        size = 0
        while size < LONG_CHARACTERS:
            about = self._rng.randrange(len(_MEMORIES))
            if about not in told and self._rng.random() < 0.25:
                told[about] = self._new_name()
                exchanges.append(self._tell(about, told[about]))
            elif self._rng.random() < 0.2:
                exchanges.append(self._ask(about, told.get(about)))
            else:
                exchanges.append(self._exchange())
            size += len(exchanges[-1][0]) + len(exchanges[-1][1]) + 40
        return _chat(None, exchanges)

    def _exchange(self) -> Exchange:
        """Draw one question with its answer, and again if it is held out."""
        while True:
            question, answer = self._fact() if self._rng.random() < 0.45 else self._skill()
            if not held_out.is_held_out(f"{question}\n{answer}"):
                return question, answer

    def _fact(self) -> Exchange:
        """Ask for one of the facts, more often for one that can be asked in more ways."""
        (fact,) = self._rng.choices(self._facts, self._fact_weights)
        templates = _TOPIC_ANY + (_TOPIC_PLURAL if fact.is_plural else _TOPIC_SINGULAR)
        if fact.topics and (not fact.questions or self._rng.random() < 0.55):
            topic = self._rng.choice(fact.topics)
            question = self._rng.choice(templates).format(t=topic, T=topic[0].upper() + topic[1:])
        else:
            question = self._rng.choice(fact.questions)
        return self._decorated(question), fact.answer

    def _skill(self) -> Exchange:
        """Draw an exchange that follows a rule."""
        if self._rng.random() < 0.1:
            return skills.repeat_this(self._rng, self._altered_sentence())
        (skill,) = self._rng.choices(self._skills, self._weights)
        question, answer = skill(self._rng)
        return (self._decorated(question) if skill in _PLAIN_SKILLS else question), answer

    def _altered_sentence(self) -> str:
        """Take a sentence of the facts and put other words and numbers into it."""
        words = self._rng.choice(self._sentences).split()
        for _ in range(self._rng.randint(0, 4)):
            other = self._rng.choice(self._rng.choice(self._sentences).split())
            if self._rng.random() < 0.2:
                other = str(self._rng.randrange(1000))
            words[self._rng.randrange(len(words))] = other
        return " ".join(words[: self._rng.randint(4, 18)])

    def _decorated(self, question: str) -> str:
        """Change case and marks, add polite words, and now and then a slip of the finger."""
        chance = self._rng.random
        if chance() < 0.12 and len(question) > 8:
            start = self._rng.choice(_BEFORE)
            lowered = question[0].lower() + question[1:] if start[-2] not in "!.?" else question
            question = start + lowered
        if chance() < 0.2:
            question = question.rstrip("?.! ")
        if chance() < 0.06:
            question += self._rng.choice(_AFTER)
        if chance() < 0.2:
            question = question.lower()
        elif chance() < 0.1:
            question = question.upper()
        if chance() < 0.07 and len(question) > 12:
            at = self._rng.randrange(1, len(question) - 2)
            swapped = question[at + 1] + question[at] if chance() < 0.5 else question[at]
            if question[at : at + 2].isalpha():
                question = question[:at] + swapped + question[at + 2 :]
        return question

    def _paragraph(self) -> str:
        """Take prose, a story, a copied line, or an answer without its question."""
        kind = self._rng.random()
        if kind < 0.5:
            return self._rng.choice(self._prose).format(name=self._new_name())
        if kind < 0.7:
            return skills.story(self._rng)[1]
        return self._rng.choice(self._facts).answer

    def _remembering(self, num_between: int) -> list[Exchange]:
        """Tell something, talk of other things, and ask for it, or ask for what was never told."""
        about, *others = self._rng.sample(range(len(_MEMORIES)), 3)
        value = self._new_name()
        exchanges = [self._tell(about, value), *(self._exchange() for _ in range(num_between))]
        if self._rng.random() < 0.4:
            exchanges.insert(1, self._tell(others[0], self._new_name()))
        if self._rng.random() < 0.3:
            exchanges.insert(self._rng.randint(0, len(exchanges)), self._ask(others[1], None))
        if self._rng.random() < 0.12:
            return [self._ask(about, None), *exchanges, self._ask(about, value)]
        return [*exchanges, self._ask(about, value)]

    def _told_by_system(self) -> Document:
        """Write a chat whose system message names the user or the assistant, or nobody."""
        value = self._new_name()
        kind = self._rng.random()
        if kind < 0.35:
            system = self._rng.choice((f"You are {value}, a helpful assistant.",
                                       f"Your name is {value}."))  # fmt: skip
            answer = f"My name is {value}. How can I help you?"
            return _chat(system, [(self._rng.choice(_WHO), answer)])
        if kind < 0.7:
            (known,) = [fact.answer for fact in self._facts if _WHO[0] in fact.questions]
            return _chat(self._rng.choice((None, *_SYSTEM)), [(self._rng.choice(_WHO), known)])
        system = self._rng.choice(("The user is called {x}.", "The user's name is {x}."))
        between = [self._exchange() for _ in range(self._rng.randint(0, 2))]
        return _chat(system.format(x=value), [*between, self._ask(0, value)])

    def _tell(self, about: int, value: str) -> Exchange:
        """Let the user tell something of one of the kinds."""
        told, reply, *_ = _MEMORIES[about]
        return self._rng.choice(told).format(x=value), reply.format(x=value)

    def _ask(self, about: int, value: str | None) -> Exchange:
        """Let the user ask for what was told; None if it was not."""
        *_, questions, answer, unknown = _MEMORIES[about]
        question = self._rng.choice(questions)
        return question, unknown if value is None else answer.format(x=value)

    def _new_name(self) -> str:
        """Take a name that is not held out."""
        while held_out.is_held_out(drawn := skills.name(self._rng)):
            pass
        return drawn


def _chat(system: str | None, exchanges: Sequence[Exchange]) -> Document:
    """Lay a chat out as the chat template does."""
    pieces: list[Piece] = []
    if system is not None:
        pieces.append((f"{START}system\n{system}{END}\n", False))
    for question, answer in exchanges:
        pieces.append((f"{START}user\n{question}{END}\n{START}assistant\n", False))
        pieces.append((f"{answer}{END}", True))
        pieces.append(("\n", False))
    pieces.append((END_OF_TEXT, False))
    return tuple(pieces)


def _first_sentence(answer: str) -> str:
    """Cut a plain answer after its first sentence; leave lists, verses and stories whole."""
    if "\n" in answer or '"' in answer or len(answer) < 40:
        return answer
    head, dot, _ = answer.partition(". ")
    return head + dot.strip()


def _fact(block: str) -> Fact:
    """Read one fact from its lines."""
    lines = block.split("\n")
    topics = [line for line in lines if line.startswith("@")]
    questions = [line for line in lines if line.startswith("?")]
    answer = [line for line in lines if not line.startswith(("@", "?"))]
    return Fact(
        topics=tuple(part for line in topics for part in _parts(line.lstrip("@+"))),
        is_plural=any(line.startswith("@+") for line in topics),
        questions=tuple(part for line in questions for part in _parts(line[1:])),
        answer="\n".join(answer),
    )


def _parts(line: str) -> list[str]:
    """Split what bars part."""
    return [part.strip() for part in line.split("|")]


def _blocks(file: str) -> list[str]:
    """Read the paragraphs of a file without its comments."""
    lines = (_HERE / file).read_text(encoding="utf-8").split("\n")
    whole = "\n".join(line for line in lines if not line.startswith("#"))
    return [block.strip("\n") for block in whole.split("\n\n") if block.strip()]
