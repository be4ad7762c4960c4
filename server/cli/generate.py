"""`millrace generate`: one prompt, its answer as it comes."""

import asyncio
import sys
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
from server.client.asking import Sampling, completion_body, dialect_of, native_body
from server.client.failure import Failure
from server.client.summary import details, speed_line, token_table
from server.question import PATHS, Dialect

_MAX_NEW_TOKENS = 512
_DIALECTS = {"tgi": Dialect.TGI, "openai": Dialect.COMPLETIONS}


@click.command(
    context_settings={"max_content_width": 100},
    help="""Complete PROMPT and print the text as it comes.

    Without PROMPT, or with `-`, it is read from standard input. Standard output gets the text
    and nothing else. Ctrl-C cancels the request. Without a sampling option the likeliest token is
    taken each time.
    """,
    epilog=EXIT_CODES,
)
@click.argument("prompt", required=False)
@connection_options
@click.option(
    "--dialect",
    type=click.Choice(["auto", *_DIALECTS]),
    default="auto",
    show_default=True,
    help="auto: TGI where /info answers as TGI's does, else OpenAI's completions.",
)
@sampling_options
@click.option("--details", "has_details", is_flag=True, help="Say what the end of the answer told.")
@click.option("--logprobs", "has_logprobs", is_flag=True, help="Show each token's probability.")
def generate(
    prompt: str | None,
    url: str,
    key: str | None,
    model: str | None,
    dialect: str,
    has_details: bool,
    has_logprobs: bool,
    **sampling: Any,
) -> None:
    """Run the command."""
    with leaving_in_words():
        from server.client.client import Client  # aiohttp takes its time

        asked = read_sampling(sampling, _MAX_NEW_TOKENS)
        text, answer, output = _read_prompt(prompt), Answer(), open_output()

        async def run() -> None:
            async with Client(url, key) as client:
                spoken = _DIALECTS.get(dialect)
                if spoken is None:
                    info = None if client.is_openai else await client.get("/info")
                    spoken = dialect_of(info)
                name = model
                if name is None and spoken is Dialect.COMPLETIONS:
                    name = await client.model()
                body = _body(spoken, text, asked, name or "model", has_logprobs)
                await client.answer(PATHS[spoken], body, answer, output.write)

        try:
            asyncio.run(run())
        except KeyboardInterrupt:
            _end(output, answer, "cancelled")
            raise
        except Failure:
            if answer.first is not None:
                _end(output, answer, "not whole")
            raise
        _end(output, answer, _reason(answer))
        if has_logprobs:
            say(token_table(answer))
        if has_details:
            say(details(answer))


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or - to type it and end it with Ctrl-D")
    reconfigure(sys.stdin, "replace")
    return sys.stdin.read().removesuffix("\n")


def _body(
    dialect: Dialect, prompt: str, sampling: Sampling, model: str, has_logprobs: bool
) -> dict[str, Any]:
    if dialect is Dialect.TGI:
        return native_body(prompt, sampling)
    return completion_body(prompt, sampling, model, has_logprobs=has_logprobs)


def _reason(answer: Answer) -> str | None:
    return "as long as --max-new-tokens allows" if answer.finish_reason == "length" else None


def _end(output: Output, answer: Answer, ending: str | None) -> None:
    """Print the speed line on a line of its own; a file keeps exactly the text."""
    if output.is_terminal:
        output.end_line()
    elif output.is_line_open and sys.stderr.isatty():
        say("")
    say(speed_line(answer, ending))
