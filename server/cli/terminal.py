"""Terminal: how a command writes its text, and how it leaves. Knows nothing of servers.

What a model says must not drive a terminal, and a reader that has gone is no error to talk about.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from server.client.failure import ExitCode, Failure

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""All of C0 and C1 but tab and line feed; and what would turn the rest of a line around."""

_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"
"""Faint text, and its end, as ECMA-48 has them."""


def escape(text: str) -> str:
    r"""Write control characters as `\x1b`, so that they are seen and not obeyed."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


class Output:
    """Standard output, for text as it comes: flushed, and escaped where a terminal shows it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()
        self.is_line_open = False
        self._is_thought_last = False

    def write(self, text: str) -> None:
        """Write at once; raises BrokenPipeError when nobody reads any more."""
        if not text:
            return
        if self._is_thought_last:
            self._is_thought_last = False
            self._put("\n\n" if self.is_line_open else "\n")
        self._put(escape(text) if self.is_terminal else text)
        self.is_line_open = not text.endswith("\n")

    def write_thought(self, text: str) -> None:
        """Write what was thought, dimmed, before the answer; only where a person reads it."""
        if text and self.is_terminal:
            self._put(f"{_DIM}{escape(text)}{_PLAIN}")
            self._is_thought_last = True
            self.is_line_open = not text.endswith("\n")

    def end_line(self) -> None:
        """End the line that was begun, if one was."""
        self._is_thought_last = False
        if self.is_line_open:
            self.write("\n")

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def open_output() -> Output:
    """Take standard output; characters it cannot write are escaped."""
    reconfigure(sys.stdout, "backslashreplace")
    return Output(sys.stdout)


def reconfigure(stream: TextIO, errors: str) -> None:
    """Let a stream of this process never fail over a character."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)


def say(text: str) -> None:
    """Write a line of ours to standard error; servers' words in it are escaped."""
    click.echo(escape(text), err=True)


@contextmanager
def leaving_in_words() -> Iterator[None]:
    """Turn what ends a command early into its exit code, and into a sentence where one helps."""
    try:
        yield
    except Failure as failure:
        say(f"Error: {failure}")
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.BROKEN_PIPE)
