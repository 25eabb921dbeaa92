"""The rules of packages, without a lab: who fits, what each may do, what requires what, and how a life goes."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from package_fixtures import artifact, contract, event, package, sha
from studbook.errors import DigestDiffers, OutOfOrder, OutsideAllowlist, OverBudget, RecordRefused, StudbookError
from studbook.records import Blob, SkillPackage, digest, write_record
from studbook.runtime.packages import (
    MOVES,
    PERMISSIONS,
    check_move,
    examine,
    lives,
    needed,
    permitted,
    require,
    version_key,
)
from studbook.runtime.schemas import feeds

SETS = st.sets(st.sampled_from(PERMISSIONS))
# The order that the specification itself gives, section 11.
PRECEDENCE = "0.9.9 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.2.0 1.10.0"


def refusal(held: SkillPackage, found: Any = None, agreed: Any = None, installed: Any = None) -> StudbookError:
    with pytest.raises(StudbookError) as caught:
        require(examine(held, found or artifact(), agreed or contract(), installed or {}), held.id)
    return caught.value


def test_a_package_that_says_what_its_bytes_say_fits():
    rows = examine(package(), artifact(), contract(), {})
    assert all(row.passed for row in rows)
    require(rows, "rot")


@pytest.mark.parametrize(
    ("found", "kind", "reason"),
    [
        ({"sha256": sha("another model")}, DigestDiffers, "package.artifact"),
        ({"size": 1001}, DigestDiffers, "package.artifact"),
        ({"stack": (sha("adapter"),)}, DigestDiffers, "package.artifact"),
        ({"tokenizer": sha("another tokenizer")}, DigestDiffers, "package.tokenizer"),
        ({"base": None}, DigestDiffers, "package.base"),
        ({"engine": sha("another engine")}, OutOfOrder, "package.engine"),
        ({"abi": 2}, OutOfOrder, "package.engine"),
        ({"licence": "MIT"}, DigestDiffers, "package.licence-fits"),
        ({"stack_bytes": 1}, DigestDiffers, "package.says-files"),
        ({"decoded_bytes": 4001}, DigestDiffers, "package.says-weights"),
    ],
)
def test_bytes_that_are_not_those_of_the_package_are_refused(found, kind, reason):
    error = refusal(package(), artifact(**found))
    assert (type(error), error.reason) == (kind, reason)
    assert error.advice


@pytest.mark.parametrize(
    ("agreed", "kind", "reason"),
    [
        ({"licences": ("MIT",)}, OutsideAllowlist, "package.licence"),
        ({"permissions": ("answer",)}, OutsideAllowlist, "package.permissions"),
        ({"maximum_bytes": 999}, OverBudget, "package.bytes"),
        ({"maximum_decoded_bytes": 3999}, OverBudget, "package.decoded-bytes"),
    ],
)
def test_what_the_contract_does_not_allow_is_refused(agreed, kind, reason):
    error = refusal(package(), agreed=contract(**agreed))
    assert (type(error), error.reason) == (kind, reason)


def test_a_permission_that_nobody_knows_is_refused_even_where_a_contract_names_it():
    error = refusal(package(permissions=("answer", "fly")), agreed=contract(permissions=("answer", "fly")))
    assert error.reason == "package.permissions"
    assert "fly" in error.message


def test_an_older_or_equal_version_never_comes_over_a_newer_one():
    newer = package(version="1.2.0")
    for version in ("1.2.0", "1.1.9", "1.2.0-rc.1"):
        assert refusal(package(version=version), installed={"rot": newer}).reason == "package.version"
    require(examine(package(version="1.10.0"), artifact(), contract(), {"rot": newer}), "rot")


@pytest.mark.parametrize("instead", ["rot", "nobody"])
def test_what_is_asked_instead_is_another_package_that_is_there(instead):
    assert refusal(package(fallback=instead)).reason == "package.fallback"
    require(examine(package(fallback="odd"), artifact(), contract(), {"odd": package("odd")}), "rot")


def test_versions_have_the_precedence_of_the_specification():
    for lower, higher in pairwise(PRECEDENCE.split()):
        assert version_key(lower) < version_key(higher), (lower, higher)


@given(SETS, SETS, SETS, SETS)
def test_what_is_granted_is_the_intersection_and_the_rest_names_who_withholds_it(asked, agreed, offered, wanted):
    held, terms = package(permissions=tuple(sorted(asked))), contract(permissions=tuple(sorted(agreed)))
    found = permitted(held, terms, offered, wanted)
    assert set(found.granted) == asked & agreed & offered & wanted
    assert set(found.granted) | found.withheld.keys() == asked
    for name, by in found.withheld.items():
        sets = {"contract": agreed, "environment": offered, "task": wanted}
        assert set(by) == {who for who, allowed in sets.items() if name not in allowed}


def test_a_refusal_names_whoever_withholds_the_permission():
    found = permitted(package(), contract(permissions=("answer",)), ("answer", "stream"), ("answer",))
    found.demand("answer", "rot")
    with pytest.raises(OutsideAllowlist, match="withheld by contract and task"):
        found.demand("stream", "rot")
    with pytest.raises(OutsideAllowlist, match="withheld by package"):
        found.demand("committee", "rot")


def test_requirements_come_before_whoever_requires_them():
    known = {"b": package("b", requires=("c",)), "c": package("c"), "d": package("d")}
    assert needed(package("a", requires=("d", "b")), known) == ("d", "c", "b")


def test_what_requires_itself_through_others_is_refused_with_the_whole_circle():
    known = {"b": package("b", requires=("c",)), "c": package("c", requires=("a",))}
    with pytest.raises(OutOfOrder, match="a -> b -> c -> a") as caught:
        needed(package("a", requires=("b",)), known)
    assert caught.value.reason == "package.cycle"
    with pytest.raises(OutOfOrder, match="a -> a"):
        needed(package("a", requires=("a",)), {})


def test_a_missing_requirement_names_who_requires_it():
    with pytest.raises(OutOfOrder, match="requires c, which is not installed") as caught:
        needed(package("a", requires=("b",)), {"b": package("b", requires=("c",))})
    assert (caught.value.where, caught.value.reason) == ("b", "package.requires")


@pytest.mark.parametrize(("before", "after"), list(product(MOVES, [state for state in MOVES if state])))
def test_a_life_goes_only_where_the_table_says(before, after):
    if after in MOVES[before]:
        check_move(before, after, "rot")
        return
    with pytest.raises(OutOfOrder) as caught:
        check_move(before, after, "rot")
    assert caught.value.reason == "package.state"
    assert caught.value.advice


def test_every_state_is_reached_and_only_retirement_is_an_end():
    reached, pending = set(), [None]
    while pending:
        for after in MOVES[pending.pop()]:
            if after not in reached:
                reached.add(after)
                pending.append(after)
    assert reached == {state for state in MOVES if state}
    assert [state for state, ways in MOVES.items() if not ways] == ["retired"]


def test_a_replay_passes_over_what_does_not_follow():
    held = package()
    first = event(held, None, "installed", None)
    second = event(held, "installed", "verified", first[0])
    forged = event(held, "installed", "retired", first[0])
    skips = event(held, "verified", "active", second[0])
    third = event(held, "verified", "suspended", second[0])
    life = lives([first, second, forged, skips, third])[digest(held)]
    assert (life.state, life.event) == ("suspended", third[0])
    assert lives([second]) == {}


@pytest.mark.parametrize("name", ["<b>rot</b>", "Rot", "../rot", "rot\n", "rot odd", "", "a" * 64, "-rot", "rot/odd"])
def test_an_id_is_plain_or_no_record(name):
    with pytest.raises(RecordRefused):
        write_record(package(name))


@pytest.mark.parametrize("version", ["1", "1.0", "01.0.0", "1.0.0+build", "v1.0.0", "1.0.0-", "1.0.0\n", "1.0.0-a..b"])
def test_a_version_is_semantic_or_no_record(version):
    with pytest.raises(RecordRefused):
        write_record(package(version=version))


def test_a_revision_follows_every_field():
    changed = [package(version="1.0.1"), package(clusters=("odd",)), package(artifact=Blob(sha256=sha("x"), size=1000))]
    assert len({digest(p) for p in (package(), *changed)}) == 4


@pytest.mark.parametrize(
    ("output", "into", "why"),
    [
        ({"type": "string"}, {"type": "string"}, ""),
        ({"type": "string", "maxLength": 10}, {"type": "string", "maxLength": 20}, ""),
        ({"type": "string", "maxLength": 30}, {"type": "string", "maxLength": 20}, "maxLength"),
        ({"type": "string"}, {"type": "string", "maxLength": 20}, "nothing is said of maxLength"),
        ({"type": "string", "enum": ["a"]}, {"enum": ["a", "b"]}, ""),
        ({"type": "string"}, {"type": "object"}, "type is"),
        ({"type": ["string", "null"]}, {"type": "string"}, "type is"),
        ({"type": "string", "pattern": "^a$"}, {"pattern": "^b$"}, "pattern"),
        ({"type": "string"}, {"type": "string", "title": "anything"}, ""),
    ],
)
def test_what_is_written_feeds_only_what_reads_all_of_it(output, into, why):
    found = feeds(output, into)
    assert (found == "") == (why == "")
    assert why in found
