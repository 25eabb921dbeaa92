"""The pack a person reads before a promotion: what stands in it stands in the records, and nothing else happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from markdown_it import MarkdownIt

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, founder, lab_files, rewrite, run_cli, small_policy
from studbook import files
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.exchange.text import plain
from studbook.lab import Lab
from studbook.lab.review import Pack, Review
from studbook.lab.review.page import write_page
from studbook.lab.review.plot import draw
from studbook.lab.review.shown import number
from studbook.ledger import check_inclusion
from studbook.records import (
    CandidateManifest,
    ConfirmationRecord,
    PromotionTemplate,
    Root,
    Scorecard,
    ViabilityDecision,
    digest,
    replace,
)
from studbook.seal import peek

READER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
HOSTILE = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1)) | `y` |",
    "\x1b[31mred\x07\u202e",
    "=1+1 & <b>&lt;",
    "# a",
)


@pytest.fixture(scope="module")
def judged(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab after a round whose winner stands in shadow; read it, or copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("judged"))
    with place.open() as lab:
        assert lab.round(CLUSTER).released is not None
    return place


@pytest.fixture
def changed(judged: Place, tmp_path: Path) -> Iterator[Lab]:
    """A copy of it, opened for writing."""
    with judged.copy(tmp_path / "changed").open() as lab:
        yield lab


@pytest.fixture(scope="module")
def pack(judged: Place, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The pack of the winner, written without a key at hand."""
    folder = tmp_path_factory.mktemp("pack") / "review"
    with Lab(judged.path, folder.parent / "no-keys", writer=False) as lab:
        return lab.review_pack("shadow", folder)


@pytest.fixture(scope="module")
def reader(judged: Place) -> Iterator[Lab]:
    with judged.open(writer=False) as lab:
        yield lab


def decision(lab: Lab) -> ViabilityDecision:
    return next(r for _, r in lab.desk.all(ViabilityDecision))


def page(found: Pack) -> str:
    return (Path(found.folder) / "README.md").read_text(encoding="utf-8")


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# -- what stands in it -------------------------------------------------------------------------------------------


def test_what_others_report_stands_beside_the_scorecards_and_in_no_gate(changed: Lab, tmp_path: Path) -> None:
    before = changed.review_pack("shadow", tmp_path / "before")
    record = changed.suites.attach("shadow", "arc-easy", 0.875, "share", "the | authors, 25 shots", "their <b>card</b>")
    after = changed.review_pack("shadow", tmp_path / "after")
    assert before.review.reported == ()
    assert "reported by others" not in page(before)
    (figure,) = after.review.reported
    assert (figure.value, figure.unit, figure.basis, figure.record) == (0.875, "share", "reported", digest(record))
    (line,) = (line for line in page(after).splitlines() if digest(record)[:16] in line and "arc-easy" in line)
    assert "0.875" in line
    assert "<b>" not in line
    assert (after.review.gates, after.review.scores) == (before.review.gates, before.review.scores)
    assert f"records/{digest(record)}.json" in after.files


def test_every_comparison_of_the_pack_is_the_one_on_record(reader: Lab, pack: Pack) -> None:
    record, verdict = decision(reader), pack.review.verdict
    assert verdict is not None
    standing = next(s for s in record.standings if s.artifact == record.chosen)
    look = next(c for _, c in reader.desk.all(ConfirmationRecord))
    fields = ("test", "on", "items", "wins", "losses", "difference", "lower", "upper", "threshold", "p_value", "passed")
    shown = [(r.record, r.artifact, *(getattr(r, f) for f in fields)) for r in verdict.rows]
    recorded = [(digest(record), c.against, *(getattr(c, f) for f in fields)) for c in standing.comparisons]
    recorded += [(digest(look), c.against, *(getattr(c, f) for f in fields)) for c in look.comparisons]
    assert shown == recorded
    assert (verdict.decision, verdict.reasons, verdict.confirmed) == (digest(record), standing.reasons, True)
    assert (verdict.net_utility, verdict.nothing) == (standing.net_utility, record.no_op.reasons)
    text = page(pack)
    for row in verdict.rows:
        d, low, high = row.difference, row.lower, row.upper
        told = {
            "share": f"{100 * d:.2f} pp | {100 * low:.2f} to {100 * high:.2f} pp",
            "bytes": f"{round(d):,} bytes | {round(low):,} to {round(high):,} bytes",
            "brier-0-2": f"{d:.3f} Brier | {low:.3f} to {high:.3f} Brier",
            "utility": f"{d:.3f} utility | {low:.3f} to {high:.3f} utility",
        }
        for unit in ("decoded-bytes", "model-calls", "sealed-openings", "acts-of-people"):
            told[unit] = f"{round(d):,} {unit} | {round(low):,} to {round(high):,} {unit}"
        assert f"| {row.on} | {told[row.unit]} |" in text
    methods = text.split("bounds are one-sided:\n\n")[1].split("\n\n## 3.")[0].splitlines()
    assert len(methods) == len({row.method for row in verdict.rows}) < len(verdict.rows)
    for row in verdict.rows:
        named = [line for line in methods if line.endswith(f": {plain(row.method)}")]
        assert any(f"{row.test} on {row.on}" in line for line in named)


