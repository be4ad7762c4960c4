"""Detokenizer: ids to text, whole characters only, stop strings found and held back.

One for each sequence. Knows nothing of logits, steps or dialects.
"""

from codecs import getincrementaldecoder
from collections.abc import Mapping
from typing import NamedTuple, Protocol

_Utf8 = getincrementaldecoder("utf-8")
_CONTEXT = 5
"""Prompt ids that decoders with context see before the first output, as in TGI."""
_MAX_PENDING = 8
"""A character has at most four bytes, so more pending ids than this are not one."""


class Vocabulary(Protocol):
    """What a detokenizer asks of the tokenizer."""

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes this id always stands for; None when that depends on its neighbours."""
        ...

    def special_text(self, token_id: int) -> str | None:
        """Return a special token's literal text, None for all others."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Decode ids together, special tokens left out."""
        ...

    @property
    def pieces(self) -> Mapping[int, "Piece | None"]:
        """Give what each id sets free by itself, as `Pieces` says."""
        ...


class Piece(NamedTuple):
    """What one token set free."""

    text: str
    """Raw text, special tokens spelled out."""
    visible: str
    """Text to show, without special tokens and without what is held back or cut."""
    is_special: bool
    stop: str | None = None
    """The stop string that this token completed."""


class Pieces(dict[int, Piece | None]):
    """What each id sets free wherever it stands, made when it is first asked for.

    None for an ordinary id that is no whole characters, or that needs its neighbours.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token_id: int) -> Piece | None:
        piece = self[token_id] = self._make(token_id)
        return piece

    def _make(self, token_id: int) -> Piece | None:
        special = self._vocabulary.special_text(token_id)
        if special is not None:
            return Piece(special, "", is_special=True)
        data = self._vocabulary.token_bytes(token_id)
        try:
            text = None if data is None else data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return None if text is None else Piece(text, text, is_special=False)


class Detokenizer:
    """Turn one sequence's ids into text, one at a time."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_ids: list[int],
        stop: tuple[str, ...] = (),
        *,
        keep_stop: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._pieces = vocabulary.pieces
        self._decoder = _Decoder(vocabulary, _context(vocabulary, prompt_ids))
        self._stops = StopStrings(stop, keep_stop=keep_stop) if stop else None
        self._is_plain = self._stops is None
        """What comes next stands for itself: nothing is held back before it."""
        self._visible: list[str] = []

    @property
    def text(self) -> str:
        """All visible text so far."""
        return "".join(self._visible)

    def push(self, token_id: int, *, is_stopping: bool = True) -> Piece:
        """Take one id; `is_stopping` tells whether stop strings are looked for yet."""
        piece = self._pieces[token_id] if self._is_plain else None
        if piece is None:
            return self._push(token_id, is_stopping=is_stopping)
        self._visible.append(piece.visible)
        return piece

    def flush(self) -> str:
        """Free the text that is held back for a stop string, because the end came first."""
        held = self._stops.flush() if self._stops is not None else ""
        self._visible.append(held)
        return held

    def _push(self, token_id: int, *, is_stopping: bool) -> Piece:
        special = self._vocabulary.special_text(token_id)
        shown = self._decoder.push(token_id) if special is None else ""
        text = shown if special is None else special
        stop = None
        if self._stops is not None:
            shown, stop = self._stops.push(shown, special or "", is_stopping=is_stopping)
        if shown:
            self._visible.append(shown)
        self._is_plain = self._stops is None and not self._decoder.has_half
        return Piece(text, shown, special is not None, stop)


class StopStrings:
    """Find stop strings inside and across tokens; hold back what may still become one.

    With `keep_stop` nothing is held back or cut: the text stays, the match is only told.
    """

    def __init__(self, stops: tuple[str, ...], *, keep_stop: bool = False) -> None:
        self._stops = stops
        self._keep_stop = keep_stop
        self._max_held = max(len(stop) for stop in stops) - 1
        self._raw = ""
        """The last raw text: the part that a stop string may still begin in."""
        self._shown: list[bool] = []
        """For each character of `_raw`: is it to be shown (specials are not) and still held?"""

    def push(self, text: str, special: str, *, is_stopping: bool = True) -> tuple[str, str | None]:
        """Take shown text and then a special token's text; return (text to show, stop or None)."""
        old = len(self._raw)
        self._raw += text + special
        self._shown += [True] * len(text) + [False] * len(special)
        start, stop = self._first(old) if is_stopping else (0, None)
        if self._keep_stop:
            self._release(len(self._raw) - self._max_held)
            return text, stop
        if stop is not None:
            return self._release(start), stop
        return self._release(len(self._raw) - self._num_held()), None

    def flush(self) -> str:
        """Release all that is held."""
        return "" if self._keep_stop else self._release(len(self._raw))

    def _first(self, old: int) -> tuple[int, str | None]:
        """Find the stop that is complete first: (start, stop), looking where new text can end one.

        Of two that end together the longer wins, so that no part of it is shown.
        """
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = self._raw.find(stop, max(0, old - len(stop) + 1))
            if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
                best = (start + len(stop), start, stop)
        return (0, None) if best is None else (best[1], best[2])

    def _num_held(self) -> int:
        """Count the characters at the end that may be the beginning of a stop string."""
        for size in range(min(self._max_held, len(self._raw)), 0, -1):
            tail = self._raw[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0

    def _release(self, end: int) -> str:
        end = max(end, 0)
        text = "".join(c for c, s in zip(self._raw[:end], self._shown[:end], strict=True) if s)
        self._raw = self._raw[end:]
        del self._shown[:end]
        return text


class _Decoder:
    """Incremental decoding of ordinary ids.

    Where each id stands for fixed bytes, an incremental UTF-8 decoder is exact. Other decoders need
    neighbours: decode a window, and again with the new id, and take what was added
    (TGI: server/text_generation_server/models/model.py, commit db931fcf).
    """

    def __init__(self, vocabulary: Vocabulary, context: list[int]) -> None:
        self._vocabulary = vocabulary
        self._utf8 = _Utf8("replace")
        self._ids = context
        self._read = len(context)

    @property
    def has_half(self) -> bool:
        """Tell whether bytes of a character have come that is not whole yet."""
        return bool(self._utf8.buffer)

    def push(self, token_id: int) -> str:
        """Take one ordinary id; return the whole characters it completed."""
        data = self._vocabulary.token_bytes(token_id)
        if data is not None:
            return self._utf8.decode(data)
        self._ids.append(token_id)
        before = self._vocabulary.decode(self._ids[: self._read])
        after = self._vocabulary.decode(self._ids)
        if not after.startswith(before):
            before = before.rstrip("\ufffd")  # half a character is whole now
        added = after[len(before) :]
        is_whole = bool(added) and not added.endswith("\ufffd")
        if not is_whole and len(self._ids) - self._read <= _MAX_PENDING:
            return ""
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        return added


def _context(vocabulary: Vocabulary, prompt_ids: list[int]) -> list[int]:
    """Return the prompt's last ordinary ids, from the beginning of a character on."""
    ids: list[int] = []
    for token_id in reversed(prompt_ids):
        if vocabulary.special_text(token_id) is not None:
            continue
        ids.insert(0, token_id)
        if len(ids) >= _MAX_PENDING:
            break
        if len(ids) >= _CONTEXT and not vocabulary.decode(ids).startswith("\ufffd"):
            break
    return ids
