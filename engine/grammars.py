"""Grammars: lets in only what was tried first, in a process of its own, and keeps it compiled.

Blocks, for a second at most: the engine calls it on a thread. Who is asked what, and what a
child may use up, `grammar_process.py` knows.
"""

import json
import logging
import select
import subprocess
from dataclasses import asdict
from typing import Any

from engine import child
from engine.errors import GenerationFailed, InvalidGrammar
from engine.grammar import Grammar
from engine.matchers import MAX_COMPILE_S, MAX_SOURCE, LruCache, Matchers, Vocabulary

logger = logging.getLogger(__name__)

_MAX_START_S = 60.0
_MAX_ANSWER_S = MAX_COMPILE_S + 2.0
_MAX_REFUSED_BYTES = 8 * 2**20


class Grammars:
    """Says which grammars may be used; only one thread at a time may let one in."""

    def __init__(self, vocabulary: Vocabulary, matchers: Matchers) -> None:
        self._matchers = matchers
        self._helper = _Helper(vocabulary)
        self._refused: LruCache[str] = LruCache(_MAX_REFUSED_BYTES)

    def __contains__(self, grammar: Grammar) -> bool:
        """Tell whether it may be used right away."""
        return grammar in self._matchers

    def start(self) -> None:
        """Have the helper ready before it is needed."""
        self._helper.start()

    def let_in(self, grammar: Grammar) -> None:
        """Try and compile a grammar; raises InvalidGrammar, in words for who sent it."""
        if grammar in self._matchers:
            return
        if len(grammar.source) > MAX_SOURCE:
            raise InvalidGrammar(
                f"must have at most {MAX_SOURCE} characters. Given: {len(grammar.source)}"
            )
        refusal = self._refused.get(grammar)
        if refusal is None:
            refusal = self._try(grammar)
        if refusal is not None:
            raise InvalidGrammar(f"is not a grammar that can be followed: {refusal}")

    def _try(self, grammar: Grammar) -> str | None:
        """Have it tried, and keep it or its refusal."""
        answer = self._helper.ask(grammar)
        refusal: str | None = answer["refusal"]
        if refusal is None:
            self._matchers.keep(grammar, answer["num_bytes"])
        elif answer["is_lasting"]:
            self._refused.put(grammar, refusal, len(refusal))
        return refusal

    def close(self) -> None:
        """End the helper."""
        self._helper.close()


class _Helper:
    """The process that tries grammars, started again where it has died."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready; raises GenerationFailed."""
        if self._process is not None:
            return
        try:
            self._process = subprocess.Popen(
                child.command("engine.grammar_process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child.environment(),
            )
        except OSError as error:
            raise GenerationFailed(f"grammars cannot be tried just now ({error})") from error
        self._exchange(asdict(self._vocabulary), _MAX_START_S)

    def ask(self, grammar: Grammar) -> dict[str, Any]:
        """Have a grammar tried; raises GenerationFailed where there is no answer."""
        self.start()
        return self._exchange(asdict(grammar), _MAX_ANSWER_S)

    def close(self) -> None:
        """End it; a next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _exchange(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            waiting = select.poll()  # select knows no file beyond the first 1024
            waiting.register(self._process.stdout, select.POLLIN)
            is_ready = waiting.poll(timeout_s * 1e3)
            answer: dict[str, Any] = json.loads(self._process.stdout.readline() if is_ready else "")
        except (OSError, ValueError) as error:
            self.close()
            logger.exception("the process that tries grammars has died")
            raise GenerationFailed("grammars cannot be tried just now") from error
        return answer