def test_every_score_is_counted_in_the_scorecard_it_names(reader: Lab, pack: Pack) -> None:
    seen = 0
    for line in pack.review.scores:
        assert line.role in ("development", "selection")
        assert [s.who for s in line.scores] == [
            "candidate", "champion", *(f"parent {p}" for p in PARENTS), "doing nothing",
        ]  # fmt: skip
        assert line.scores[1].figure == line.scores[-1].figure
        for score in line.scores:
            if score.figure is None:
                assert score.who.startswith("parent") and line.role == "development"
                continue
            card = reader.desk.scorecard(score.figure.record)
            assert card.artifact == score.artifact
            result = next(r for r in card.results if r.suite == score.figure.suites[0])
            if line.dimension == "task":
                assert score.figure.value == result.right / len(result.correct)
                assert score.figure.low < score.figure.high  # type: ignore[operator]
                assert "Clopper-Pearson" in score.figure.method
            low, high = score.figure.low, score.figure.high
            told = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
            assert f"| {score.figure.value:.3f}{told} |" in page(pack)
            seen += 1
    assert seen >= 24


def test_the_gates_are_those_on_record_and_only_the_person_is_missing(reader: Lab, pack: Pack) -> None:
    template = next(t for _, t in reader.desk.all(PromotionTemplate))
    shown = [(g.name, g.status, g.evidence, g.detail) for g in pack.review.gates if g.stage == "shadow"]
    assert shown == [(g.name, g.status, g.evidence, g.detail) for g in template.gates]
    open_ = [g for g in pack.review.gates if g.status != "passed"]
    assert [(g.stage, g.name, g.by) for g in open_] == [
        ("champion", name, f"a person: {PERSON}") for name in ("approvals", "person")
    ]
    assert open_[0].detail == "0 of 1 distinct owners: nobody; whoever promotes is one more"
    assert (pack.review.asked.people, pack.review.asked.needed) == ((PERSON,), 1)


def test_lineage_costs_and_the_way_back_are_those_of_the_records(reader: Lab, pack: Pack) -> None:
    review, record = pack.review, decision(reader)
    assert {f.artifact for f in review.lineage} == set(reader.desk.ancestry(review.artifact))
    child = review.lineage[0]
    assert (child.artifact, child.how, child.licence) == (review.artifact, "blend/1", "CC0-1.0")
    assert "strictest" in child.why and "CC0-1.0 (0)" in child.why
    card = reader.desk.scorecard(next(s.selection for s in record.standings if s.artifact == record.chosen) or "")
    assert tuple(c.candidate for c in review.costs) == card.cost
    assert all(c.champion is not None or c.candidate.unit == "multiply-adds" for c in review.costs)
    assert [(b.artifact, b.record, b.problem) for b in review.back] == [
        (record.champion, reader.desk.channels()["champion"].record, "")
    ]
    assert set(record.assumptions) <= set(review.assumptions)
    assert any(text.startswith("Safety") for text in review.untested)
    text = page(pack)
    assert "Latency: not measured" in text
    assert f"{review.size:,} bytes, in lab" in text
    assert f"of {review.reserve.capacity:,} bytes {review.reserve.minimum:,} have to stay free" in text
    whole = [c for c in card.cost if c.unit in ("bytes", "multiply-adds")]
    assert whole and all(f"| {c.unit} | {round(c.value):,} |" in text for c in whole)


def test_the_machine_readable_copy_says_the_same(pack: Pack) -> None:
    data = (Path(pack.folder) / "review.json").read_bytes()
    assert msgspec.json.decode(data, type=Review) == pack.review
    assert json.loads(data)["kind"] == "review/1"


