"""`millrace chat`: a conversation in the terminal, or line by line from a pipe."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import click

from server.cli.asking_options import (
    EXIT_CODES,
    connection_options,
    read_sampling,
    sampling_options,
)
from server.cli.terminal import Output, leaving_in_words, open_output, reconfigure, say
from server.client.answer import Answer
from server.client.asking import Message, Sampling, chat_body
from server.client.failure import Failure
from server.client.summary import speed_line
from server.question import PATHS, Dialect

_PROMPT = "> "
_LEAVE, _RESET = "/quit", "/reset"
_CANCELLED = "cancelled"

Ask = Callable[[dict[str, Any], Answer], None]
"""Sends a body and fills the answer; raises Failure, or KeyboardInterrupt when it is cancelled."""


@click.command(
    context_settings={"max_content_width": 100},
    help="""Talk with a model; answers are printed as they come, thoughts dimmed before them.

    Ctrl-C cancels an answer and keeps the conversation; at the prompt it leaves, as Ctrl-D and
    /quit do. /reset forgets what was said. From a pipe each line is a turn, and its answer comes
    without thoughts.
    """,
    epilog=EXIT_CODES,
)
@connection_options
@click.option("--system", help="What the model is told before everything else.")
@sampling_options
def chat(url: str, key: str | None, model: str | None, system: str | None, **sampling: Any) -> None:
    """Run the command."""
    with leaving_in_words(), asyncio.Runner() as runner:
        with suppress(ImportError):
            import readline  # noqa: F401 - its import gives `input` a history and editing
        from server.client.client import Client  # aiohttp takes its time

        async def connect() -> Client:
            return Client(url, key)

        output, client = open_output(), runner.run(connect())
        try:
            name = model or runner.run(client.model())
            conversation = Conversation(name, read_sampling(sampling), system)

            def ask(body: dict[str, Any], answer: Answer) -> None:
                runner.run(
                    client.answer(
                        PATHS[Dialect.CHAT], body, answer, output.write, output.write_thought
                    )
                )

            if sys.stdin.isatty():
                say(f"{name} at {client.url}. {_RESET} forgets, {_LEAVE} or Ctrl-D leaves.")
                talk(conversation, ask, output)
            else:
                read_turns(conversation, ask, output)
        finally:
            runner.run(client.close())


@dataclass(eq=False, slots=True)
class Conversation:
    """What was said; a question that got no word of an answer is forgotten."""

    model: str
    sampling: Sampling
    system: str | None
    _turns: list[Message] = field(default_factory=list)

    def turn(self, question: str, ask: Ask, output: Output) -> None:
        """Ask, with all that was said before, and keep what is answered, whole or not."""
        self._turns.append({"role": "user", "content": question})
        answer = Answer()
        try:
            ask(chat_body(self._messages(), self.sampling, self.model), answer)
        except KeyboardInterrupt:
            self._end(answer, output, _CANCELLED)
            raise
        except Failure:
            self._end(answer, output, "not whole")
            raise
        self._end(answer, output)

    def reset(self) -> None:
        """Forget all but the system's words."""
        self._turns.clear()

    def _end(self, answer: Answer, output: Output, ending: str | None = None) -> None:
        if answer.text:
            self._turns.append({"role": "assistant", "content": answer.text})
        else:
            self._turns.pop()
        output.end_line()
        if answer.first is not None or ending == _CANCELLED:
            say(speed_line(answer, ending))

    def _messages(self) -> list[Message]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self._turns]


def talk(conversation: Conversation, ask: Ask, output: Output) -> None:
    """Talk with a person, who may cancel an answer and try again after an error."""
    for line in _typed(output):
        if line == _RESET:
            conversation.reset()
        elif line:
            try:
                conversation.turn(line, ask, output)
            except Failure as failure:
                say(f"Error: {failure}")
            except KeyboardInterrupt:
                continue


def read_turns(conversation: Conversation, ask: Ask, output: Output) -> None:
    """Take each line for a turn; the first failure is the end."""
    reconfigure(sys.stdin, "replace")
    for line in sys.stdin:
        if question := line.removesuffix("\n"):
            conversation.turn(question, ask, output)


def _typed(output: Output) -> Iterator[str]:
    """Give line after line, till the person leaves."""
    while True:
        if not output.is_terminal:
            click.echo(_PROMPT, err=True, nl=False)
        try:
            line = input(_PROMPT if output.is_terminal else "").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)
            return
        if line == _LEAVE:
            return
        yield line
