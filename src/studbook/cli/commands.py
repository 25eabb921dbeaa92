"""Every verb. A command parses, calls one Lab method and hands the result to `pages`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from studbook.cli import (
    bundles,
    changes,
    foreign,
    history,
    pages,
    population,
    publishing,
    serving,
    sources,
    storage,
    trials,
)
from studbook.cli.experiments import experiment
from studbook.cli.keys import key
from studbook.cli.packages import package
from studbook.cli.partitions import partition
from studbook.cli.policy import policy as policy_verbs
from studbook.cli.routes import routes
from studbook.cli.session import Session, check_new_folder, check_once, only_with, recipes_of, work_of
from studbook.cli.suites import suite
from studbook.lab import Lab
from studbook.lab.founding import read_policy
from studbook.lab.papers import Papers
from studbook.lab.pending import Signed
from studbook.lab.rounds import Outcome
from studbook.lab.search import Request

__all__ = ["commands"]

NO_OP, HELD, WRONG = 20, 21, 22


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--lab", type=click.Path(path_type=Path), default=Path(), envvar="STUDBOOK_LAB", help="The lab's folder [.]."
)
@click.option("--keys", type=click.Path(path_type=Path), envvar="STUDBOOK_KEYS", help="Folder of keys [LAB.keys].")
@click.option(
    "--witness", type=click.Path(path_type=Path), envvar="STUDBOOK_WITNESS", help="Its witness [LAB.witness]."
)
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), help="File (mode 600) that holds a key's passphrase."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON; talk goes to standard error.")
@click.version_option(package_name="studbook")
@click.pass_context
def commands(context: click.Context, /, lab: Path, keys: Path | None, as_json: bool, **also: Path | None) -> None:
    """Studbook: an offline lab that breeds small language models and can prove what it did."""
    context.obj = Session(lab, keys, as_json, **also)


@commands.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--owner", required=True, help="Who answers for this lab.")
@click.option("--policy", type=click.Path(path_type=Path), help="JSON file with what differs from the default policy.")
@click.pass_obj
def init(session: Session, path: Path, owner: str, policy: Path | None) -> None:
    """Make a new lab: keys, root of keys, policy."""
    keys = Lab.init(path, owner, session.keys, read_policy(policy, owner) if policy else None, session.witness)
    session.give({"lab": str(path), "keys": str(keys)}, pages.founded(path, keys))


@commands.command()
@click.argument("name")
@click.option("--as", "person", required=True, help="Who approves; their key signs.")
@click.option(
    "--for",
    "clusters",
    multiple=True,
    default=("*",),
    help="A cluster it may be bred for [all]; of a candidate: its stage.",
)
@click.option("--until", default="", help="Last day, YYYY-MM-DD [a year from now].")
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def approve(session: Session, name: str, person: str, clusters: Sequence[str], until: str, reason: str) -> None:
    """Approve a source as a parent or a candidate for a stage, or sign what waits (NAME is its digest): a person's act."""
    with session.open() as lab:
        record = lab.approve(name, person, clusters, until, reason)
    session.give(record, pages.signed(record) if isinstance(record, Signed) else pages.approved(name, record))


commands.add_command(experiment)
commands.add_command(key)
commands.add_command(package)
commands.add_command(partition)
commands.add_command(policy_verbs)
commands.add_command(routes)
commands.add_command(suite)
history.add_to(commands)
sources.add_to(commands)
storage.add_to(commands)
publishing.add_to(commands)
bundles.add_to(commands)
population.add_to(commands)
changes.add_to(commands)
trials.add_to(commands)
serving.add_to(commands)


foreign.add_to(suite)