def test_every_record_named_lies_there_sealed_and_no_sealed_scorecard_does(reader: Lab, pack: Pack) -> None:
    folder = Path(pack.folder) / "records"
    held = {p.stem for p in folder.iterdir()}
    assert held == {c.record for c in pack.review.records}
    for cited in pack.review.records:
        entry = reader.desk.workspace.entry(cited.record)
        assert entry is not None
        data = (folder / f"{cited.record}.json").read_bytes()
        assert data == reader.desk.workspace.record_path(entry).read_bytes()
        assert digest(peek(data, cited.kind)) == cited.record
    sealed = {d for d, c in reader.desk.all(Scorecard) if c.role == "sealed"}
    assert sealed == set(pack.review.withheld)
    assert not sealed & held
    verdict = pack.review.verdict
    assert verdict is not None
    named = {g.evidence for g in pack.review.gates if g.evidence} | {r.record for r in verdict.rows}
    named |= {f.record for f in pack.review.lineage} | {s.figure.record for li in pack.review.scores
                                                       for s in li.scores if s.figure}  # fmt: skip
    assert named <= held


def test_the_proofs_show_decision_and_template_to_somebody_without_the_lab(reader: Lab, pack: Pack) -> None:
    root = next(r for _, r in reader.desk.all(Root))
    assert {name for name, _ in pack.review.proofs} == {"manifest", "decision", "template"}
    for name, record in pack.review.proofs:
        proof = Path(pack.folder) / "proof" / f"{name}.proof"
        _, entry = check_inclusion(proof.read_bytes(), Path(f"{proof}.line").read_bytes(), root)
        assert entry.record == record
        assert digest(peek(Path(f"{proof}.record").read_bytes(), name)) == record


def test_both_pictures_have_a_row_for_every_number(pack: Pack) -> None:
    verdict = pack.review.verdict
    assert verdict is not None
    assert pack.review.plots == ("differences.svg", "scores.svg")
    for name, dots in (
        ("differences.svg", sum(r.unit in ("share", "brier-0-2", "utility") for r in verdict.rows)),
        ("scores.svg", sum(s.figure is not None for line in pack.review.scores for s in line.scores)),
    ):
        tree = ElementTree.fromstring((Path(pack.folder) / name).read_bytes())
        marks = [e for e in tree.iter() if e.tag.endswith("circle") or (e.tag.endswith("rect") and e.get("stroke"))]
        assert len(marks) == dots
        assert f"]({name})" in page(pack)


def test_the_same_lab_gives_the_same_bytes_and_is_not_written_to(judged: Place, pack: Pack, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in lab_files(judged)}
    with judged.open(writer=False) as lab:
        again = lab.review_pack(pack.review.artifact[:16], tmp_path / "again")
    assert again.files == pack.files
    for relative in pack.files:
        assert (tmp_path / "again" / relative).read_bytes() == (Path(pack.folder) / relative).read_bytes()
    assert {p: p.read_bytes() for p in lab_files(judged)} == before


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (-0.0, "0"), (0.7152, "0.715"), (1.0, "1.000"), (-0.0416, "-0.042"), (1.4512e-20, "1.45e-20"),
     (0.000061035, "6.1e-05"), (12.34567, "12.346"), (266307328.0, "266,307,328"), (-1234.5, "-1,234")],
)  # fmt: skip
def test_a_number_is_shown_with_as_many_digits_as_a_person_reads(value: float, told: str) -> None:
    assert number(value) == told


# -- whom it is about --------------------------------------------------------------------------------------------


def test_the_pack_of_a_loser_says_why_and_asks_nothing(reader: Lab, tmp_path: Path) -> None:
    loser = next(s for s in decision(reader).standings if s.action == "archive")
    found = reader.review_pack(loser.name, tmp_path / "loser")
    assert (found.review.situation, found.review.asked.command) == ("not-chosen", "")
    assert found.review.verdict is not None
    assert found.review.verdict.own == "archive"
    assert found.review.verdict.reasons == loser.reasons
    assert "--to champion --as" not in page(found)
    assert [g.name for g in found.review.gates if g.stage == "shadow"] == ["decision"]
    assert {n for n, _ in found.review.proofs} == {"manifest", "decision"}


def test_a_winner_that_left_shadow_is_asked_about_no_more(changed: Lab, tmp_path: Path) -> None:
    winner = changed.desk.channels()["shadow"].artifact
    assert winner is not None
    changed.rollback("shadow")
    found = changed.review_pack(winner[:12], tmp_path / "left")
    assert (found.review.situation, found.review.asked.command) == ("chosen", "")
    assert ("champion", "shadow", "failed") in [(g.stage, g.name, g.status) for g in found.review.gates]


