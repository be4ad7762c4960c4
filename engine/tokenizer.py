"""Tokenizer: text to ids, messages to ids, and what each id stands for.

Wraps a fast tokenizer of transformers, which the caller loads: its backend encodes and decodes, its
template sandbox renders chats. Knows no threads; encoding a long text takes milliseconds, so the
engine does that off the event loop.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from types import MappingProxyType
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend

from engine.detokenizer import Pieces
from engine.errors import TemplateError

Messages = tuple[Mapping[str, Any], ...]

NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})
"""A template knows nothing but the messages."""
_ENDING = 24
"""Tokens; no tag of a template is longer, even spelled out."""


class FastTokenizer(Protocol):
    """What is used of transformers' PreTrainedTokenizerFast, whose import takes a second."""

    backend_tokenizer: Backend
    chat_template: Any
    all_special_ids: list[int]
    eos_token_id: Any

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Render messages in the library's sandbox."""
        ...


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
        self._plain = Backend.from_str(self._backend.to_str())
        self._plain.encode_special_tokens = True
        added = self._backend.get_added_tokens_decoder()
        special_ids = set(fast.all_special_ids) | {i for i, t in added.items() if t.special}
        self._specials = {i: self._backend.id_to_token(i) or "" for i in special_ids}
        texts = sorted(filter(None, self._specials.values()), key=len, reverse=True)
        self._number_of = {text: number for number, text in enumerate(texts)}
        self._literals = [self._literal_ids(text) for text in texts]
        self._special_pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self.size = 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the highest id; there may be gaps below it."""
        self._bytes = _byte_table(self._backend, self.size)
        self.pieces = Pieces(self)
        """What each id sets free by itself; filled on the event loop."""

    @property
    def has_chat_template(self) -> bool:
        """Tell whether messages can be rendered."""
        return bool(self._fast.chat_template)

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
        return self._ids(self._backend, text, add_special_tokens=True)

    def encode_chat(
        self,
        messages: Messages,
        *,
        is_continued: bool = False,
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> list[int]:
        """Render messages by the template and encode; specials in contents are plain text.

        `variables` are what the template knows beside the messages, such as `tools`; specials in
        them are plain text, too. Contents without special-token text give the library's own ids.
        Raises TemplateError.
        """
        mark = f"\ue000{token_hex(8)}\ue000"  # not to be guessed, so that no content can hold it
        marked = tuple(self._marked(message, mark) for message in messages)
        named = {name: self._marked(value, mark) for name, value in variables.items()}
        text = self.render_chat(marked, is_continued=is_continued, variables=named)
        parts = re.split(f"{mark}(\\d+){mark}", text)
        first, *others = self._backend.encode_batch(parts[::2], add_special_tokens=False)
        ids = list(first.ids)
        for number, encoding in zip(parts[1::2], others, strict=True):
            ids += self._literals[int(number)]
            ids += encoding.ids
        return ids

    def render_chat(
        self,
        messages: Messages,
        *,
        is_continued: bool = False,
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> str:
        """Render messages by the model's template; raises TemplateError."""
        if not self.has_chat_template:
            raise TemplateError("template not found")
        try:
            text = self._fast.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=not is_continued,
                continue_final_message=is_continued,
                **variables,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise TemplateError(str(error) or type(error).__name__) from error
        return str(text)

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

    def _marked(self, value: Any, mark: str) -> Any:
        """Put a number between marks in the place of each special text, however deep it lies."""
        match value:
            case str():
                return self._special_pattern.sub(
                    lambda found: f"{mark}{self._number_of[found[0]]}{mark}", value
                )
            case Mapping():
                return {
                    self._marked(key, mark): self._marked(item, mark) for key, item in value.items()
                }
            case list() | tuple():
                return [self._marked(item, mark) for item in value]
            case _:
                return value

    def _literal_ids(self, text: str) -> list[int]:
        """Encode a special token's text as plain text."""
        ids = self._ids(self._plain, text, add_special_tokens=False)
        if self._specials.keys().isdisjoint(ids):
            return ids
        # unigram and word models may know the whole text as a piece of their own: spell it
        return [i for char in text for i in self._ids(self._plain, char, add_special_tokens=False)]

    @staticmethod
    def _ids(backend: Backend, text: str, *, add_special_tokens: bool) -> list[int]:
        # encode_batch lets go of the GIL, encode does not
        encoding = backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        return list(encoding.ids)


def _byte_table(backend: Backend, size: int) -> list[bytes] | None:
    """Give each id's bytes for byte-level vocabularies, None for all other decoders.

    The alphabet is GPT-2's: printable Latin-1 stands for itself, the other bytes for U+0100 on.
    https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    if decoder.get("type") != "ByteLevel":
        return None
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    to_byte = {chr(byte): byte for byte in printable}
    to_byte |= {chr(0x100 + number): byte for number, byte in enumerate(others)}
    table = []
    for token_id in range(size):
        token = backend.id_to_token(token_id) or ""
        is_mapped = all(char in to_byte for char in token)
        table.append(bytes(map(to_byte.__getitem__, token)) if is_mapped else token.encode())
    return table
