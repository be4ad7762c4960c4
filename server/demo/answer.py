"""Answer: the text so far and how quickly it came; knows neither Gradio nor the server."""

import time
from collections.abc import Callable

from huggingface_hub import TextGenerationStreamOutput


class Answer:
    """Grows by pieces of text; made when the question is sent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = ""
        self.num_pieces = 0
        self.first_s: float | None = None
        """From the question to the first piece."""
        self.last_s = 0.0
        """From the question to the latest piece."""
        self.num_cached: int | None = None
        """Prompt tokens that the server had computed before; known at the end, by Millrace only."""
        self._clock = clock
        self._asked = clock()

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self.last_s = self.elapsed_s()
        if self.first_s is None:
            self.first_s = self.last_s
        self.text = (self.text + piece).lstrip()  # models begin an answer with an empty line
        self.num_pieces += 1

    def take(self, token: TextGenerationStreamOutput | None) -> None:
        """Take the next token; none is a second in which nothing came."""
        if token is None:
            return
        if not token.token.special:
            self.add(token.token.text)
        if token.details is not None:
            self.num_cached = token.details.get("cached_tokens")

    def elapsed_s(self) -> float:
        """Tell how long ago the question was sent."""
        return self._clock() - self._asked

    def status(self) -> str:
        """Say in a line how it went so far."""
        if self.first_s is None:
            return f"Waiting for the first word … {self.elapsed_s():.0f} s"
        words = [f"First word after **{self.first_s * 1000:.0f} ms**", f"{self.num_pieces} tokens"]
        if self.last_s > self.first_s:
            rate = (self.num_pieces - 1) / (self.last_s - self.first_s)
            words.append(f"{rate:.0f} tokens/s")
        if self.num_cached:
            words.append(f"{self.num_cached} prompt tokens from the cache")
        return " · ".join(words)
