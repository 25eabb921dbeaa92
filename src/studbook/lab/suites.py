"""Suites: made, put to the floor test, planned, frozen, sealed and opened; and what others report, shown beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.evaluation.floor import Run
from studbook.evaluation.items import Item
from studbook.evaluation.perturb import pairs
from studbook.evaluation.programs import run_programs
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.suites import DISAGREEMENT, floor_of, freeze, read_suite_folder, require_testable
from studbook.evaluation.templates import write_folder
from studbook.lab.desk import Desk
from studbook.lab.evaluators import require_in_force
from studbook.lab.foreign_suites import Imported, import_task
from studbook.lab.judging import Card, already, evaluate
from studbook.lab.pending import sign, signers_here
from studbook.lab.sealing import require_sealed
from studbook.lab.sources import require_model
from studbook.lab.words import plain_name
from studbook.records import (
    FloorReport,
    FloorRow,
    Measure,
    ReportedResult,
    Scorecard,
    SealedOpening,
    SuiteManifest,
    SuitesLock,
    digest,
)
from studbook.records.evaluation import Role
from studbook.statistics import minimum_detectable, required_items

__all__ = ["Opened", "Power", "Suites"]

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


class Opened(NamedTuple):
    """A look at the sealed suites.

    Attributes:
        name: The model's name.
        opening: Which opening it was, from 1; 0 where it had been looked at already.
        of: How many the policy allows.
        card: Its sealed scorecard.
    """

    name: str
    opening: int
    of: int
    card: Card


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
        fields: dict[str, object] = {
            "name": folder.name,
            "role": "development",
            "dimension": "task",
            "cluster": folder.name,
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
        return floor_of(suite, self._runner(suite.settings["scorer"]))

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
        made: list[tuple[FloorReport, SuiteManifest, bytes]] = []
        locked = self._locked()
        require_sealed(desk, locked, found)
        for folder in desk.progress.track("floor-testing suites", found):
            floor, manifest = freeze(desk.header, folder, alpha, self._runner(folder.settings["scorer"]))
            _check_beside(manifest, locked, folder.path)
            locked[digest(manifest)] = manifest
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
        return tuple(manifest for _, manifest, _ in made)

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
        """Score models on the sealed suites; each look is an opening on record, written before it, k of K.

        A model that was looked at already under the suites and the evaluator in force is shown again for nothing.

        Raises:
            OverBudget: if the policy allows fewer further openings than are needed; nothing was looked at then.
            UsageError: if one of them is no model.
            OutOfOrder: if no sealed suite is frozen, or nobody let this evaluator judge.
        """
        desk, allowed = self._desk, self._desk.policy[1].gates.sealed_openings
        artifacts = tuple(dict.fromkeys(desk.find_model(name) for name in names))
        for artifact in artifacts:
            require_model(desk, artifact)
        require_in_force(desk)
        cut, used = self._cut_short(), max((o.opening for _, o in desk.all(SealedOpening)), default=0)
        fresh = [a for a in artifacts if a not in cut and not already(desk, a, "sealed")]
        if fresh and used + len(fresh) > allowed:
            raise OverBudget(
                f"{len(fresh)} more looks at the sealed suites, and {used} of all {allowed} openings are used up",
                where="policy: gates.sealed_openings",
                advice="Ask the policy's owners for more. The more often items were looked at, the less they confirm.",
            )
        numbers = cut | {artifact: used + n for n, artifact in enumerate(fresh, 1)}
        out = []
        for artifact in artifacts:
            number = numbers.get(artifact, 0)
            if number > used:
                look = SealedOpening(header=desk.header, decision=None, candidate=artifact, opening=number, of=allowed)
                desk.workspace.commit(look)
            card = evaluate(desk, [artifact], "sealed")[artifact]
            out.append(Opened(desk.name_of(artifact), number, allowed, card))
        return tuple(out)

    def _cut_short(self) -> dict[str, int]:
        """Looks that were logged and ended before there was a scorecard: model -> opening; they go on uncounted."""
        desk = self._desk
        scored = {c.artifact: self._place(d) for d, c in desk.all(Scorecard) if c.role == "sealed"}
        looks = [(self._place(d), o) for d, o in desk.all(SealedOpening) if o.decision is None]
        return {o.candidate: o.opening for place, o in looks if place > scored.get(o.candidate, -1)}

    def _place(self, record: str) -> int:
        entry = self._desk.workspace.entry(record)
        return entry.sequence if entry else -1

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
            UsageError: if nothing is called that.
            RecordRefused: if the value is not finite, or a text is not plain.
        """
        desk = self._desk
        record = ReportedResult(
            header=desk.header,
            artifact=desk.find_model(name),
            benchmark=benchmark,
            measure=Measure(value=value, unit=unit, basis="reported", method=method),
            citation=citation,
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


def _check_beside(manifest: SuiteManifest, locked: Mapping[str, SuiteManifest], where: Path) -> None:
    """Refuse a suite that nobody could tell from another: decisions want one task suite a role and label."""
    for held, other in locked.items():
        if held == digest(manifest):
            return
        if other.name == manifest.name:
            raise UsageError(f"a suite named {manifest.name} is frozen already", where=where)
        if manifest.dimension in _ALONE and _asks(other) == _asks(manifest):
            raise UsageError(
                f"{other.name} is the {other.role} suite of {other.dimension} for {other.cluster} already",
                where=f"{where / 'suite.manifest'}: cluster",
                advice="Give it a cluster of its own; a frozen suite is not replaced.",
                reason="suite.label",
            )


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
