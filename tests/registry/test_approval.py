"""Registered is not approved; everybody who is left out is told why."""

from __future__ import annotations

from datetime import date
from typing import Any

from studbook.records import Blob, Header, ModelSource, ParentApproval, Rung, SourceManifest
from studbook.registry.approval import select_approved_parents

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
TODAY = date(2030, 6, 15)
BASE, ONE, TWO = "a" * 64, "b" * 64, "c" * 64


def manifest(name: str, artifact: str) -> tuple[str, SourceManifest]:
    source = ModelSource(
        label="f32",
        parameters=1,
        tokenizer_sha256="0" * 64,
        layout_sha256="0" * 64,
        base=None,
        trained_manifest=None,
        licence=None,
        data=(),
        claim=Rung.STRUCTURAL,
    )
    blob = Blob(sha256=artifact, size=1)
    return "d" * 64, SourceManifest(header=HEADER, name=name, artifact=blob, files=(), source=source, unsupported=())


SOURCES = {BASE: manifest("base", BASE), ONE: manifest("one", ONE), TWO: manifest("two", TWO)}


def approval(artifact: str, **changes: Any) -> ParentApproval:
    fields: dict[str, Any] = {"clusters": ("*",), "until": "2030-06-15", "reason": ""}
    fields |= changes
    return ParentApproval(header=HEADER, artifact=artifact, source="d" * 64, approved_by="ann", **fields)


def reasons(*approvals: ParentApproval) -> dict[str, str]:
    selection = select_approved_parents("rot", SOURCES, approvals, BASE, TODAY)
    assert {*selection.parents, *(e.artifact for e in selection.excluded)} == set(SOURCES)
    return {e.name: e.reason for e in selection.excluded}


def test_without_approvals_nobody_is_a_parent() -> None:
    assert reasons() == {
        "base": "is the shared base",
        "one": "is registered but nobody approved it as a parent",
        "two": "is registered but nobody approved it as a parent",
    }


def test_parents_stand_in_order_of_registration() -> None:
    selection = select_approved_parents("rot", SOURCES, [approval(TWO), approval(ONE)], BASE, TODAY)
    assert selection.parents == (ONE, TWO)


def test_an_approved_base_is_still_the_base() -> None:
    assert reasons(approval(BASE), approval(ONE), approval(TWO)) == {"base": "is the shared base"}


def test_an_approval_holds_through_its_last_day_and_no_longer() -> None:
    assert "one" not in reasons(approval(ONE, until="2030-06-15"))
    assert reasons(approval(ONE, until="2030-06-14"))["one"] == "its approval ended on 2030-06-14"


def test_an_approval_for_other_clusters_does_not_count() -> None:
    assert reasons(approval(ONE, clusters=("cap", "srt")))["one"] == "is approved for cap, srt only, not for rot"
    assert "one" not in reasons(approval(ONE, clusters=("cap", "rot")))


def test_the_newest_approval_counts_even_when_it_takes_away() -> None:
    assert "one" in reasons(approval(ONE), approval(ONE, clusters=("cap",)))
    assert "one" not in reasons(approval(ONE, until="2029-01-01"), approval(ONE))
