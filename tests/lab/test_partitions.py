"""Which specialist answers for what: disjoint, covered, overlapping by the items, and changed by one step at a time."""

from __future__ import annotations

import pytest
from msgspec import structs

from lab_fixtures import BLEND, PERSON, Place, problems, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.packages import Wanted
from studbook.lab.partitions import check_partition
from studbook.records import ExpertPartition, Scorecard, SkillPackage, digest, replace
from studbook.runtime.partition import Ground, Member, divide, merge, no_worse

SKILLS = ("cap", "rot", "odd")


def declared(lab: Lab) -> ExpertPartition:
    return lab.partitions.declare({"rot": ["rot"], "odd": ["odd"]}, "two skills, two specialists")[1]


def add(lab: Lab, name: str, model: str, *clusters: str) -> None:
    lab.packages.make(name, model, Wanted(version="1.0.0", clusters=clusters))
    lab.packages.install(name)


def member(lab: Lab, expert_id: str) -> Member:
    expert = next(e for e in lab.partitions.show()[1].experts if e.id == expert_id)
    package = lab.desk.workspace.get(expert.package, SkillPackage)
    return Member(package, lab.desk.scorecard(expert.scorecard), expert.clusters)


@pytest.fixture(scope="module")
def divided_lab(packaged_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The lab with packages, divided between the two; a third, bred for that, that may answer for both."""
    place = packaged_lab.copy(tmp_path_factory.mktemp("divided"))
    with place.open() as lab:
        declared(lab)
        child = lab.round("rot", [BLEND], scope=("rot", "odd")).record.chosen
        assert child
        lab.policies.route("blend/1", PERSON)
        add(lab, "both", child, "odd", "rot")
        add(lab, "lame", "cap-rot", "odd", "rot")
    return place


def test_a_partition_says_what_is_covered_and_who_answers_alike(divided_lab: Place):
    with divided_lab.open(writer=False) as lab:
        name, record = lab.partitions.show()
        assert [(e.id, e.clusters) for e in record.experts] == [("odd", ("odd",)), ("rot", ("rot",))]
        assert set(record.labels) == set(SKILLS)
        assert (record.uncovered, record.coverage) == (("cap",), round(2 / 3, 9))
        (overlap,) = record.overlaps
        first, second = (lab.desk.scorecard(e.scorecard).tasks() for e in record.experts)
        pairs = [(a, b) for k in record.labels for a, b in zip(first[k].correct, second[k].correct, strict=True)]
        assert overlap.items == len(pairs)
        assert overlap.both_right == pairs.count(("1", "1"))
        assert overlap.neither == pairs.count(("0", "0"))
        assert (overlap.first_only, overlap.second_only) == (pairs.count(("1", "0")), pairs.count(("0", "1")))
        assert overlap.agreement == round((overlap.both_right + overlap.neither) / overlap.items, 9)
        assert digest(record) == name
    assert problems(divided_lab) == []


def test_what_is_not_disjoint_or_beyond_a_package_is_refused(divided_lab: Place, tmp_path):
    with divided_lab.copy(tmp_path).open() as lab:
        asked = [
            {"rot": ["rot"], "both": ["rot", "odd"]},
            {"rot": ["odd"]},
            {"rot": []},
            {},
            {"nobody": ["rot"]},
        ]
        for experts in asked:
            with pytest.raises(UsageError):
                lab.partitions.declare(experts)
        assert len(list(lab.desk.all(ExpertPartition))) == 1


def test_a_package_that_was_put_aside_is_no_specialist(divided_lab: Place, tmp_path):
    with divided_lab.copy(tmp_path).open() as lab:
        lab.packages.suspend("rot")
        with pytest.raises(UsageError):
            declared(lab)


def test_a_merge_and_a_split_name_the_partition_before_and_are_derived_again(divided_lab: Place, tmp_path):
    place = divided_lab.copy(tmp_path)
    with place.open() as lab:
        first, _ = lab.partitions.show()
        second, merged = lab.partitions.merge("odd", "rot", "both", "one is enough")
        assert (merged.made_by, merged.previous) == ("merge", first)
        assert [(e.id, e.clusters) for e in merged.experts] == [("both", ("odd", "rot"))]
        assert [(c.on, c.passed) for c in merged.comparisons] == [("odd", True), ("rot", True)]
        third, divided = lab.partitions.split("both", {"odd": ["odd"], "both": ["rot"]}, "each its own again")
        assert (divided.made_by, divided.previous) == ("split", second)
        assert lab.partitions.show()[0] == third
    assert problems(place) == []


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("rot", {"rot": ["rot"], "both": ["odd"]}),
        ("nobody", {"rot": ["rot"], "odd": ["odd"]}),
        ("rot", {"both": ["rot"]}),
    ],
)
def test_a_split_shares_out_exactly_one_specialists_clusters(divided_lab: Place, tmp_path, whole, parts):
    with divided_lab.copy(tmp_path).open() as lab:
        with pytest.raises(StudbookError) as caught:
            lab.partitions.split(whole, parts)
        assert caught.value.reason in ("partition.split", "partition.clusters")


def test_a_merge_of_what_is_no_pair_is_refused(divided_lab: Place, tmp_path):
    with divided_lab.copy(tmp_path).open() as lab:
        for first, second in (("rot", "rot"), ("rot", "nobody"), ("both", "rot")):
            with pytest.raises((OutOfOrder, UsageError)):
                lab.partitions.merge(first, second, "both")


def worse(card: Scorecard, label: str) -> Scorecard:
    """The same scorecard with every item of a task wrong."""
    results = tuple(
        structs.replace(r, correct="0" * len(r.correct)) if (r.dimension, r.cluster) == ("task", label) else r
        for r in card.results
    )
    return replace(card, results=results)


def test_a_merge_that_is_worse_on_one_side_is_refused(divided_lab: Place):
    with divided_lab.open(writer=False) as lab:
        _, before = lab.partitions.show()
        rot, odd = member(lab, "rot"), member(lab, "odd")
        both = next(p for _, p in lab.desk.all(SkillPackage) if p.id == "both")
        ground = Ground(before.header, before.suites, before.labels, 0.05, 0.1, "")
        own = replace(rot.card, artifact=both.artifact.sha256)
        lame = Member(both, worse(own, "rot"), ("odd", "rot"))
        rows = no_worse(ground, lame, rot.card, ("rot",))
        assert [row.passed for row in rows] == [False]
        assert rows[0].lower < -0.1
        with pytest.raises(OutOfOrder, match=r"not shown to be no worse on .*rot") as caught:
            merge(ground, before, [lame], ("odd", "rot"), (odd.card, rot.card))
        assert caught.value.reason == "partition.merge"


def test_a_real_package_that_is_worse_takes_nobodys_place(divided_lab: Place, tmp_path):
    with divided_lab.copy(tmp_path).open() as lab:
        with pytest.raises(OutOfOrder, match="lame is not shown to be no worse on odd"):
            lab.partitions.merge("odd", "rot", "lame")
        assert [e.id for e in lab.partitions.show()[1].experts] == ["odd", "rot"]


def test_scorecards_of_another_model_or_role_are_refused(divided_lab: Place):
    with divided_lab.open(writer=False) as lab:
        _, before = lab.partitions.show()
        ground = Ground(before.header, before.suites, before.labels, 0.05, 0.1, "")
        rot, odd = member(lab, "rot"), member(lab, "odd")
        for lie in ({"role": "development"}, {"evaluator": "0" * 64}):
            with pytest.raises(DigestDiffers):
                divide(ground, [rot, odd._replace(card=replace(odd.card, **lie))])
        with pytest.raises(DigestDiffers):
            divide(ground, [rot, odd._replace(card=rot.card)])


def test_a_forged_partition_is_refused_by_verify(divided_lab: Place, tmp_path):
    place = divided_lab.copy(tmp_path)
    with place.open() as lab:
        _, record = lab.partitions.show()
        lies = [
            replace(record, coverage=1.0, uncovered=()),
            replace(record, overlaps=()),
            replace(record, made_by="split", previous=digest(record)),
            replace(record, experts=record.experts[:1]),
        ]
        for lie in lies:
            with pytest.raises(StudbookError):
                check_partition(lab.desk, lie)
        lab.desk.workspace.commit(lies[0])
    assert any("expert-partition" in where for where in problems(place))


def test_the_command_line_declares_and_shows(divided_lab: Place, tmp_path):
    place = divided_lab.copy(tmp_path)
    done = run_cli(place, "partition", "declare", "rot=rot", "odd=odd", "--reason", "again")
    assert done.returncode == 0, done.stderr
    assert "covers 67% of 3 clusters" in done.stdout
    assert "the champion answers for cap" in run_cli(place, "partition", "show").stdout
    assert run_cli(place, "partition", "merge", "odd", "rot", "--into", "both").returncode == 0
    assert run_cli(place, "partition", "split", "both", "odd=odd", "rot=rot").returncode == 0
    assert run_cli(place, "partition", "declare", "rot").returncode == 2
