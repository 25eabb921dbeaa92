"""Suites: made, put to the floor test, planned, frozen, sealed and opened; and what others report, shown beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from studbook.errors import OutOfOrder, UsageError
from studbook.evaluation.floor import Run
from studbook.evaluation.items import Item
from studbook.evaluation.perturb import pairs
from studbook.evaluation.programs import run_programs
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.suites import (
    DISAGREEMENT,
    floor_of,
    freeze,
    read_suite_folder,
    require_testable,
    scorer_sha256,
)
from studbook.evaluation.templates import write_folder
from studbook.lab.desk import Desk
from studbook.lab.foreign_suites import Imported, import_task
from studbook.lab.openings import Opened, open_sealed
from studbook.lab.pending import require_key, sign, signers_here
from studbook.lab.sealing import require_sealed
from studbook.lab.words import plain_name, plain_sentence
from studbook.records import (
    FloorReport,
    FloorRow,
    Measure,
    ReportedResult,
    SuiteManifest,
    SuitesLock,
    digest,
    replace,
)
from studbook.records.evaluation import Role
from studbook.statistics import minimum_detectable, required_items

__all__ = ["Power", "Suites"]

# Dimensions of which a role has one suite a label.
_ALONE = ("task", "cost")
_DISAGREEMENTS = (0.05, 0.10, DISAGREEMENT, 0.20)


class Power(NamedTuple):
    """What a suite can show, one-sided at the policy's alpha with power .8.

    Attributes:
        suite: Its name.
        items: Its items.
        disagreement: Share of discordant items assumed.
        detectable: Smallest paired difference it shows, as a share of items.
        margin: The margin asked about.
        needed: Items that margin needs.
    """

    suite: str
    items: int
    disagreement: float
    detectable: float
    margin: float
    needed: int


class Suites:
    """The lab's suites."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def new(
        self, folder: Path, like: Path | None = None, perturb: Sequence[str] = (), seed: int = 1, **settings: object
    ) -> int:
        """Write a suite folder: around the items in it, around those of another suite perturbed, or around two examples.

        Args:
            folder: The folder.
            like: A suite folder whose items and settings are taken over.
            perturb: Perturbers to apply to them in turn; the suite is then one of robustness.
            seed: Their seed.
            settings: Keys of the manifest that differ.

        Returns:
            How many items it has.

        Raises:
            UsageError: if it holds a suite, a scorer or perturber is unknown, or name or cluster is no plain name.
            StudbookError: any of its kinds, if what would be written is no suite; nothing was written then.
        """
        found = read_suite_folder(like) if like else None
        # A dot is a folder with a name too.
        called = folder.absolute().name
        fields: dict[str, object] = {
            "name": called,
            "role": "development",
            "dimension": "task",
            "cluster": called,
            "scorer": "exact-match",
            "licence": "CC0-1.0",
            "max_new_tokens": 32,
        }
        if found:
            # A mark belongs to its scorer, and a margin to these items.
            same = settings.get("scorer") in (None, found.settings["scorer"])
            also = ("pass_mark",) if same else ()
            fields |= {k: v for k, v in found.settings.items() if k in (*fields, *also, "margin") and k != "name"}
        if perturb:
            if not found:
                raise UsageError("needs a suite to perturb", where="--perturb", advice="Name it: --like FOLDER")
            fields |= {"dimension": "robustness", "perturbers": ",".join(perturb), "seed": seed}
        items = found.items if found else None
        if items and perturb:
            items = pairs(items, perturb, seed)
        fields |= {k: v for k, v in settings.items() if v is not None}
        for key in ("name", "cluster"):
            plain_name(str(fields[key]), f"--{key}")
        return write_folder(folder, fields, items)

    def floor(self, folder: Path) -> tuple[FloorRow, ...]:
        """What every worthless answerer and the oracle get in a suite; nothing is written."""
        suite = read_suite_folder(folder)
        return floor_of(suite, self._runner(suite.settings["scorer"]), self._desk.worker_limits())

    def power(
        self, names: Sequence[str], margin: float | None = None, disagreement: float | None = None
    ) -> list[Power]:
        """What suites can show, and what a margin needs.

        Args:
            names: Suite folders, or names of frozen suites; every frozen one when none is named.
            margin: The margin to ask about; the policy's otherwise.
            disagreement: Share of discordant items expected; a table of four otherwise.

        Raises:
            OutOfOrder: if a margin that was named cannot be tested by one of them.
            UsageError: if a name is no suite.
        """
        gates = self._desk.policy[1].gates
        asked = gates.margin if margin is None else margin
        rows = []
        for name, items in self._sizes(names):
            if margin is not None:
                require_testable(items, margin, gates.alpha, disagreement or DISAGREEMENT, name)
            for psi in (disagreement,) if disagreement else _DISAGREEMENTS:
                found = minimum_detectable(items, psi, gates.alpha)
                rows.append(Power(name, items, psi, round(found, 6), asked, required_items(asked, psi, gates.alpha)))
        return rows

    def freeze(self, folders: Sequence[Path], person: str | None = None) -> tuple[SuiteManifest, ...]:
        """Put suites to the floor test, freeze them and add them to the lock; a person's act.

        A suite that is frozen already stays as it is; one that was frozen under another version of its scorer is replaced.

        Args:
            folders: Suite folders, or folders of suite folders.
            person: Whose policy key signs the lock; any at hand by default. Where the root of keys wants more people for
                it, the suites are frozen, and the lock waits for their signatures.

        Raises:
            UsageError: if a folder holds no suite, or two frozen suites would share a name, or a role and a label.
            OutOfOrder: if a suite fails the floor test, or sealed items are known elsewhere; none is frozen then.
            NotAuthorised: if the person's key is not at hand; nothing has run then.
        """
        desk = self._desk
        found = [read_suite_folder(path) for folder in folders for path in _suite_folders(folder)]
        signers_here(desk, SuitesLock(header=desk.header, lock_version=1, suites=()), person)
        alpha = desk.policy[1].gates.alpha
        require_key(desk, FloorReport, SuiteManifest)
        made: list[tuple[FloorReport, SuiteManifest, bytes]] = []
        frozen: list[SuiteManifest] = []
        locked = self._locked()
        require_sealed(desk, locked, found)
        for folder in desk.progress.track("floor-testing suites", found):
            floor, manifest = freeze(
                desk.header, folder, alpha, self._runner(folder.settings["scorer"]), desk.worker_limits()
            )
            locked, held = _with(locked, manifest, folder.path)
            frozen.append(held)
            if held is manifest:
                made.append((floor, manifest, folder.data))
        for floor, manifest, data in made:
            desk.workspace.commit(floor)
            desk.workspace.commit(manifest, {manifest.items.sha256: data})
        locks = list(desk.all(SuitesLock))
        if not locks or locks[-1][1].suites != tuple(locked):
            version = locks[-1][1].lock_version + 1 if locks else 1
            signed = sign(desk, SuitesLock(header=desk.header, lock_version=version, suites=tuple(locked)), person)
            if not signed.committed:
                named = signed.digest[:12]
                desk.progress.say(f"{SuitesLock.kind()} {signed.digest} waits: {signed.waiting}")
                desk.progress.say(f"nothing is judged by it until then; next: studbook approve {named} --as NAME")
        return tuple(frozen)

    def seal(self, folders: Sequence[Path], person: str | None = None) -> tuple[SuiteManifest, ...]:
        """Freeze suites that have to be sealed ones; `freeze` takes any, and seals as tightly.

        Raises:
            OutOfOrder: if a suite has another role; ``suite.sealed``.
            StudbookError: any of its kinds, as `freeze`.
        """
        for path in (p for folder in folders for p in _suite_folders(folder)):
            suite = read_suite_folder(path)
            if suite.settings["role"] != "sealed":
                raise OutOfOrder(
                    f"has the role {suite.settings['role']}",
                    where=suite.path / "suite.manifest",
                    advice="Write role=sealed, or freeze it: studbook suite freeze",
                    reason="suite.sealed",
                )
        return self.freeze(folders, person)

    def open(self, names: Sequence[str]) -> tuple[Opened, ...]:
        """Score models on the sealed suites; each look is an opening on record: see `open_sealed`."""
        return open_sealed(self._desk, names)

    def attach(self, name: str, benchmark: str, value: float, unit: str, method: str, citation: str) -> ReportedResult:
        """Put what somebody else reports of a model on record; it is shown, and no gate reads it.

        Args:
            name: The model.
            benchmark: What was measured.
            value: The number.
            unit: Its unit.
            method: Who measured it how.
            citation: Where it can be read.

        Raises:
            UsageError: if nothing is called that, the value is not finite, or a text is not plain or says nothing.
        """
        desk = self._desk
        if not math.isfinite(value):
            advice = "Give the number that was reported."
            raise UsageError(f"{value} is not a finite number", where="VALUE", advice=advice, reason="usage.value")
        record = ReportedResult(
            header=desk.header,
            artifact=desk.find_model(name),
            benchmark=plain_name(benchmark, "BENCHMARK"),
            measure=Measure(
                value=value,
                unit=plain_name(unit, "--unit"),
                basis="reported",
                method=plain_sentence(method, "--method"),
            ),
            citation=plain_sentence(citation, "--citation"),
            attached_by=desk.header.owner,
        )
        desk.workspace.commit(record)
        return record

    def _runner(self, scorer: str) -> Run:
        """How written answers of a kind are run, each in a worker of its own."""
        desk = self._desk

        def run(items: Sequence[Item], texts: Sequence[object]) -> list[object]:
            folder = desk.workspace.work_folder("floor")
            return run_programs(KINDS[scorer], items, texts, folder, desk.worker_limits())

        return run

    def _sizes(self, names: Sequence[str]) -> list[tuple[str, int]]:
        known = {m.name: m.count for m in self._locked().values()}
        out = []
        for name in names or known:
            if name in known:
                out.append((name, known[name]))
            elif Path(name).is_dir():
                out += [(p.name, len(read_suite_folder(p).items)) for p in _suite_folders(Path(name))]
            else:
                advice = f"Frozen: {', '.join(sorted(known)) or 'none'}; or name a folder."
                raise UsageError(f"no suite is called {name!r}", advice=advice)
        return out

    @staticmethod
    def import_(
        task: Path, folder: Path, *, role: Role, cluster: str, licence: str, name: str | None = None
    ) -> Imported:
        """Write a local task of lm-eval-harness as a suite folder, or say why it cannot be one; needs no lab."""
        return import_task(task, folder, role=role, cluster=cluster, licence=licence, name=name)

    def _locked(self) -> dict[str, SuiteManifest]:
        locks = list(self._desk.all(SuitesLock))
        suites = locks[-1][1].suites if locks else ()
        return {d: self._desk.workspace.get(d, SuiteManifest) for d in suites}


