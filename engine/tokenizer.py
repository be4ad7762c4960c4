"""Tokenizer: text to ids, rendered chats to ids, and what each id stands for.

Wraps a fast tokenizer of transformers, which the caller loads: its backend encodes and decodes. Who
renders a chat is not known here, only how to mark what may not act in it. Knows no threads;
encoding a long text takes milliseconds, so the engine does that off the event loop.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel

from engine.chat import Chat, Template
from engine.detokenizer import Pieces
from engine.marks import Marks

_ENDING = 24
"""Tokens; no tag of a template is longer, even spelled out."""
_NO_BYTE = 0xFFFF


class FastTokenizer(Protocol):
    """What is used of transformers' PreTrainedTokenizerFast, whose import takes a second."""

    backend_tokenizer: Backend
    chat_template: Any
    all_special_ids: list[int]
    eos_token_id: Any
    special_tokens_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class TextSpan:
    """One token of a text, with byte offsets into its UTF-8 form."""

    id: int
    text: str
    start: int
    stop: int


class Tokenizer:
    """One model's tokenizer; reads are safe from several threads."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        self._backend: Backend = fast.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        added = self._backend.get_added_tokens_decoder()
        special_ids = set(fast.all_special_ids) | {i for i, t in added.items() if t.special}
        self._specials = {i: self._backend.id_to_token(i) or "" for i in special_ids}
        self._marks = Marks(self._specials.values())
        self._literals = self._spelled_out(self._marks.texts)
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.size = 1 + max(vocabulary.values(), default=-1)
        """One more than the highest id; there may be gaps below it."""
        is_byte_level = isinstance(self._backend.decoder, ByteLevel)
        self._bytes = _byte_table(vocabulary, self.size) if is_byte_level else None
        self.pieces = Pieces(self)
        """What each id sets free by itself; filled on the event loop."""

    @property
    def has_chat_template(self) -> bool:
        """Tell whether messages can be rendered."""
        return bool(self._fast.chat_template)

    @property
    def template(self) -> Template:
        """What messages are rendered by."""
        return Template(self._fast.chat_template, self._fast.special_tokens_map)

    @property
    def chat_template(self) -> str:
        """The text of the template that is used with tools; "" where there is none."""
        template = self._fast.chat_template
        if isinstance(template, Mapping):
            template = template.get("tool_use", template.get("default"))
        return template if isinstance(template, str) else ""

    @property
    def eos_token_id(self) -> int | None:
        """The end token of the tokenizer's own configuration."""
        token_id = self._fast.eos_token_id
        return token_id if isinstance(token_id, int) else None

    def to_json(self) -> str:
        """Write it as a tokenizer.json."""
        return str(self._backend.to_str())

    def encode(self, text: str) -> list[int]:
        """Encode a prompt; special-token text acts as tokens, and the model's own are added."""
        return self._ids(text, add_special_tokens=True)

    def marked(self, chat: Chat) -> tuple[Chat, str]:
        """Put marks in the place of special text in a chat; return them, which cannot be guessed.

        Marked is all that the template is told beside itself: contents, names, tools.
        """
        mark = f"\ue000{token_hex(8)}\ue000"
        messages = tuple(self._marks.put(message, mark) for message in chat.messages)
        variables = {name: self._marks.put(value, mark) for name, value in chat.variables.items()}
        return Chat(messages, chat.is_continued, variables), mark

    def encode_marked(self, text: str, mark: str) -> list[int]:
        """Encode a rendered chat; what was marked is plain text, other special text acts.

        A chat without special text in it has the library's own ids.
        """
        parts = self._marks.split(text, mark)
        first, *others = self._backend.encode_batch(parts[::2], add_special_tokens=False)
        ids = list(first.ids)
        for number, encoding in zip(parts[1::2], others, strict=True):
            ids += self._literals[int(number)]
            ids += encoding.ids
        return ids

    def spans(self, text: str, *, add_special_tokens: bool) -> list[TextSpan]:
        """Encode and say where each token lies, in bytes (`/tokenize`)."""
        encoding = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        at_char = [0]
        for char in text:
            at_char.append(at_char[-1] + len(char.encode()))
        return [
            TextSpan(token_id, text[start:stop], at_char[start], at_char[stop])
            for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def token_bytes(self, token_id: int) -> bytes | None:
        """Return the bytes an id always stands for; None when the decoder needs neighbours."""
        if self._bytes is None:
            return None
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def ending(self, token_ids: list[int]) -> str:
        """Return the last few characters that these ids stand for, special tokens spelled out."""
        return str(self._backend.decode(token_ids[-_ENDING:], skip_special_tokens=False))

    def special_id(self, text: str) -> int | None:
        """Return the id of the special token that is spelled so, if there is one."""
        return next((i for i, special in self._specials.items() if special == text), None)

    def special_text(self, token_id: int) -> str | None:
        """Return a special token's literal text, None for all others."""
        return self._specials.get(token_id)

    def decode(self, token_ids: list[int], *, has_specials: bool = False) -> str:
        """Decode ids together, special tokens left out or spelled out, nothing cleaned up."""
        return str(self._backend.decode(token_ids, skip_special_tokens=not has_specials))

    def _spelled_out(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode special tokens' texts as plain text, before anyone else encodes."""
        usual, self._backend.encode_special_tokens = self._backend.encode_special_tokens, True
        try:
            return [self._literal_ids(text) for text in texts]
        finally:
            self._backend.encode_special_tokens = usual

    def _literal_ids(self, text: str) -> list[int]:
        ids = self._ids(text, add_special_tokens=False)
        if self._specials.keys().isdisjoint(ids):
            return ids
        # unigram and word models may know the whole text as a piece of their own: spell it
        return [i for char in text for i in self._ids(char, add_special_tokens=False)]

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        # encode_batch lets go of the GIL, encode does not
        encoding = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        return list(encoding.ids)


def _byte_table(vocabulary: dict[str, int], size: int) -> list[bytes]:
    """Give each id's bytes in a byte-level vocabulary, none where there is a gap.

    The alphabet is GPT-2's: printable Latin-1 stands for itself, the other bytes for U+0100 on.
    https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    # those of the alphabet become Latin-1, all others what Latin-1 has not
    alphabet = defaultdict(lambda: _NO_BYTE, zip(printable, printable, strict=True))
    alphabet.update({0x100 + number: byte for number, byte in enumerate(others)})
    table = [b""] * size
    for token, token_id in vocabulary.items():
        try:
            table[token_id] = token.translate(alphabet).encode("latin-1")
        except UnicodeEncodeError:
            table[token_id] = token.encode()
    return table
