"""Marks: they stand for special text in what a template is told, so that it does not act.

Special text that comes whole is replaced by a numbered mark. A text may also end with the beginning
of one, or begin with the end of one, and be joined to another by the template: such an edge gets a
mark of its own. Knows no ids.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any


class Marks:
    """The special texts of a tokenizer; the caller gives a mark, which nobody can guess."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = sorted(filter(None, texts), key=len, reverse=True)
        """By their numbers."""
        self._number_of = {text: number for number, text in enumerate(self.texts)}
        self._pattern = re.compile("|".join(map(re.escape, self.texts)) or r"(?!)")
        self._heads = {text[:size] for text in self.texts for size in range(1, len(text))}
        self._tails = {text[-size:] for text in self.texts for size in range(1, len(text))}
        self._firsts = {text[0] for text in self.texts}
        self._lasts = {text[-1] for text in self.texts}
        self._longest = max(map(len, self.texts), default=0)

    def put(self, value: Any, mark: str) -> Any:
        """Mark every text in a value, however deep it lies."""
        match value:
            case str():
                return self._put(value, mark)
            case Mapping():
                return {self.put(key, mark): self.put(item, mark) for key, item in value.items()}
            case list() | tuple():
                return [self.put(item, mark) for item in value]
            case _:
                return value

    def split(self, text: str, mark: str) -> list[str]:
        """Split what was rendered: plain text and numbers of special ones, in turn."""
        edge = _edge(mark)
        if edge in text:
            text = self._join(text.split(edge), mark)
        return re.split(f"{mark}(\\d+){mark}", text)

    def _put(self, text: str, mark: str) -> str:
        marked = self._pattern.sub(lambda found: self._sign(found[0], mark), text)
        if self._begins_with_a_tail(text):
            marked = _edge(mark) + marked
        if self._ends_with_a_head(text):
            marked += _edge(mark)
        return marked

    def _begins_with_a_tail(self, text: str) -> bool:
        start = text[: self._longest]
        if self._lasts.isdisjoint(start):  # as nearly always
            return False
        return any(start[:size] in self._tails for size in range(1, len(start) + 1))

    def _ends_with_a_head(self, text: str) -> bool:
        end = text[-self._longest :] if self._longest else ""
        if self._firsts.isdisjoint(end):
            return False
        return any(end[-size:] in self._heads for size in range(1, len(end) + 1))

    def _join(self, pieces: list[str], mark: str) -> str:
        """Join what the edges part; special text that lies across one is replaced, too."""
        edges = list(accumulate(map(len, pieces[:-1])))

        def sign(found: re.Match[str]) -> str:
            at = bisect_right(edges, found.start())
            is_joined = at < len(edges) and edges[at] < found.end()
            return self._sign(found[0], mark) if is_joined else found[0]

        return self._pattern.sub(sign, "".join(pieces))

    def _sign(self, text: str, mark: str) -> str:
        return f"{mark}{self._number_of[text]}{mark}"


def _edge(mark: str) -> str:
    return f"{mark}/{mark}"
