"""The verbs about changes of what judges and of what runs: the red team, evaluators, proposals of code."""

from __future__ import annotations

from collections.abc import Sequence

import click

from studbook.cli import pages
from studbook.cli.session import Session

__all__ = ["add_to"]

_WRONG = 22
_PERSON = click.option("--as", "person", required=True, help="Who does it; their key signs.")


@click.command()
@click.pass_obj
def redteam(session: Session) -> None:
    """Run every candidate that cheats against the evaluator; each must be rejected, and for its own reason."""
    with session.open() as lab:
        report = lab.redteam()
    rows = [
        f"{'rejected' if r.rejected else 'GOT THROUGH':<12} {r.candidate:<26} {r.found:<24} {r.detail}"
        for r in report.rows
    ]
    end = "every one was rejected for its reason" if report.passed else "this evaluator can be fooled here"
    session.give(report, pages.lines(*rows, f"evaluator {report.evaluator}: {end}"))
    raise SystemExit(0 if report.passed else _WRONG)


@click.command()
@click.pass_obj
def budget(session: Session) -> None:
    """Show every account: what the policy gives, what the ledger says is reserved, and what is left."""
    with session.open(writer=False) as lab:
        found = lab.budget()
    rows = []
    for account in found:
        left = "no capacity is stated" if account.free is None else f"{account.free:,} left above the minimum"
        rows.append(f"{account.account:<15} {account.used:>15,} {account.unit} reserved; {left}")
        rows += [f"{'':<15} {held.amount:>15,} {held.what}" for held in account.reserved]
    session.give(found, pages.lines(*rows))


@click.group()
def evaluator() -> None:
    """What measures, and who let it."""


@evaluator.command()
@click.pass_obj
def show(session: Session) -> None:
    """Say which evaluator is in force, who let it judge, and which one this program is."""
    with session.open(writer=False) as lab:
        found = lab.evaluators.show()
    session.give(found, pages.lines(f"in force: {found.told}", f"this program: {found.program}"))


@evaluator.command()
@click.option("--reason", required=True, help="Why.")
@_PERSON
@click.pass_obj
def change(session: Session, reason: str, person: str) -> None:
    """Let this program's evaluator judge from now on: takes a passed red team, and more people than a promotion."""
    with session.open() as lab:
        found = lab.evaluators.change(person, reason)
    session.give(found, pages.signed(found))


@click.group()
def proposal() -> None:
    """What an experiment needs of the program's code."""


@proposal.command()
@click.argument("capability")
@click.option("--why", "rationale", required=True, help="Why it is needed.")
@click.option("--evidence", multiple=True, required=True, help="Digest of a record that shows it.")
@_PERSON
@click.pass_obj
def new(session: Session, capability: str, rationale: str, evidence: Sequence[str], person: str) -> None:
    """Write down a missing CAPABILITY; no model is promoted until another owner closes it."""
    with session.open() as lab:
        found = lab.proposals.new(capability, rationale, evidence, person)
    session.give(found, pages.signed(found))


@proposal.command()
@click.argument("name")
@click.option("--release", default="", help="The reviewed revision or version that has it [declined].")
@click.option("--reason", required=True, help="Why.")
@_PERSON
@click.pass_obj
def close(session: Session, name: str, release: str, reason: str, person: str) -> None:
    """End the wait for a proposal, NAME being its digest: released with --release, declined without."""
    with session.open() as lab:
        found = lab.proposals.close(name, person, reason, release)
    session.give(found, pages.signed(found))


@proposal.command(name="list")
@click.pass_obj
def list_(session: Session) -> None:
    """List the proposals that wait."""
    with session.open(writer=False) as lab:
        found = lab.proposals.list()
    rows = [f"{p.proposal[:16]}  {p.capability}  (by {p.proposed_by}: {p.rationale})" for p in found]
    session.give(found, pages.lines(*rows or ["no proposal waits"]))


def add_to(group: click.Group) -> None:
    """Hang these verbs into the program."""
    for verb in (redteam, budget, evaluator, proposal):
        group.add_command(verb)
