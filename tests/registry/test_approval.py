"""Registered is not approved; everybody who is left out is told why."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from studbook.errors import OutOfOrder
from studbook.records import Blob, Header, ModelSource, ParentApproval, Rung, SourceManifest, replace
from studbook.registry.approval import require_approved, select_approved_parents, unapproved

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


def missing(*approvals: ParentApproval, cluster: str = "rot", deployed: tuple[str, ...] = ()) -> dict[str, str]:
    return {e.name: e.reason for e in unapproved(cluster, SOURCES, approvals, TODAY, deployed)}


def test_a_base_needs_an_approval_as_every_parent_does() -> None:
    assert missing(approval(ONE), approval(TWO)) == {"base": "is registered but nobody approved it as a parent"}
    assert missing(approval(BASE), approval(ONE), approval(TWO)) == {}


def test_an_approval_for_another_cluster_or_an_ended_one_or_of_another_registration_is_none() -> None:
    others = (approval(ONE), approval(TWO))
    assert missing(*others, approval(BASE, clusters=("cap",)))["base"] == "is approved for cap only, not for rot"
    assert missing(*others, approval(BASE, until="2030-06-14"))["base"] == "its approval ended on 2030-06-14"
    again = replace(approval(BASE), source="e" * 64)
    assert missing(*others, again)["base"] == "was registered again since it was approved"


def test_what_is_deployed_may_have_its_approval_in_its_history_but_must_have_one() -> None:
    others = (approval(ONE), approval(TWO))
    for old in (approval(BASE, clusters=("cap",)), approval(BASE, until="2029-01-01")):
        assert missing(*others, old, deployed=(BASE,)) == {}
        assert "base" in missing(*others, old, deployed=(ONE,))
    assert missing(*others, deployed=(BASE,)) == {"base": "is registered but nobody approved it as a parent"}


def test_work_for_no_cluster_asks_for_an_approval_for_all_of_them() -> None:
    others = (approval(ONE), approval(TWO))
    assert missing(*others, approval(BASE), cluster="any cluster") == {}
    assert "base" in missing(*others, approval(BASE, clusters=("rot",)), cluster="any cluster")


def test_the_refusal_names_the_source_and_who_can_change_that() -> None:
    require_approved("rot", SOURCES, [approval(a) for a in SOURCES], TODAY)
    with pytest.raises(OutOfOrder, match="one is registered but nobody approved it") as caught:
        require_approved("rot", SOURCES, [approval(BASE), approval(TWO)], TODAY)
    assert caught.value.reason == "order.approval"
    assert caught.value.where == f"source {ONE[:16]}"
    assert caught.value.advice == "A person approves it: studbook approve one --as PERSON"
