"""Freezing suites, and finding them again by role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studbook.errors import OutOfOrder, UsageError
from studbook.evaluation.scorecards import SuiteFile
from studbook.evaluation.suites import freeze, known_items, read_suite_folder, scorer_sha256
from studbook.lab.desk import Desk
from studbook.lab.pending import sign
from studbook.records import SuiteManifest, SuitesLock, digest
from studbook.records.evaluation import Role

__all__ = ["Suites", "of_role"]


def of_role(desk: Desk, role: Role) -> tuple[SuiteFile, ...]:
    """The suites in force for a role, in the order of the lock.

    Raises:
        OutOfOrder: if there is none.
    """
    _, lock = desk.suites_lock
    found = []
    for suite in lock.suites:
        manifest = desk.workspace.get(suite, SuiteManifest)
        if manifest.role == role:
            if manifest.scorer_sha256 != scorer_sha256():
                raise OutOfOrder(
                    f"suite {manifest.name} was frozen under another version of its scorer",
                    advice="Freeze it again: an evaluator change is never silent.",
                    reason="order.scorer",
                )
            path = desk.workspace.blob_path(manifest.items.sha256)
            items = known_items(desk.workspace.blob(manifest.items.sha256), path)
            found.append(SuiteFile(suite, manifest, path, items))
    if not found:
        raise OutOfOrder(f"no {role} suite is frozen", advice="Freeze some: studbook suite freeze FOLDER ...")
    return tuple(found)


class Suites:
    """The lab's suites."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def freeze(self, folders: Sequence[Path], person: str | None = None) -> tuple[SuiteManifest, ...]:
        """Put suites to the floor test, freeze them and add them to the lock; a person's act.

        Args:
            folders: Suite folders, or folders of suite folders.
            person: Whose policy key signs the lock; any at hand by default. Where the root of keys wants more people for
                it, the suites are frozen, and the lock waits for their signatures.

        Raises:
            UsageError: if a folder holds no suite, or two frozen suites would share a name.
            OutOfOrder: if a suite fails the floor test.
        """
        desk = self._desk
        found = [p for folder in folders for p in _suite_folders(folder)]
        alpha = desk.policy[1].gates.alpha
        frozen: list[SuiteManifest] = []
        locked = self._locked()
        for path in desk.progress.track("floor-testing suites", found):
            folder = read_suite_folder(path)
            floor, manifest = freeze(desk.header, folder, alpha)
            if any(m.name == manifest.name and d != digest(manifest) for d, m in locked.items()):
                raise UsageError(f"a suite named {manifest.name} is frozen already", where=path)
            desk.workspace.commit(floor)
            locked[desk.workspace.commit(manifest, {manifest.items.sha256: folder.data})] = manifest
            frozen.append(manifest)
        locks = list(desk.all(SuitesLock))
        if not locks or locks[-1][1].suites != tuple(locked):
            version = locks[-1][1].lock_version + 1 if locks else 1
            signed = sign(desk, SuitesLock(header=desk.header, lock_version=version, suites=tuple(locked)), person)
            if not signed.committed:
                named = signed.digest[:12]
                desk.progress.say(f"{SuitesLock.kind()} {signed.digest} waits: {signed.waiting}")
                desk.progress.say(f"nothing is judged by it until then; next: studbook approve {named} --as NAME")
        return tuple(frozen)

    def _locked(self) -> dict[str, SuiteManifest]:
        locks = list(self._desk.all(SuitesLock))
        suites = locks[-1][1].suites if locks else ()
        return {d: self._desk.workspace.get(d, SuiteManifest) for d in suites}


def _suite_folders(folder: Path) -> list[Path]:
    if (folder / "suite.manifest").is_file():
        return [folder]
    found = sorted(p.parent for p in folder.glob("**/suite.manifest"))
    if not found:
        raise UsageError(
            "holds no suite", where=folder, advice="A suite is a folder with suite.manifest and items.jsonl."
        )
    return found
