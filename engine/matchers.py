"""Matchers: grammars compiled by llguidance for one tokenizer, kept under a bound of bytes.

What is kept is copied for each sequence, which takes microseconds; compiling takes milliseconds,
and of a hostile grammar whatever the limits allow, so that `grammar_process.py` tries it first, in
a process that may be killed. The copies share one lexer, to which answers add states: it is counted
as if it had all that it may have, and replaced when it has.
https://github.com/guidance-ai/llguidance
"""

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from engine.errors import InvalidGrammar
from engine.grammar import Grammar, GrammarKind

MAX_SOURCE = 100_000
"""Characters of a grammar; real ones have thousands."""
MAX_COMPILE_S = 0.8
"""With what it takes to ask and to answer, below a second."""
MAX_COMPILE_BYTES = 256 * 2**20
MAX_KEPT_BYTES = 512 * 2**20
"""As if every lexer were full, which few ever are."""
_MAX_LEXER_STATES = 20_000
"""Schemas of tools need about a thousand, `"maxLength": 4000` alone 15,000."""
_LEXER_STATE_BYTES = 1024
"""Measured: 350 to 900."""

_MAX_REASON = 300

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llguidance must know of a tokenizer and its model."""

    tokenizer: str
    """A tokenizer.json."""
    size: int
    """Ids of a mask; at least as many as the tokenizer has."""
    eos_token_ids: tuple[int, ...]


class LruCache(Generic[T]):
    """What was used last, by grammar, while its costs stay below a bound; safe from threads."""

    def __init__(self, max_cost: int) -> None:
        self._max_cost = max_cost
        self._cost = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Grammar, tuple[T, int]] = OrderedDict()

    def __contains__(self, grammar: Grammar) -> bool:
        return grammar in self._items

    def __len__(self) -> int:
        return len(self._items)

    def get(self, grammar: Grammar) -> T | None:
        """Return what was put, if it is still there."""
        with self._lock:
            item = self._items.get(grammar)
            if item is None:
                return None
            self._items.move_to_end(grammar)
            return item[0]

    def put(self, grammar: Grammar, value: T, cost: int) -> None:
        """Keep it, and forget what was not used for longest; the last put always stays."""
        cost += len(grammar.source)
        with self._lock:
            _, old_cost = self._items.pop(grammar, (None, 0))
            self._items[grammar] = (value, cost)
            self._cost += cost - old_cost
            while self._cost > self._max_cost and len(self._items) > 1:
                _, (_, cost) = self._items.popitem(last=False)
                self._cost -= cost

    def drop(self, grammar: Grammar, value: T) -> None:
        """Forget it, if it is still this value."""
        with self._lock:
            kept, cost = self._items.get(grammar, (None, 0))
            if kept is value:
                del self._items[grammar]
                self._cost -= cost


class Matchers:
    """Compiles grammars for one vocabulary, and gives each sequence a matcher of its own."""

    def __init__(self, vocabulary: Vocabulary, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        """Read the vocabulary, which takes a second for each 80,000 ids; raises ValueError."""
        if not vocabulary.eos_token_ids:
            raise ValueError("the model has no end token, by which an answer could end")
        self.vocab_size = vocabulary.size
        self._tokenizer = LLTokenizer(
            vocabulary.tokenizer,
            n_vocab=vocabulary.size,
            eos_token=list(vocabulary.eos_token_ids),
        )
        self._limits = LLParserLimits(
            max_lexer_states=_MAX_LEXER_STATES,
            verbose_errors=False,
        )
        self._kept: LruCache[LLMatcher] = LruCache(max_kept_bytes)

    def __contains__(self, grammar: Grammar) -> bool:
        return grammar in self._kept

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """Give what is kept of a grammar, to be copied for each answer; raises InvalidGrammar."""
        matcher = self._kept.get(grammar)
        return self.keep(grammar, 0) if matcher is None else matcher

    def forget(self, grammar: Grammar, matcher: LLMatcher) -> None:
        """Do not give this one any more: a copy of it has failed, and its lexer may be full."""
        self._kept.drop(grammar, matcher)

    def keep(self, grammar: Grammar, num_bytes: int) -> LLMatcher:
        """Compile and keep a grammar that takes so much memory at first; raises InvalidGrammar."""
        matcher = self.compile(grammar)
        self._kept.put(grammar, matcher, num_bytes + _MAX_LEXER_STATES * _LEXER_STATE_BYTES)
        return matcher

    def compile(self, grammar: Grammar) -> LLMatcher:
        """Compile a grammar up to its first mask; raises InvalidGrammar."""
        if len(grammar.source) > MAX_SOURCE:
            raise InvalidGrammar(
                f"a grammar may have at most {MAX_SOURCE} characters. Given: {len(grammar.source)}"
            )
        matcher = LLMatcher(self._tokenizer, _program(grammar), log_level=0, limits=self._limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise InvalidGrammar(shortened(matcher.get_error()))
        return matcher


def _program(grammar: Grammar) -> str:
    """Translate a grammar into llguidance's words; raises InvalidGrammar."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA | GrammarKind.JSON_OBJECT:
            schema = grammar.source or '{"type": "object"}'
            try:
                return _from_schema(schema)
            except ValueError as error:
                raise InvalidGrammar(shortened(str(error))) from error
        case GrammarKind.REGEX:
            return str(LLMatcher.grammar_from_regex(grammar.source))
        case GrammarKind.LARK:
            return str(LLMatcher.grammar_from_lark(grammar.source))
        case GrammarKind.CHOICE:
            choices = json.loads(grammar.source)
            lark = "start: " + " | ".join(json.dumps(choice) for choice in choices)
            return str(LLMatcher.grammar_from_lark(lark))


def _from_schema(schema: str) -> str:
    program = LLMatcher.grammar_from_json_schema(
        schema,
        overrides={
            "lenient": False,  # what is not understood is refused, never ignored
            "coerce_one_of": False,
            "whitespace_flexible": True,
            "whitespace_pattern": r" |\n[ \t]{0,32}",  # without a bound models go on for ever
        },
    )
    return str(program)


def shortened(reason: str) -> str:
    """Put what llguidance says on one line, cut to a length that suits a message."""
    line = " ".join(reason.replace("<non-verbose/>", "").split())
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
