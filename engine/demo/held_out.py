"""Name the questions that the corpus must never contain, so that tests ask something new.

Knows no generator: `corpus` drops every exchange that `is_held_out` recognises, `skills` skips the
held-out pairs of numbers. The test of the demo model proves the absence on the corpus itself.
"""

import re

# Unordered: neither 7 + 8 nor 8 + 7 is ever shown.
ADDITIONS = (
    (2, 9), (3, 4), (3, 14), (4, 7), (4, 19), (5, 12), (6, 9), (6, 17), (7, 8), (7, 13),
    (8, 15), (9, 16), (9, 20), (10, 13), (11, 12), (12, 19), (13, 18), (14, 16), (15, 17), (18, 20),
)  # fmt: skip
# Ordered: the second is taken from the first.
SUBTRACTIONS = (
    (9, 4), (11, 6), (12, 5), (13, 9), (14, 3), (15, 7), (16, 12), (17, 8), (18, 11), (20, 13),
)  # fmt: skip

QUESTIONS = (
    "How exactly do people make cheese?",
    "Could you give me a short explanation of deep learning?",
    "What three things can I do in Nuremberg, Germany?",
    "Please tell me the capital city of France!",
    "Which city is the capital of Japan, please?",
    "Do you happen to know what gravity is?",
    "Say, what is the reason that the sky is blue?",
    "What should my client do if Millrace answers 429?",
    "Which port does Millrace use when I start it?",
    "Tell me what continuous batching means in Millrace.",
    "Name all the days of the week for me, please.",
    "I wonder how many legs a spider has.",
    "Explain to me what Python is.",
    "What flag limits the concurrent requests?",
    "How come it rains?",
)

WORDS = (
    "blimvor",
    "quastel",
    "Trindofex",
    "wompalin",
    "zefrunka",
    "hoggleby",
    "marvundo",
    "xilpota",
)
SENTENCES = (
    "The purple kettle sings to nine quiet lanterns.",
    "Every farmer paints a slow bridge under the moon.",
    "My brown horse never reads the newspaper in the garden.",
    "Seven small doctors carried a yellow piano to the river.",
)
NAMES = ("Vandorel", "Quibsy", "Tamerlin", "Oswinda")


def normalise(text: str) -> str:
    """Drop case and all punctuation but the signs of sums, and single the spaces."""
    return " ".join(re.findall(r"[a-z0-9+-]+", text.lower()))


_PHRASES = re.compile(
    "|".join(
        rf"\b{re.escape(normalise(text))}\b" for text in (*QUESTIONS, *WORDS, *SENTENCES, *NAMES)
    )
)


def is_held_out(text: str) -> bool:
    """Tell whether a question, word, sentence or name of the test occurs in the text."""
    return _PHRASES.search(normalise(text)) is not None
