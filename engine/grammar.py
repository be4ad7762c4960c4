"""Grammar: the form that an answer must have, as it was asked for; frozen, hashable, not compiled.

Knows no dialect and no library: `matchers.py` compiles it.
"""

from dataclasses import dataclass
from enum import StrEnum


class GrammarKind(StrEnum):
    """In which language a grammar is written."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    """Any JSON object; there is no source."""
    REGEX = "regex"
    """The whole answer matches."""
    CHOICE = "choice"
    """The source is a JSON list of strings; the answer is one of them."""
    LARK = "lark"
    """https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md"""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be."""

    kind: GrammarKind
    source: str = ""
