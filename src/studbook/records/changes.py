"""Changes of what judges and of what runs: the red team's report, evaluator changes, proposals of code and their ends."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Digest, Name, Record, Text, Zone

__all__ = ["CodeChangeClosing", "CodeChangeProposal", "EvaluatorChange", "RedTeamReport", "RedTeamRow"]

Said = Annotated[Text, Meta(min_length=1)]


class RedTeamRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one cheating candidate.

    Attributes:
        candidate: Its name, which says how it cheats.
        expected: The code it has to be rejected with.
        found: The code it was rejected with; ``verdict.pass`` if it got through.
        detail: What the evaluator said, in words.
        rejected: It was rejected, and with the right code.
    """

    candidate: Name
    expected: Name
    found: Name
    detail: Text
    rejected: bool


class RedTeamReport(Record, frozen=True, kw_only=True, tag="red-team-report/1"):
    """Every candidate that tries to fool the evaluator, run against it; an evaluator change cites one that passed.

    Attributes:
        evaluator: Digest of the evaluator they were run against.
        suite: Digest of the SuiteManifest whose items they were asked.
        rows: One a candidate.
        isolation: The measures that were in force for each of them.
        passed: Every one was rejected for the right reason.
    """

    zone: ClassVar[Zone] = Zone.EVALUATION
    evaluator: Digest
    suite: Digest
    rows: tuple[RedTeamRow, ...]
    isolation: tuple[Name, ...]
    passed: bool

    def references(self) -> tuple[str, ...]:
        """The suite."""
        return (self.suite,)


class EvaluatorChange(Record, frozen=True, kw_only=True, tag="evaluator-change/1"):
    """People let another evaluator judge; until then nothing is measured with it.

    Attributes:
        replaces: Digest of the evaluator that was in force.
        evaluator: Digest of the one that shall be.
        suites: Digest of the suites lock it was tried on.
        red_team: Digest of the RedTeamReport of the new evaluator.
        independent: More distinct owners are asked for than for a promotion; false where the root has one owner only,
            who could list anybody as a second one.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.POLICY
    replaces: Digest
    evaluator: Digest
    suites: Digest
    red_team: Digest
    independent: bool
    reason: Said

    def references(self) -> tuple[str, ...]:
        """The suites lock and the report."""
        return (self.suites, self.red_team)


class CodeChangeProposal(Record, frozen=True, kw_only=True, tag="code-change-proposal/1"):
    """An experiment or a decision needs what the program cannot do; no model is promoted until somebody else closes it.

    Attributes:
        capability: The missing capability.
        rationale: Why it is needed.
        evidence: Digests of the records that show it.
        proposed_by: The owner whose key signs it.
    """

    zone: ClassVar[Zone] = Zone.DECISIONS
    capability: Said
    rationale: Said
    evidence: tuple[Digest, ...]
    proposed_by: Name

    def references(self) -> tuple[str, ...]:
        """The evidence."""
        return self.evidence


class CodeChangeClosing(Record, frozen=True, kw_only=True, tag="code-change-closing/1"):
    """Another owner ends a proposal of code: it was released, or declined.

    Attributes:
        proposal: Digest of the CodeChangeProposal.
        outcome: ``released`` when reviewed code has the capability, ``declined`` when it is not to come.
        release: Which reviewed revision or version has it; empty when it was declined.
        closed_by: The owner who closes it; never one who signed the proposal.
        reason: Why.
    """

    zone: ClassVar[Zone] = Zone.RELEASE
    proposal: Digest
    outcome: Literal["released", "declined"]
    release: Text
    closed_by: Name
    reason: Said

    def references(self) -> tuple[str, ...]:
        """The proposal."""
        return (self.proposal,)
