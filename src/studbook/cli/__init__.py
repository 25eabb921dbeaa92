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
from studbook.executor import stop

__all__ = ["main"]

_ADVICE = {
    True: "Correct the path, mend the permissions or free some space, then run the same command again; nothing was lost.",
    False: "Name files, models and people in plain UTF-8 text.",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit code; what goes wrong is told in two lines, never as a traceback."""
    try:
        code = commands.main(args=arguments, prog_name="studbook", standalone_mode=False)
    except StudbookError as error:
        click.echo(f"studbook: {printable(str(error))}", err=True)
        click.echo(f"  what to do: {printable(error.advice)}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (OSError, UnicodeError) as error:
        click.echo(f"studbook: {printable(_told(error))}", err=True)
        click.echo(f"  what to do: {_ADVICE[isinstance(error, OSError)]}", err=True)
        code = 1
    except (click.Abort, KeyboardInterrupt):
        stop()
        click.echo("studbook: interrupted; the same command goes on where it stopped", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _told(error: OSError | UnicodeError) -> str:
    """What the system refused, and where; in one line."""
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8: {error.reason}" if hasattr(error, "reason") else "text that is not UTF-8"
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}the system refused: {error.strerror or error}"
