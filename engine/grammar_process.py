"""The process that tries grammars: compiles each in a child of its own, which it may kill.

`python -m engine.grammar_process`: reads one JSON line with a Vocabulary, answers one, then one
for each Grammar, how many bytes it takes or why it is refused. Ends with its standard input. A
child inherits the vocabulary, and ends with its grammar: neither time, nor memory, nor a stack that
overflows reach anybody else.
"""

import json
import os
import random
import resource
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from llguidance import LLMatcher

from engine.child import limit_memory
from engine.errors import InvalidGrammar
from engine.grammar import Grammar, GrammarKind
from engine.matchers import MAX_COMPILE_BYTES, MAX_COMPILE_S, Matchers, Vocabulary, shortened

_MAX_CPU_S = 2
_MAX_STEP_MS = 5
"""Of processor time, for the mask of a step: it is taken from all who share the model."""
_NUM_FIRST_STEPS = 4
"""Nobody is judged by these alone: they warm what later ones use."""
_NUM_STEPS = 24
_NICENESS = 5
"""Steps of the model come first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a grammar."""

    num_bytes: int = 0
    """How much memory it takes, about."""
    refusal: str | None = None
    is_lasting: bool = True
    """It would be the same on an idle machine."""


def main() -> None:
    """Serve until there are no more grammars to try."""
    # Ctrl-C reaches the whole group; the server says when this ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.stdin.buffer.readline())
    matchers = Matchers(Vocabulary(**given))
    _answer({})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        verdict = _try(matchers, Grammar(GrammarKind(asked["kind"]), asked["source"]))
        _answer(asdict(verdict))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _try(matchers: Matchers, grammar: Grammar) -> Verdict:
    """Compile in a child; whatever ends it without an answer refuses the grammar."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _compile(matchers, grammar, writing)
    os.close(writing)
    try:
        is_ready, _, _ = select.select([reading], [], [], MAX_COMPILE_S)
        answer = os.read(reading, 1 << 16) if is_ready else b""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    if answer:
        return Verdict(**json.loads(answer))
    if is_ready:
        return Verdict(refusal="it is too large or too deep to compile")
    return Verdict(refusal=f"it takes more than {MAX_COMPILE_S} s to compile", is_lasting=False)


def _compile(matchers: Matchers, grammar: Grammar, writing: int) -> None:
    """Compile, say how much memory that took, and end this process."""
    os.nice(_NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # Rust's last words
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))  # if nobody ends it
    limit_memory(MAX_COMPILE_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer: dict[str, Any]
    try:
        _walk(matchers.compile(grammar))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = {"num_bytes": (after - before) * 1024}
    except InvalidGrammar as error:
        answer = {"refusal": str(error)}
    except BaseException as error:  # a panic of Rust's is no Exception
        answer = {"refusal": f"it cannot be compiled ({type(error).__name__})"}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _walk(matcher: LLMatcher) -> None:
    """Go some steps at random, as a model might; raises InvalidGrammar where they fail or drag."""
    dice = random.Random(0)
    start = time.process_time()
    for step in range(1, _NUM_STEPS + 1):
        matcher.consume_token(_one_of(matcher.compute_bitmask(), dice))
        if matcher.is_error():
            raise InvalidGrammar(shortened(matcher.get_error()))
        mean_ms = (time.process_time() - start) / step * 1e3
        if step > _NUM_FIRST_STEPS and mean_ms > _MAX_STEP_MS:
            raise InvalidGrammar(f"a token takes {mean_ms:.0f} ms, at most {_MAX_STEP_MS} may be")


def _one_of(mask: bytes, dice: random.Random) -> int:
    """Pick a token that the mask allows: the next from a random one on."""
    bits = int.from_bytes(mask, "little")
    if not bits:
        raise InvalidGrammar("the model has no token by which it could go on")
    start = dice.randrange(8 * len(mask))
    rest = bits >> start
    lowest = rest & -rest if rest else bits & -bits
    return lowest.bit_length() - 1 + (start if rest else 0)


if __name__ == "__main__":
    main()