def test_the_pack_of_a_first_champion_asks_for_a_signature_that_then_counts(tmp_path: Path) -> None:
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(tmp_path))
    with place.open() as lab:
        lab.register(founder("base"))
        bare = lab.review_pack("base", tmp_path / "bare").review
        assert ("approval", "pending") in [(g.name, g.status) for g in bare.gates]
        lab.approve("base", PERSON)
        found = lab.review_pack("base", tmp_path / "first")
        assert (found.review.situation, found.review.verdict, found.review.back) == ("first", None, ())
        assert [g.name for g in found.review.gates if g.status == "pending"] == ["runtime-smoke", "person"]
        assert found.review.judges.since is None
        words = found.review.asked.command.replace("NAME", PERSON).split()
        assert lab.release(words[2], words[4], words[6]).kind() == "champion-promotion/1"
        with pytest.raises(OutOfOrder, match="is the champion already"):
            lab.review_pack("base", tmp_path / "late")


def test_where_there_is_nothing_to_review_the_refusal_says_what_to_do(changed: Lab, tmp_path: Path) -> None:
    bred = changed.breed(CLUSTER, {"operator": "dare/1", "keep": 0.5, "scales": 0.3, "seed": 3, "skip": []})
    for name, reason in (
        ("champion", "review.champion"),
        (PARENTS[0], "review.source"),
        (bred, "review.undecided"),
    ):
        with pytest.raises(OutOfOrder) as caught:
            changed.review_pack(name, tmp_path / "none")
        assert caught.value.reason == reason
        assert caught.value.advice
    assert not (tmp_path / "none").exists()


# -- what changed, and what was lost -----------------------------------------------------------------------------


def test_a_changed_policy_key_and_revocation_stand_in_the_pack(changed: Lab, tmp_path: Path) -> None:
    _, policy = changed.desk.policy
    gates = msgspec.structs.replace(policy.gates, alpha=0.1)
    changed.desk.workspace.commit(replace(policy, policy_version=2, gates=gates), owner=PERSON)
    changed.keys.rotate(PERSON, "process/candidate/candidate")
    changed.keys.revoke(PARENTS[0], PERSON, HOSTILE[0])
    found = changed.review_pack("shadow", tmp_path / "review")
    told = [(c.field, c.what) for c in found.review.judges.policy]
    assert told == [("policy_version", "was 1, is 2"), ("gates.alpha", "was 0.2, is 0.1")]
    assert "| gates.alpha | was 0.2, is 0.1 |" in page(found)
    keys = {c.field: c.what for c in found.review.judges.keys}
    new = changed.desk.workspace.root
    old = next(r for _, r in changed.desk.all(Root))
    (come,), (gone,) = ([k.key for k in a.keys if k not in b.keys] for a, b in ((new, old), (old, new)))
    assert keys["root_version"] == "was 1, is 2"
    assert keys[f"keys.{come[:16]}"].startswith("is new: ") and PERSON in keys[f"keys.{come[:16]}"]
    assert keys[f"keys.{gone[:16]}"].endswith(", is gone")
    stale = [g for g in found.review.gates if g.name == "decided-against" and g.stage == "champion"]
    assert [g.status for g in stale] == ["failed"]
    assert {f.name for f in found.review.lineage if f.revoked} == {PARENTS[0], found.review.name}
    text = page(found)
    assert HOSTILE[0] not in text
    assert not markup(text)


def test_a_way_back_that_is_damaged_stands_in_the_pack(changed: Lab, tmp_path: Path) -> None:
    path = changed.desk.workspace.blob_path(changed.desk.champion())
    rewrite(path, path.read_bytes()[:-1])
    found = changed.review_pack("shadow", tmp_path / "review")
    assert "damaged" in found.review.back[0].problem
    assert "Nothing on the way back can be restored" in page(found)


def test_a_candidate_whose_bytes_are_damaged_is_not_offered_for_review(changed: Lab, tmp_path: Path) -> None:
    artifact = changed.desk.channels()["shadow"].artifact
    changed.desk.workspace.blob_path(str(artifact)).unlink()
    with pytest.raises(DigestDiffers) as caught:
        changed.review_pack("shadow", tmp_path / "review")
    assert caught.value.reason == "review.bytes"


def test_a_loser_whose_bytes_were_cleared_with_leave_still_has_its_pack(changed: Lab, tmp_path: Path) -> None:
    loser = next(s for s in decision(changed).standings if s.action == "archive")
    changed.gc()
    assert not changed.desk.workspace.blob_path(loser.artifact).exists()
    found = changed.review_pack(loser.name, tmp_path / "review")
    assert found.review.verdict is not None
    assert found.review.verdict.reasons == loser.reasons


# -- foreign text ------------------------------------------------------------------------------------------------


