"""The formats of calls and thoughts that are known, by name, and how a template gives them away."""

from collections.abc import Callable
from dataclasses import dataclass

from server.dialects.tools import hermes, llama, mistral, pythonic, think
from server.dialects.tools.scanner import Reading, Scanner
from server.dialects.tools.turn import Turn

AUTO, NONE = "auto", "none"
THINK = "think"


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write calls."""

    read: Callable[[Scanner, Turn], Reading[None]]
    marks: tuple[str, ...] = ()
    """Special tokens that belong to it; all others are no text."""
    signs: tuple[str, ...] = ()
    """Any of them in a chat template speaks for it."""
    counter_signs: tuple[str, ...] = ()
    """Any of them speaks against it."""

    def is_of(self, template: str) -> bool:
        """Tell whether the template writes calls so."""
        return _has_any(template, self.signs) and not _has_any(template, self.counter_signs)


FORMATS = {
    "pythonic": Format(pythonic.read, signs=("[func_name1(",)),
    "mistral": Format(
        mistral.read, (mistral.OPEN, mistral.CALL_ID, mistral.ARGS), signs=(mistral.OPEN,)
    ),
    "hermes": Format(
        hermes.read,
        (hermes.OPEN, hermes.CLOSE),
        signs=(hermes.OPEN,),
        counter_signs=("<function=", "<arg_key>"),  # other formats between the same tags
    ),
    "llama3_json": Format(
        llama.read,
        (llama.TAG,),
        signs=(llama.TAG, '"parameters": dictionary of argument'),
    ),
}
"""Those with the surer signs first."""

TOOL_PARSERS = (AUTO, NONE, *sorted(FORMATS))
REASONING_PARSERS = (AUTO, NONE, THINK)


def marks_of(name: str | None) -> tuple[str, ...]:
    """List what may be a special token of a turn."""
    marks = FORMATS[name].marks if name is not None else ()
    return (*marks, think.OPEN, think.CLOSE)


def tool_format(asked: str, template: str) -> str | None:
    """Name the format of calls: the one that was asked for, or the template's if it is known."""
    if asked != AUTO:
        return None if asked == NONE else asked
    return next((name for name, form in FORMATS.items() if form.is_of(template)), None)


def has_reasoning(asked: str, template: str) -> bool:
    """Tell whether thoughts are to be split off: as was asked for, or if the template has them."""
    return "</think>" in template if asked == AUTO else asked == THINK


def _has_any(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)