@commands.command()
@click.argument("base")
@click.argument("parents", nargs=-1, required=True)
@click.option("--cluster", help="Measure the interpolation barrier on this cluster's training slice.")
@click.pass_obj
def compare(session: Session, base: str, parents: Sequence[str], cluster: str | None) -> None:
    """Say whether parents fit their base and each other."""
    with session.open() as lab:
        report = lab.compare(base, parents, cluster)
        session.give(report, pages.compatibility(report, lab.desk.name_of))
    raise SystemExit(0 if report.passed else 5)


@commands.command()
@click.argument("words", nargs=-1, metavar="[CLUSTER] [RECIPE]")
@click.option("--parent", "parents", multiple=True, help="A parent to use [every approved one].")
@click.option("--base", help="The checkpoint that the parents were tuned from.")
@click.option("--mergekit", type=click.Path(path_type=Path), help="A mergekit YAML file, instead of RECIPE.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Seed of a mergekit file's masks [0].")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also export the child to this folder.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads, for checkpoints [every processor].")
@click.pass_obj
def breed(
    session: Session,
    words: Sequence[str],
    parents: Sequence[str],
    base: str | None,
    mergekit: Path | None,
    seed: int | None,
    output: Path | None,
    threads: int | None,
) -> None:
    """Breed one candidate for a CLUSTER, or from checkpoints for none; RECIPE is JSON, or a file that holds it."""
    cluster, recipe = work_of(words, mergekit, seed)
    check_once(parents)
    only_with("base", "for checkpoints; a cluster's parents have their base on record", cluster is None)
    only_with("threads", "for checkpoints; candidates for a cluster are bred side by side", cluster is None)
    for option in ("parents", "base"):
        only_with(option, "beside RECIPE; a mergekit file names its models itself", mergekit is None)
    with session.open() as lab:
        if output is not None:
            # Now, and not after hours of work.
            check_new_folder(output, session.path, "--output")
        artifact = lab.breed(cluster, recipe, parents or None, base, threads)
        name = lab.desk.name_of(artifact)
        if output is not None:
            lab.export(artifact, output)
        session.give({"artifact": artifact, "name": name}, pages.bred(name, artifact))


@commands.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--card", is_flag=True, help="Also a model card, README.md.")
@click.option("--cyclonedx", is_flag=True, help="Also a CycloneDX bill of materials, bom.cdx.json.")
@click.option("--slsa", is_flag=True, help="Also sealed SLSA provenance, provenance.dsse.json.")
@click.option("--minimodel", is_flag=True, help="Also a signed MiniModel manifest, minimodel.manifest.")
@click.option("--gguf", is_flag=True, help="Also the model as GGUF for llama.cpp, model.gguf (extra gguf).")
@click.option("--oms", type=click.Path(path_type=Path), help="An elliptic-curve key file that signs it all, model.sig.")
@click.pass_obj
def export(session: Session, /, name: str, folder: Path, **wanted: Any) -> None:
    """Write a model to a folder outside the lab, with the records of its making."""
    with session.open(writer=False) as lab:
        check_new_folder(folder, session.path, "FOLDER")
        files = lab.export(name, folder, Papers(**wanted))
    session.give({"folder": str(folder), "files": files}, pages.line(f"exported {len(files)} files to {folder}"))


@commands.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def evaluate(session: Session, names: Sequence[str]) -> None:
    """Score models on the development suites."""
    with session.open() as lab:
        cards = lab.evaluate(names)
        session.give({a: c.card for a, c in cards.items()}, pages.scores(cards, lab.desk.name_of))


@commands.command()
@click.argument("cluster")
@click.argument("candidates", nargs=-1, required=True)
@click.pass_obj
def decide(session: Session, cluster: str, candidates: Sequence[str]) -> None:
    """Judge candidates that were bred already; releases nothing."""
    with session.open() as lab:
        outcome = lab.decide(cluster, candidates)
        session.give(_outcome(outcome), pages.decision(outcome))
    raise SystemExit(NO_OP if outcome.record.chosen is None else 0)


