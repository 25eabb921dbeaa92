"""The command line: one verb, one `Lab` method, one meaning.

Results go to standard output, as text or, with ``--json``, as the record; talk goes to standard error. Exit codes:
0 done or promoted, 20 no-op, 21 a winner was held back, 22 verify or ready found something wrong, 2..11 as the error
tree in `studbook.errors` says, 130 interrupted.
"""

from __future__ import annotations

import sys

import click

from studbook.cli.commands import commands
from studbook.errors import StudbookError, printable

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    try:
        code = commands.main(args=arguments, prog_name="studbook", standalone_mode=False)
    except StudbookError as error:
        click.echo(f"studbook: {printable(str(error))}", err=True)
        click.echo(f"  what to do: {printable(error.advice)}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("studbook: interrupted; the same command goes on where it stopped", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
