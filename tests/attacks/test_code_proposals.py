"""Proposals of code: approved by their author, applied by themselves, promotions resumed before anybody else agreed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_fixtures import BLEND, CLUSTER, PERSON, Place, problems
from release_fixtures import OTHER, refused, told, winner
from studbook.errors import OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.proposals import Waiting, check_closing
from studbook.records import CodeChangeClosing, CodeChangeProposal, Header
from studbook.seal import PEOPLES_KINDS, Signer

CLOSING = CodeChangeClosing.kind()


def propose(lab: Lab, capability: str = "the router needs a tie-break") -> str:
    found = lab.proposals.new(capability, "two specialists tie", [lab.desk.policy[0]], PERSON)
    assert found.committed
    return found.digest


@pytest.fixture(scope="module")
def proposed_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab just before its first release: a proposal waits, a second person may close it, a winner is held back."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("proposed"))
    with place.open() as lab:
        lab.keys.new(OTHER, [CLOSING], PERSON)
        propose(lab)
        assert lab.round(CLUSTER, [BLEND]).record.chosen
    return place


@pytest.fixture
def proposed(proposed_lab: Place, tmp_path: Path) -> Place:
    return proposed_lab.copy(tmp_path / "proposed")


def the_proposal(lab: Lab) -> str:
    return lab.proposals.list()[0].proposal


def test_a_proposal_stops_every_promotion_until_another_owner_closes_it(proposed: Place) -> None:
    with proposed.open() as lab:
        first = the_proposal(lab)
        with pytest.raises(OutOfOrder, match="code-changes is pending") as caught:
            lab.release(winner(lab), "shadow")
        assert first[:16] in str(caught.value)
        assert lab.desk.channels()["shadow"].record is None
        assert lab.proposals.close(first, OTHER, "reviewed and released", "v0.2.0").committed
        lab.release(winner(lab), "shadow")
        # What is proposed while the winner is in shadow stops the next stage too, but never the way back.
        second = propose(lab, "the router needs a cascade")
        with pytest.raises(OutOfOrder, match="code-changes is pending") as caught:
            lab.release(winner(lab), "champion", PERSON)
        assert second[:16] in str(caught.value)
        lab.rollback("shadow", "while it waits")
    assert problems(proposed) == []


def test_its_author_cannot_close_it(proposed: Place) -> None:
    with proposed.open() as lab:
        before = len(lab.desk.entries())
        with refused("proposal.author"):
            lab.proposals.close(the_proposal(lab), PERSON, "I agree with myself")
        assert len(lab.desk.entries()) == before


def test_no_process_holds_a_key_that_could_close_one() -> None:
    assert CLOSING in PEOPLES_KINDS


def test_a_closing_that_its_author_signed_by_hand_is_found_by_verify(proposed: Place) -> None:
    with proposed.open() as lab:
        record = closing(lab.desk.header, the_proposal(lab), closed_by=PERSON)
        error = told(lab, record, owners={CLOSING: PERSON})
        assert error is not None
        assert error.reason == "proposal.author"
    assert problems(proposed) != []


def test_a_closing_in_the_name_of_somebody_else_is_found_by_verify(proposed: Place) -> None:
    with proposed.open() as lab:
        record = closing(lab.desk.header, the_proposal(lab), closed_by=OTHER)
        error = told(lab, record, owners={CLOSING: PERSON})
        assert error is not None
        assert error.reason == "authority.person"


def test_a_revoked_closing_ends_nothing_and_revoking_a_proposal_does_not_end_it(proposed: Place) -> None:
    with proposed.open() as lab:
        proposal = the_proposal(lab)
        closed = lab.proposals.close(proposal, OTHER, "not needed")
        assert lab.proposals.list() == ()
        with refused("proposal.closed"):
            lab.proposals.close(proposal, OTHER, "again")
        lab.keys.revoke(closed.digest, PERSON, "bob was mistaken")
        assert the_proposal(lab) == proposal
        lab.keys.revoke(proposal, PERSON, "it is in my way")
        assert the_proposal(lab) == proposal


def test_a_proposal_without_evidence_of_this_lab_is_refused(new_lab: Place) -> None:
    with new_lab.open() as lab:
        with pytest.raises(UsageError, match="not one record"):
            lab.proposals.new("more", "because", ["0" * 64], PERSON)
        with refused("proposal.evidence"):
            lab.proposals.new("more", "because", [lab.desk.policy[0]] * 2, PERSON)
        with pytest.raises(UsageError, match="says nothing"):
            lab.proposals.new(" ", "because", [lab.desk.policy[0]], PERSON)


HEADER = Header(source="studbook", version="1", environment="x", owner=PERSON)
ANN, BOB = Signer("a" * 64, "ann"), Signer("b" * 64, "bob")
PROPOSAL = CodeChangeProposal(
    header=HEADER, capability="more", rationale="because", evidence=("e" * 64,), proposed_by=PERSON
)


def closing(header: Header, proposal: str, **changes: str) -> CodeChangeClosing:
    fields = {"outcome": "released", "release": "v1", "closed_by": "bob", "reason": "reviewed"} | changes
    return CodeChangeClosing(header=header, proposal=proposal, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "signer", "reason"),
    [
        ({}, ANN, "proposal.author"),
        ({}, Signer("c" * 64, "Ann"), "proposal.author"),
        ({}, Signer(ANN.key, "carol"), "proposal.author"),
        ({"release": ""}, BOB, "proposal.release"),
        ({"outcome": "declined"}, BOB, "proposal.release"),
        ({"release": "d" * 64}, BOB, "proposal.release"),
    ],
)
def test_a_closing_by_an_owner_or_key_of_the_proposal_or_of_nothing_released_is_refused(
    changes: dict[str, str], signer: Signer, reason: str
) -> None:
    with refused(reason):
        check_closing(closing(HEADER, "d" * 64, **changes), [ANN], [signer], [Waiting("d" * 64, PROPOSAL)])
    check_closing(closing(HEADER, "d" * 64), [ANN], [BOB], [Waiting("d" * 64, PROPOSAL)])
