"""What a person reads: every result as a short page of plain text and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from studbook.cli.verdicts import candidates_table, explain
from studbook.lab.audit import Verification
from studbook.lab.demo import DemoReport
from studbook.lab.doctor import Examination
from studbook.lab.judging import Card
from studbook.lab.pending import Signed
from studbook.lab.reading import Ancestor
from studbook.lab.rounds import Outcome
from studbook.lab.search import Found
from studbook.records import (
    CompatibilityReport,
    LedgerEntry,
    ParentApproval,
    ReadinessRecord,
    Record,
    SourceManifest,
    SuiteManifest,
)

__all__ = [
    "Page",
    "approved",
    "bred",
    "compatibility",
    "decision",
    "demo",
    "difference",
    "examination",
    "founded",
    "frozen",
    "line",
    "lineage",
    "lines",
    "moved",
    "readiness",
    "records",
    "registered",
    "rows",
    "scores",
    "searched",
    "signed",
    "verification",
]

Page = Callable[[Console], None]
Namer = Callable[[str], str]


def line(text: str) -> Page:
    """One line."""
    return lambda out: out.print(text, soft_wrap=True)


def lines(*texts: str) -> Page:
    """Some lines."""

    def page(out: Console) -> None:
        for text in texts:
            out.print(text, soft_wrap=True)

    return page


def founded(path: Path, keys: Path) -> Page:
    """After `init`."""
    return lines(
        f"lab:  {path}",
        f"keys: {keys}",
        "      people/ holds the root, policy, approval and promotion keys: keep them elsewhere; no running process needs",
        "      them. people/policy/root signs who may sign: keep a copy of it where nothing else lies (docs/keys.md).",
        f"next: studbook --lab {path} register FOLDER ...",
    )


def registered(manifests: Sequence[SourceManifest]) -> Page:
    """After `register`."""
    return lines(*(f"{m.source.__struct_config__.tag:<8} {m.name:<24} {m.artifact.sha256}" for m in manifests))


def approved(name: str, record: ParentApproval) -> Page:
    """After `approve`."""
    clusters = ", ".join(record.clusters).replace("*", "every cluster")
    return line(f"{record.approved_by} approved {name} for {clusters} until {record.until}")


def signed(found: Signed) -> Page:
    """After a person signed a root or a revocation."""
    if found.committed:
        return line(f"{found.record.kind()} {found.digest} is in the ledger")
    return lines(
        f"{found.record.kind()} {found.digest} waits: {found.waiting}",
        f"next: studbook approve {found.digest[:12]} --as NAME",
    )


def frozen(manifests: Sequence[SuiteManifest]) -> Page:
    """After `suite freeze`."""
    return lines(*(f"frozen  {m.name:<28} {m.count:>6} items  {m.role}" for m in manifests), f"{len(manifests)} suites")


def bred(name: str, artifact: str) -> Page:
    """After `breed`."""
    return line(f"bred {name}: {artifact}")


def compatibility(report: CompatibilityReport, name: Namer) -> Page:
    """After `compare`."""

    def page(out: Console) -> None:
        for check in report.checks:
            out.print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name:<18} {check.detail}", soft_wrap=True)
        for change in report.tokenizers:
            out.print(f"tokenizer of {name(change.parent)} against the base's: {change.detail}", soft_wrap=True)
        if report.pairs:
            table = _table("pair", "cosine", "sign conflict", "barrier, nats/token")
            for pair in report.pairs:
                names = f"{name(pair.first)} + {name(pair.second)}"
                barrier = f"{pair.barrier.value:+.3f}"
                table.add_row(names, f"{pair.cosine.value:.3f}", f"{pair.sign_conflict.value:.1%}", barrier)
            out.print(table)
        out.print("compatible" if report.passed else "not compatible: no merge-style operator will start")

    return page


def scores(cards: Mapping[str, Card], name: Namer) -> Page:
    """After `evaluate`."""

    def page(out: Console) -> None:
        clusters = list(next(iter(cards.values())).card.tasks())
        table = _table("model", "joint mean", *clusters)
        for artifact, held in cards.items():
            tasks = held.card.tasks()
            table.add_row(name(artifact), f"{held.card.joint_mean:.1%}", *(f"{tasks[c].mean:.1%}" for c in clusters))
        out.print(table)

    return page


def searched(found: Found) -> Page:
    """After `search`."""
    record = found.record
    rows = (("uniform soup", record.evaluated[0]), (found.name, record.evaluated[record.best]))

    def page(out: Console) -> None:
        table = _table("recipe", record.objective, *(name.removeprefix("development-") for name in found.suites))
        for name, row in rows:
            shares = [f"{int(r) / int(n):.1%}" for r, n in zip(row.right.split(), record.items.split(), strict=False)]
            table.add_row(name, f"{row.objective_ppm / 1e6:.2%}", *shares)
        out.print(table)
        spent = f"{len(record.evaluated)} recipes run, {len(record.repeats)} proposed again; best was number"
        out.print(f"{spent} {record.best + 1}. These are the items that were searched on: a round judges on others.")
        out.print(f"recipe:  {msgspec.json.encode(record.recipe).decode()}", soft_wrap=True)
        out.print(f"receipt: {found.receipt}", soft_wrap=True)

    return page


def decision(outcome: Outcome) -> Page:
    """After `round` and `decide`."""

    def page(out: Console) -> None:
        for table in candidates_table(outcome):
            out.print(table)
            out.print()
        for text in explain(outcome):
            out.print(text, soft_wrap=True)

    return page


def moved(channel: str, record: Record, name: Namer) -> Page:
    """After `release` and `rollback`."""
    artifact = getattr(record, "artifact", None)
    return line(f"{channel} -> {name(artifact)} {artifact}" if artifact else f"{channel} -> empty")


def examination(found: Examination) -> Page:
    """After `doctor`."""

    def page(out: Console) -> None:
        for check in found.checks:
            out.print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {check.found}", soft_wrap=True)
            if check.advice:
                out.print(f"{'':20} {check.advice}", soft_wrap=True)
        out.print(f"environment: {found.environment}", soft_wrap=True)
        out.print("doctor: ok" if found.ok else "doctor: something is wrong; the advice stands beside it")

    return page


def verification(found: Verification) -> Page:
    """After `verify`."""
    void = [f"{v.where}: void: {v.what}" for v in found.void]
    if found.ok:
        pin = "root of keys as pinned" if found.pinned else "root of keys NOT pinned: no key folder with its pin here"
        seen = "no witness" if found.witnessed is None else f"a witness saw {found.witnessed} entries"
        told = f"verify: ok ({found.entries} entries, {found.files} files, {found.size} bytes; {pin}; {seen})"
        return lines(*(f"{a.where}: {a.what}" for a in found.absent), *void, told)
    problems = [f"{p.where}: {p.what}" for p in found.problems]
    return lines(*void, *problems, f"verify: FAILED, {len(problems)} problems")


def readiness(record: ReadinessRecord) -> Page:
    """After `ready`."""
    rows_ = [f"{'ok  ' if c.passed else 'FAIL'}  {c.name:<10} {c.detail}" for c in record.criteria]
    return lines(*rows_, "ready: ok" if record.ready else "ready: no")


def records(found: Sequence[tuple[LedgerEntry, Record]], name: Namer) -> Page:
    """After `show`."""

    def page(out: Console) -> None:
        for entry, record in found:
            about = ", ".join(name(d) for d in record.subjects()[:4])
            out.print(f"#{entry.sequence:<5} {entry.time[:19]}Z  {entry.record_kind:<26} {entry.record[:12]}  {about}")
            if len(found) == 1:
                out.print_json(data=msgspec.to_builtins(record))

    return page


def lineage(tree: Ancestor) -> Page:
    """After `lineage`."""

    def grow(branch: Tree, ancestor: Ancestor) -> None:
        for parent in ancestor.parents:
            grow(branch.add(_ancestor(parent)), parent)

    root = Tree(_ancestor(tree))
    grow(root, tree)
    return lambda out: out.print(root)


def rows(found: Sequence[Mapping[str, Any]]) -> Page:
    """After `list`."""

    def page(out: Console) -> None:
        for columns in dict.fromkeys(tuple(row) for row in found):
            table = _table(*columns)
            for row in found:
                if tuple(row) == columns:
                    table.add_row(*("-" if row[c] is None else str(row[c]) for c in columns))
            out.print(table)
        if not found:
            out.print("nothing yet")

    return page


def difference(found: Mapping[str, Any]) -> Page:
    """After `diff`."""

    def page(out: Console) -> None:
        first, second = found["first"], found["second"]
        out.print(f"{first['name']} {first['artifact'][:12]}  against  {second['name']} {second['artifact'][:12]}")
        out.print("the same bytes" if found["equal"] else "different bytes")
        table = _table("layer", "norm of difference", "relative")
        for row in found["layers"]:
            if row["difference"] is None:
                table.add_row(row["layer"], f"shape {row['first']} against {row['second']}", "-")
            else:
                relative = "-" if row["relative"] is None else f"{row['relative']:.2%}"
                table.add_row(row["layer"], f"{row['difference']:.4f}", relative)
        out.print(table)
        if found["scorecards"]:
            scores_ = _table("suite", "cluster", first["name"], second["name"], "difference")
            for row in found["scorecards"]:
                gap = row["second"] - row["first"]
                scores_.add_row(
                    row["role"], row["cluster"], f"{row['first']:.1%}", f"{row['second']:.1%}", f"{gap:+.1%}"
                )
            out.print(scores_)
        for label, pair in (("licence", found["licences"]), ("recipe", found["recipes"])):
            out.print(f"{label}: {pair[0] or 'none'}  |  {pair[1] or 'none'}", soft_wrap=True)

    return page


def demo(report: DemoReport) -> Page:
    """After `demo`."""

    def page(out: Console) -> None:
        for number, (outcome, ceiling) in enumerate(report.rounds, 1):
            out.rule(f"round {number}: {ceiling}")
            decision(outcome)(out)
        out.rule("and back again")
        for text in report.lines:
            out.print(text, soft_wrap=True)

    return page


def _ancestor(ancestor: Ancestor) -> str:
    how = f"  {ancestor.how['operator']}" if ancestor.how else "  registered"
    signed = "".join(f"  signed by producer's key {key[:12]}" for key in ancestor.signed_by)
    return f"{ancestor.name}  {ancestor.artifact[:12]}{how}  {ancestor.licence or 'no licence'}{signed}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table
