"""Bundles as somebody else's folders: verified without a lab as the page does it, and with one against its ledger."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msgspec import Struct

from studbook.assembly.diagnostics import LIMIT
from studbook.assembly.folder import Folder
from studbook.assembly.meaning import Case
from studbook.assembly.rules import Refusal, Step
from studbook.assembly.verify import Outcome, exported, verify
from studbook.errors import StudbookError
from studbook.files import read_file
from studbook.lab.breeding import reproduce
from studbook.lab.bundle_evidence import inclusion
from studbook.lab.desk import Desk
from studbook.records import BundleRelease, digest

__all__ = ["Bundles", "Checked"]


class Checked(Struct, frozen=True):
    """What came of looking at a bundle.

    Attributes:
        folder: The folder.
        plan: Digest of its plan; empty where it has none that holds.
        name: What people call the model; empty where it did not come that far.
        visible: ``browser`` if a browser ran it on record, ``local`` if none did; empty where it did not come that far.
        steps: Every step that was gone through, with what was verified.
        refusal: Why it ended; None when everything holds.
    """

    folder: str
    plan: str
    name: str
    visible: str
    steps: tuple[Step, ...]
    refusal: Refusal | None

    @property
    def ok(self) -> bool:
        """Everything holds."""
        return self.refusal is None


class Bundles:
    """The facet behind ``studbook bundle``; it needs no lab."""

    @staticmethod
    def verify(folder: Path, lab: Path | None = None, diagnostics: Path | None = None) -> Checked:
        """Do offline what the page does, and what it cannot do.

        Args:
            folder: A bundle, written by anybody.
            lab: The lab that is said to have assembled it: its ledger has to hold the plan, and the candidate is made
                again from its receipt.
            diagnostics: What a page exported: everything in it is computed again.

        Raises:
            UsageError: if there is no such folder, file or lab.
            StudbookError: any of its kinds, if the lab does not open.
        """
        bundle = Folder(folder)
        if strange := bundle.strange():
            return _checked(folder, Outcome((), strange, None))
        found = verify(bundle.read, inclusion)
        if found.refusal is None and found.case is not None:
            found = _beside(bundle, found, found.case, lab, diagnostics)
        return _checked(folder, found)


def _beside(bundle: Folder, found: Outcome, case: Case, lab: Path | None, diagnostics: Path | None) -> Outcome:
    """What no page can ask, after everything that it does."""
    steps = list(found.steps)
    if refusal := bundle.unplanned(case.plan):
        return Outcome(tuple(steps), refusal, case)
    steps.append(Step("folder", f"{len(case.plan.page.files)} files of the page, nothing unplanned"))
    if diagnostics is not None:
        if refusal := exported(bundle.read, case, read_file(diagnostics, LIMIT)):
            return Outcome(tuple(steps), refusal, case)
        steps.append(Step("diagnostics", "state, calls, fused tensors and logits computed again"))
    if lab is not None:
        if refusal := _in_lab(lab, case):
            return Outcome(tuple(steps), refusal, case)
        steps.append(Step("lab", "the ledger holds the plan, and the receipt makes the candidate again"))
    return Outcome(tuple(steps), None, case)


def _in_lab(path: Path, case: Case) -> Refusal | None:
    """Whether a lab assembled a bundle and still stands by it."""
    desk, plan = Desk(path, writer=False), digest(case.plan)
    try:
        if not any(release.plan == plan for _, release in desk.unrevoked(BundleRelease)):
            return Refusal(
                "lab", "lab.release", "no bundle release in this lab's ledger holds the plan, or it was revoked"
            )
        artifact = case.model.artifact.sha256
        sources = (case.records[f"adapter-{m.order}-source"].artifact.sha256 for m in case.adapters)
        for revoked in (artifact, *sources):
            if reason := desk.revoked(revoked):
                return Refusal("lab", "lab.revoked", f"{desk.name_of(revoked)} {reason}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                reproduce(desk, artifact, folder=Path(folder))
            except StudbookError as error:
                return Refusal("lab", "lab.candidate", f"its receipt does not make it again: {error.message}", "model")
    finally:
        desk.close()
    return None


def _checked(folder: Path, found: Outcome) -> Checked:
    named = [step.detail.partition(",")[0] for step in found.steps if step.name == "plan"]
    smoked = found.case is not None and found.case.plan.unsmoked is not None
    return Checked(
        folder=str(folder),
        plan=named[0] if named else "",
        name=found.case.model.name if found.case else "",
        visible=("browser" if smoked else "local") if found.case else "",
        steps=found.steps,
        refusal=found.refusal,
    )
