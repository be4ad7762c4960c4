"""The command `millrace`: which commands there are; what they do is in `server/cli`."""

import click

from server.cli.bench import bench
from server.cli.chat import chat
from server.cli.demo import demo
from server.cli.env import env
from server.cli.generate import generate
from server.cli.serve import serve


@click.group(invoke_without_command=True)
@click.version_option(package_name="millrace", prog_name="millrace")
@click.pass_context
def main(context: click.Context) -> None:
    """Millrace streams tokens from language models, and speaks TGI and OpenAI."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


main.add_command(serve)
main.add_command(generate)
main.add_command(chat)
main.add_command(bench)
main.add_command(demo)
main.add_command(env)

if __name__ == "__main__":
    main(prog_name="millrace")
