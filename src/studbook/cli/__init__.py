"""The command line: one verb, one `Lab` method, one meaning.

Results go to standard output, as text or, with ``--json``, as the record; talk goes to standard error. Exit codes:
0 done or promoted, 20 no-op, 21 a winner was held back, 22 verify or ready found something wrong, 2..11 as the error
tree in `studbook.errors` says, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import click

from studbook.cli.interrupt import INTERRUPTED, leaving_at_once
from studbook.errors import OverBudget, StudbookError, UsageError, printable

with leaving_at_once():
    # About a second: numpy, numba and every verb.
    from studbook.cli.commands import commands
    from studbook.executor import stop

__all__ = ["main"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = "Correct the path or mend the permissions, then run the same command again; nothing was lost."
_FULL_ADVICE = "Free some space, then run the same command again; nothing was lost."
# A group called without a verb; older versions of click show its help and leave by themselves.
_NOTHING_ASKED: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit code; what goes wrong is told in two lines, never as a traceback."""
    try:
        code = commands.main(args=arguments, prog_name="studbook", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        stop()
        click.echo("studbook: interrupted; the same command goes on where it stopped", err=True)
        code = INTERRUPTED
    except (StudbookError, click.ClickException, OSError, UnicodeError) as error:
        code = _tell(error)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Exception) -> int:
    """Say what is wrong, where, and what to do; the exit code."""
    if isinstance(error, _NOTHING_ASKED):
        error.show()
        return UsageError.exit_code
    found = _typed(error)
    click.echo(f"studbook: {printable(str(found))}", err=True)
    click.echo(f"  what to do: {printable(found.advice)}", err=True)
    return found.exit_code


def _typed(error: Exception) -> StudbookError:
    """What went wrong as an error of the tree: a slip in the command, a full disk, or what else the system refused."""
    if isinstance(error, click.ClickException):
        return _slip(error)
    if isinstance(error, OSError):
        full = error.errno in _FULL
        kind, reason = (OverBudget, "disk.full") if full else (StudbookError, "file.disk")
        message = f"the system refused: {error.strerror or error}"
        where = "" if error.filename is None else error.filename
        return kind(message, where=where, advice=_FULL_ADVICE if full else _REFUSED, reason=reason)
    if isinstance(error, UnicodeError):
        message = f"text that is not UTF-8: {error.reason}" if hasattr(error, "reason") else "text that is not UTF-8"
        return StudbookError(message, advice="Name files, models and people in plain UTF-8 text.", reason="file.text")
    assert isinstance(error, StudbookError)
    return error


def _slip(error: click.ClickException) -> UsageError:
    """A command that cannot be read: which verb, which option, and where its help is."""
    message = error.format_message().strip().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    verb = context.command_path if context is not None else "studbook"
    place = verb.removeprefix("studbook").strip()
    usage = context.command.collect_usage_pieces(context) if context is not None else []
    advice = f"Write `{' '.join([verb, *usage])}`; `{verb} --help` shows every option."
    return UsageError(message[:1].lower() + message[1:], where=place, advice=advice, reason="usage.command")