@commands.command(name="round")
@click.argument("cluster")
@click.option("--recipes", help="JSON list of operator records, or a file [the policy's].")
@click.option("--parent", "parents", multiple=True, help="A parent to use [every approved one].")
@click.option("--ceiling", help="A registered joint-training model to show beside the candidates.")
@click.option("--specialist", is_flag=True, help="Protect CLUSTER alone; the winner can only be packaged.")
@click.option("--also", multiple=True, help="A further cluster that the specialist shall answer for; may be repeated.")
@click.pass_obj
def round_(
    session: Session, /, cluster: str, recipes: str | None, parents: Sequence[str], specialist: bool,
    also: Sequence[str], ceiling: str | None,
) -> None:  # fmt: skip
    """One breeding round: parents in, a judged and released, or honestly refused, descendant out."""
    check_once(parents)
    only_with("also", "with --specialist", specialist)
    scope = (cluster, *also) if specialist else ()
    with session.open() as lab:
        outcome = lab.round(cluster, recipes_of(recipes) if recipes else None, parents or None, ceiling, scope)
        session.give(_outcome(outcome), pages.decision(outcome))
    raise SystemExit(HELD if outcome.held else NO_OP if outcome.record.chosen is None else 0)


@commands.command()
@click.argument("cluster")
@click.option("--method", default="cma", show_default=True, type=click.Choice(["cma", "m2n2", "random"]), help="How.")
@click.option("--evaluations", default=85, show_default=True, type=int, help="Recipes to run, the uniform soup first.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**53 - 1), help="Seed of the method.")
@click.option("--parent", "parents", multiple=True, help="A parent to use [every approved one].")
@click.option("--space", "kind", default="scales", show_default=True, type=click.Choice(["scales", "ties", "split"]),
              help="What is set: scales, density and weights, or points of crossover.")  # fmt: skip
@click.option("--layers", "layered", is_flag=True, help="Scales of their own for every layer.")
@click.option("--filter", "filters", multiple=True, help="Scales of their own for tensors whose name holds this.")
@click.option("--objective", default="worst", show_default=True, type=click.Choice(["worst", "mean"]),
              help="Lowest or mean accuracy over the protected skills.")  # fmt: skip
@click.option("--mix", default="lerp", show_default=True, type=click.Choice(["lerp", "slerp"]), help="How m2n2 mixes.")
@click.option("--resume", is_flag=True, help="Refuse to begin anew if there is nothing to go on with.")
@click.pass_obj
def search(session: Session, /, cluster: str, resume: bool, **wanted: Any) -> None:
    """Search for the best recipe on development items and breed it; the same command goes on where it stopped."""
    check_once(wanted["parents"])
    only_with("mix", "with --method m2n2", wanted["method"] == "m2n2")
    with session.open() as lab:
        found = lab.search(cluster, Request(**{**wanted, "parents": wanted["parents"] or None}), resume=resume)
    session.give(found, pages.searched(found))


@commands.command()
@click.argument("name")
@click.option("--to", "stage", required=True, type=click.Choice(["shadow", "canary", "champion"]), help="The channel.")
@click.option("--as", "person", help="Who promotes to champion; their key signs.")
@click.option("--reason", default="", help="Why.")
@click.option("--router", help="Record of the router's state it is deployed with, on its first stage.")
@click.option("--thresholds", help="Record of the thresholds it is routed by, on its first stage.")
@click.pass_obj
def release(session: Session, /, name: str, stage: str, person: str | None, reason: str, **beside: str | None) -> None:
    """Move a winner to shadow or canary or, as a person, to champion."""
    only_with("person", "with --to champion; the stages before need nobody's key", stage == "champion")
    with session.acting() as lab:
        record = lab.release(name, stage, person, reason, **beside)
        moved = pages.signed(record) if isinstance(record, Signed) else pages.moved(stage, record, lab.desk.name_of)
        session.give(record, moved)


@commands.command()
@click.argument("channel", default="champion", type=click.Choice(["shadow", "canary", "champion"]))
@click.option(
    "--to", help="A model to go back to that stood there before, or nothing to empty shadow or canary [the last]."
)
@click.option("--reason", default="", help="Why.")
@click.pass_obj
def rollback(session: Session, channel: str, to: str | None, reason: str) -> None:
    """Undo the last move of a channel, or go further back the way it came; needs no person's key."""
    with session.acting() as lab:
        record = lab.rollback(channel, reason, to)
        session.give(record, pages.moved(channel, record, lab.desk.name_of))


@commands.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="An empty folder to work in [below the lab's cache].")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="Threads of the worker.")
@click.option("--restore", is_flag=True, help="Put the bytes back if they were deleted from the lab.")
@click.pass_obj
def reproduce(session: Session, name: str, folder: Path | None, threads: int, restore: bool) -> None:
    """Breed a candidate again from its receipt and compare digests."""
    with session.open() as lab:
        artifact = lab.reproduce(name, folder, threads, restore=restore)
    session.give({"artifact": artifact, "equal": True}, pages.line(f"reproduced: {artifact}"))