def _with(
    locked: Mapping[str, SuiteManifest], made: SuiteManifest, where: Path
) -> tuple[dict[str, SuiteManifest], SuiteManifest]:
    """The lock's suites with one more, and that suite as it stands there, where it was frozen alike before.

    One that was frozen under another version of its scorer judges nothing any more; frozen again, it takes its old place.

    Raises:
        UsageError: if another suite of its name is in force, ``suite.taken``; or of its label, since decisions want one
            task suite a role and label, ``suite.label``.
    """
    place, old = next(((d, m) for d, m in locked.items() if m.name == made.name), ("", None))
    if old is not None and replace(old, header=made.header, floor=made.floor) == made:
        return dict(locked), old
    if old is not None and old.scorer in KINDS and old.scorer_sha256 == scorer_sha256(old.scorer):
        advice = "Give it another name; a frozen suite is not replaced."
        raise UsageError(
            f"a suite named {made.name} is frozen already", where=where, advice=advice, reason="suite.taken"
        )
    for held, other in locked.items():
        if held != place and made.dimension in _ALONE and _asks(other) == _asks(made):
            raise UsageError(
                f"{other.name} is the {other.role} suite of {other.dimension} for {other.cluster} already",
                where=f"{where / 'suite.manifest'}: cluster",
                advice="Give it a cluster of its own; a frozen suite is not replaced.",
                reason="suite.label",
            )
    if old is None:
        return {**locked, digest(made): made}, made
    return dict((digest(made), made) if d == place else (d, m) for d, m in locked.items()), made


def _asks(manifest: SuiteManifest) -> tuple[str, str, str]:
    return manifest.role, manifest.dimension, manifest.cluster


def _suite_folders(folder: Path) -> list[Path]:
    if (folder / "suite.manifest").is_file():
        return [folder]
    found = sorted(p.parent for p in folder.glob("**/suite.manifest"))
    if not found:
        raise UsageError(
            "holds no suite", where=folder, advice="A suite is a folder with suite.manifest and items.jsonl."
        )
    return found
