"""`millrace env`: what a report of a fault should carry, and whether the C++ kernels run here."""

import click

from server.cli.runtime import describe_runtime


@click.command()
def env() -> None:
    """Print versions, the machine, and whether the C++ kernels run on it."""
    # Here and not above: it loads torch, on whose threads the kernels run.
    from engine.load import describe_kernels

    click.echo(f"{describe_runtime()}\nkernels: {describe_kernels()}")
