"""The red team run against this lab's evaluator and one of its suites; what came of it is a record."""

from __future__ import annotations

import shutil

from studbook.errors import OutOfOrder
from studbook.evaluation.redteam import EXPECTED, run_red_team
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.frozen import of_role
from studbook.lab.pending import require_key
from studbook.records import RedTeamReport, SuiteManifest

__all__ = ["check_red_team", "red_team"]

_FIELD = "redteam.field"
_PASS = "verdict.pass"


def red_team(desk: Desk) -> tuple[str, RedTeamReport]:
    """Run every cheating candidate on the lab's first development suite of exact answers.

    Returns:
        Digest and record of the report, which is in the ledger now, whether it passed or not.

    Raises:
        OutOfOrder: if no such suite is frozen; ``order.suite``.
        OutsideAllowlist: if this machine does not offer a measure that the policy demands.
    """
    suites = [s for s in of_role(desk, "development") if s.manifest.scorer == "exact-match"]
    if not suites:
        raise OutOfOrder(
            "no development suite of exact answers is frozen",
            where="suites lock",
            advice="Freeze one: studbook suite freeze FOLDER ...",
            reason="order.suite",
        )
    require_key(desk, RedTeamReport)
    folder = desk.workspace.work_folder("red-team")
    try:
        report = run_red_team(desk.header, suites[0], folder, desk.worker_limits())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return desk.workspace.commit(report), report


def check_red_team(desk: Desk, record: RedTeamReport) -> None:
    """A report says of itself what its rows say, speaks of every cheat this evaluator knows, and of a suite in force.

    Whether a candidate really ended as its row says is taken at its word, as of any measurement.

    Args:
        desk: The lab as it was before the record.
        record: The report.

    Raises:
        DigestDiffers: naming the field; ``redteam.field``.
    """
    named = tuple(row.candidate for row in record.rows)
    facts: dict[str, tuple[object, object]] = {
        "suite": (record.suite in _development(desk), True),
        "rows": (len(named) > 0 and len(set(named)) == len(named), True),
        "rows.rejected": ([r.rejected for r in record.rows], [r.found == r.expected != _PASS for r in record.rows]),
        "passed": (record.passed, all(row.rejected for row in record.rows)),
    }
    if record.evaluator == evaluator_sha256():
        # Another version may know other cheats.
        facts["rows.expected"] = ({r.candidate: r.expected for r in record.rows}, EXPECTED)
    require("red-team-report", facts, _FIELD)


def _development(desk: Desk) -> list[str]:
    """Digests of the development suites in force."""
    return [d for d in desk.suites_lock[1].suites if desk.workspace.get(d, SuiteManifest).role == "development"]