@commands.command()
@click.pass_obj
def verify(session: Session) -> None:
    """Check every file, signature, chain, alias, claim and decision; changes nothing."""
    with session.open(writer=False, still=True) as lab:
        found = lab.verify()
    session.give({**msgspec.to_builtins(found), "ok": found.ok}, pages.verification(found))
    raise SystemExit(0 if found.ok else WRONG)


@commands.command()
@click.pass_obj
def ready(session: Session) -> None:
    """Run the five exit criteria over the whole lab."""
    with session.open() as lab:
        record = lab.ready()
    session.give(record, pages.readiness(record))
    raise SystemExit(0 if record.ready else WRONG)


@commands.command()
@click.argument("name")
@click.pass_obj
def show(session: Session, name: str) -> None:
    """Show one record, or every record about one model."""
    with session.open(writer=False) as lab:
        found = lab.show(name)
        session.give([r for _, r in found], pages.records(found, lab.desk.name_of))


@commands.command()
@click.argument("name")
@click.pass_obj
def lineage(session: Session, name: str) -> None:
    """Show the ancestry of a model, back to registered sources."""
    with session.open(writer=False) as lab:
        tree = lab.lineage(name)
    session.give(tree, pages.lineage(tree))


@commands.command(name="list")
@click.argument("what", required=False)
@click.pass_obj
def list_(session: Session, what: str | None) -> None:
    """List models and channels, or WHAT: models, channels, records, or a kind of record."""
    with session.open(writer=False) as lab:
        rows = lab.list(what)
    session.give(rows, pages.rows(rows))


@commands.command()
@click.argument("first")
@click.argument("second")
@click.pass_obj
def diff(session: Session, first: str, second: str) -> None:
    """Compare two models: tensors, recipes, scorecards, licences."""
    with session.open(writer=False) as lab:
        found = lab.diff(first, second)
    session.give(found, pages.difference(found))


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.pass_obj
def doctor(session: Session, folder: Path) -> None:
    """Warm the compiled kernels and report what this machine offers; needs no lab."""
    found = Lab.doctor(folder, session.progress)
    session.give({**msgspec.to_builtins(found), "ok": found.ok}, pages.examination(found))
    raise SystemExit(0 if found.ok else WRONG)


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo"))
@click.pass_obj
def demo(session: Session, folder: Path) -> None:
    """Run two whole rounds on the shipped founders: one promotes, one is an honest no-op."""
    report = Lab.demo(folder, session.progress)
    session.give(report, pages.demo(report))
    raise SystemExit(0 if report.ok else WRONG)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    """What is let out about the decision, and what followed from it; the record itself is a look of its own."""
    names = ("decision", "learned", "archive", "released", "held", "baselines", "honesty")
    return {name: msgspec.to_builtins(getattr(outcome, name)) for name in names}