def markup(text: str) -> set[str]:
    """Markup of a page that is none of its own: HTML, links, and pictures but its two."""
    inner = [t for block in READER.parse(text) for t in (block.children or [block])]
    bad = {t.type for t in inner if t.type in ("html_inline", "html_block", "link_open", "s_open")}
    pictures = {str(t.attrs["src"]) for t in inner if t.type == "image"}
    return bad | (pictures - {"differences.svg", "scores.svg"})


def spoil(value: Any, text: str) -> Any:
    """Every text of a review that is no digest and no fixed word, replaced."""
    if isinstance(value, str):
        fixed = len(value) == 64 or value in ("differences.svg", "scores.svg", "observed", "estimated", "reported")
        return value if fixed else text
    if isinstance(value, tuple):
        return tuple(spoil(v, text) for v in value)
    if isinstance(value, msgspec.Struct):
        keep = ("command", "situation", "status", "unit", "threshold_of", "time", "stage")
        fields = {f: getattr(value, f) for f in value.__struct_fields__}
        return type(value)(**{f: v if f in keep else spoil(v, text) for f, v in fields.items()})
    return value


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_never_becomes_markup_in_a_pack(pack: Pack, text: str) -> None:
    found = write_page(spoil(pack.review, text)).decode()
    assert not markup(found)
    assert "\x1b" not in found and "\u202e" not in found
    own = [t.tag for t in READER.parse(page(pack)) if t.type == "heading_open"]
    assert [t.tag for t in READER.parse(found) if t.type == "heading_open"] == own


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_never_becomes_markup_in_a_picture(pack: Pack, text: str) -> None:
    own = draw(pack.review)
    for name, data in draw(spoil(pack.review, text)).items():
        tags = [e.tag for e in ElementTree.fromstring(data).iter()]
        assert tags == [e.tag for e in ElementTree.fromstring(own[name]).iter()]
        assert b"\x1b" not in data


def test_a_name_that_drives_a_terminal_is_refused_harmlessly(judged: Place, tmp_path: Path) -> None:
    place = Place(judged.path, tmp_path / "no-keys")
    done = run_cli(place, "review-pack", "\x1b]0;x\x07<b>", "-o", str(tmp_path / "review"))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr and "is not the name of a model here" in done.stderr
    shown = run_cli(place, "review-pack", "shadow", "-o", str(tmp_path / "review"))
    assert shown.returncode == 0, shown.stderr
    assert "become the champion?" in shown.stdout
    assert (tmp_path / "review" / "README.md").is_file()


# -- where it is written -----------------------------------------------------------------------------------------


def test_a_folder_that_is_taken_or_cannot_be_is_refused(judged: Place, reader: Lab, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty", target_is_directory=True)
    (tmp_path / "empty").mkdir()
    before = left(tmp_path)
    for name in ("full", "file", "link", "missing/review"):
        with pytest.raises(UsageError) as caught:
            reader.review_pack("shadow", tmp_path / name)
        assert caught.value.reason == "usage.folder"
    with pytest.raises(UsageError, match="lies in the lab"):
        reader.review_pack("shadow", judged.path / "review")
    assert left(tmp_path) == before
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    assert reader.review_pack("shadow", tmp_path / "empty").files


@pytest.mark.parametrize("step", ["create README.md", "create decision.proof", "sync folder records", "rename review"])
def test_a_pack_that_is_interrupted_leaves_nothing(
    reader: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    met = []

    def cut(found: str) -> None:
        if found == step:
            met.append(found)
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "boundary", cut)
    with pytest.raises(KeyboardInterrupt):
        reader.review_pack("shadow", tmp_path / "review")
    assert met
    assert left(tmp_path) == []


def test_a_lab_that_cannot_be_read_gives_no_pack(judged: Place, tmp_path: Path) -> None:
    place = judged.copy(tmp_path / "torn")
    with place.open(writer=False) as lab:
        artifact = lab.desk.channels()["shadow"].artifact
        digest_ = next(d for d, m in lab.desk.all(CandidateManifest) if m.artifact.sha256 == artifact)
        entry = lab.desk.workspace.entry(digest_)
        assert entry is not None
        path = lab.desk.workspace.record_path(entry)
    rewrite(path, path.read_bytes().replace(b'"payload":"', b'"payload":"A'))
    with place.open(writer=False) as lab, pytest.raises(StudbookError) as caught:
        lab.review_pack(str(artifact)[:12], tmp_path / "review")
    assert str(path) in caught.value.where
    shutil.rmtree(place.path)
    with pytest.raises(StudbookError):
        place.open(writer=False)
    assert left(tmp_path) == ["torn"]
