"""What the ledger answers about the past, and that the index behind it is never trusted."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from lab_fixtures import PARENTS, PERSON, Place, rewrite, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.lab.history import moment
from studbook.lab.index import Index
from studbook.ledger import check_inclusion
from studbook.records import Scorecard
from studbook.seal import peek


def champion_moves(lab: Lab) -> list[tuple[str, str]]:
    """Time and artifact of every move of the champion, from the records themselves."""
    kinds = ("champion-promotion/1", "rollback-record/1")
    entries = [e for e in lab.desk.entries() if e.record_kind in kinds]
    return [(e.time, lab.show(e.record)[0][1].subjects()[0]) for e in entries]


def test_the_log_is_the_ledger_and_every_filter_keeps_what_it_says(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        entries = lab.desk.entries()
        assert [row.sequence for row in lab.log()] == [e.sequence for e in entries]
        cards = lab.log(["scorecard"])
        assert {row.record for row in cards} == {e.record for e in entries if e.record_kind == Scorecard.kind()}
        assert {row.zone for row in lab.log(zone="release")} == {"release"}
        half = entries[len(entries) // 2]
        assert [r.sequence for r in lab.log(since=half.time)] == [e.sequence for e in entries if e.time >= half.time]
        base = lab.desk.find_model("base")
        shown = {e.sequence for e, _ in lab.show("base")}
        assert shown <= {row.sequence for row in lab.log(about="base")}
        assert any("base" in row.about for row in lab.log(about=base))


@pytest.mark.parametrize(
    ("how", "where"),
    [({"kinds": ["nonsense"]}, "--kind"), ({"zone": "moon"}, "--zone"), ({"since": "soon"}, "--since")],
)
def test_a_filter_that_means_nothing_is_refused_with_its_name(
    lived_lab: Place, how: dict[str, object], where: str
) -> None:
    with lived_lab.open(writer=False) as lab, pytest.raises(UsageError) as caught:
        lab.log(**how)  # type: ignore[arg-type]
    assert caught.value.where == where


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00+10:00", "2026-01-01T25"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a moment"):
        moment(text, "TIME")


def test_a_day_means_its_end_when_asked_what_was_and_its_begin_when_asked_since() -> None:
    assert moment("2026-07-14", "TIME").isoformat() == "2026-07-14T23:59:59.999999+00:00"
    assert moment("2026-07-14", "--since").isoformat() == "2026-07-14T00:00:00+00:00"
    assert moment("2026-07-14T09:30+02:00", "TIME").isoformat() == "2026-07-14T07:30:00+00:00"


def test_at_says_for_every_move_who_was_champion_then(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        moves = champion_moves(lab)
        assert len(moves) == 3
        for time, artifact in moves:
            found = {c.channel: c for c in lab.at(time).channels}
            assert found["champion"].artifact == artifact
            assert found["champion"].since == time
        before = lab.desk.entries()[0].time
        assert {c.artifact for c in lab.at(before).channels} == {None}
        with pytest.raises(UsageError, match="before the lab"):
            lab.at("2001-01-01")


def test_the_proof_of_a_champion_is_checked_without_the_lab(lived_lab: Place, tmp_path: Path) -> None:
    with lived_lab.open(writer=False) as lab:
        time, artifact = champion_moves(lab)[1]
        found = lab.at(time, tmp_path / "proof")
        root = lab.desk.workspace.root
        assert found.proof == tuple(str(tmp_path / f"proof{end}") for end in ("", ".line", ".record"))
        with pytest.raises(UsageError, match="exists already"):
            lab.at(time, tmp_path / "proof")
        with pytest.raises(OutOfOrder, match="never moved"):
            lab.at(lab.desk.entries()[0].time, tmp_path / "other")
    proof, line = (tmp_path / "proof").read_bytes(), (tmp_path / "proof.line").read_bytes()
    _, entry = check_inclusion(proof, line, root)
    record = peek((tmp_path / "proof.record").read_bytes(), "proof.record")
    assert (entry.time, record.subjects()) == (time, (artifact,))
    with pytest.raises(DigestDiffers):
        check_inclusion(proof, line.replace(b'"', b" ", 1), root)
    assert not (tmp_path / "other").exists()


def test_descendants_are_everything_bred_from_it_at_any_depth(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        bred = {m.artifact.sha256 for _, m in lab.desk.candidates()}
        for name in ("base", PARENTS[0]):
            artifact = lab.desk.find_model(name)
            expected = {a for a in bred if artifact in lab.desk.founders_of(a)}
            found = {d.artifact: d for d in lab.descendants(name)}
            assert expected
            assert found.keys() & bred == expected
        below = {d.artifact: d for d in lab.descendants("base")}
        assert below[lab.desk.find_model(PARENTS[0])].depth == 1
        assert max(d.depth for d in below.values()) > 1
        source = lab.desk.registered()[lab.desk.find_model(PARENTS[0])][1].source
        assert source.data
        assert PARENTS[0] in {d.name for d in lab.descendants(source.data[0])}
        with pytest.raises(UsageError, match="names no model"):
            lab.descendants()


def test_what_descends_from_something_revoked_is_listed(new_lab: Place) -> None:
    with new_lab.open() as lab:
        lab.round("rot")
        assert lab.descendants(revoked=True) == ()
        lab.keys.revoke(what=PARENTS[0], person=PERSON, reason="its data were not free")
        found = lab.descendants(revoked=True)
        assert {d.artifact for d in found} == {d.artifact for d in lab.descendants(PARENTS[0])}
        assert found
        assert {d.artifact for d in lab.descendants("base", revoked=True)} >= {d.artifact for d in found}
        assert next(d for d in lab.descendants("base") if d.name == PARENTS[0]).revoked


def test_an_index_is_continued_and_one_that_differs_is_built_anew(old_lab: Place) -> None:
    with old_lab.open() as lab:
        first = Index(lab.desk)
        entries = len(lab.desk.entries())
        assert first.kept == 0
        assert Index(lab.desk).kept == entries
        lab.ready()
        assert Index(lab.desk).kept == entries
        whole = first.path.read_bytes()
        expected = [e.sequence for e in Index(lab.desk).log([], "", [], "")]
    base = sqlite3.connect(first.path)
    with base:
        base.execute("UPDATE built SET root = ?", ("0" * 64,))
    base.close()
    for data in (first.path.read_bytes(), b"", b"not a database", whole[: len(whole) // 2], bytes(len(whole))):
        rewrite(first.path, data)
        with old_lab.open(writer=False) as lab:
            found = Index(lab.desk)
            assert found.kept == 0
            assert [e.sequence for e in found.log([], "", [], "")] == expected


def test_what_a_forged_index_adds_is_not_believed(old_lab: Place) -> None:
    (old_lab.path / "cache").mkdir(exist_ok=True)
    with old_lab.open(writer=False) as lab:
        path = Index(lab.desk).path
        honest = lab.descendants("base")
        stranger = lab.desk.find_model(PARENTS[0])
        child = honest[-1].artifact
        base = sqlite3.connect(path)
        with base:
            base.execute("INSERT INTO births VALUES (3, ?, ?)", ("f" * 64, lab.desk.find_model("base")))
            base.execute("INSERT INTO births VALUES (99999, ?, ?)", (child, stranger))
            base.execute("INSERT INTO entries VALUES (99999, '9', 'scorecard/1', 'evaluation', 'x', 0)")
        base.close()
        assert lab.descendants("base") == honest
        assert len(lab.log()) == len(lab.desk.entries())


def test_a_link_in_the_place_of_the_index_is_replaced_and_never_followed(old_lab: Place, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    cache = old_lab.path / "cache"
    cache.mkdir(exist_ok=True)
    (cache / "index.sqlite").symlink_to(tmp_path / "kept")
    with old_lab.open(writer=False) as lab:
        assert len(lab.log()) == len(lab.desk.entries())
    assert (tmp_path / "kept").read_text() == "kept"
    assert not (cache / "index.sqlite").is_symlink()


def test_an_audit_says_what_made_and_judged_a_child_and_what_must_be_kept(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        _, manifest = lab.desk.candidates()[0]
        found = lab.audit(manifest.name)
        assert found.made is not None
        assert found.made.receipt == manifest.receipt
        assert found.made.operator == "blend/1"
        assert found.made.environment == lab.desk.header.environment
        assert {j.role for j in found.judged} >= {"development", "selection"}
        kept = {k.sha256: k for k in found.keep}
        for name in ("base", *PARENTS):
            assert not kept[lab.desk.find_model(name)].recomputable
        assert kept[found.artifact].recomputable
        assert all(k.here and lab.desk.workspace.blob_path(k.sha256).stat().st_size == k.size for k in found.keep)
        assert any("numeric contract" in text for text in found.assumptions)
        source = lab.audit("base")
        assert source.made is None
        assert any("producer's word" in text for text in source.assumptions)


def test_the_verbs_print_pages_and_json(lived_lab: Place) -> None:
    calls = [["log", "--about", "base"], ["at", "2100-01-01"], ["descendants", "base"], ["audit", "champion"]]
    for words in calls:
        page = run_cli(lived_lab, *words)
        assert page.returncode == 0, page.stderr
        assert "base" in page.stdout
        assert json.loads(run_cli(lived_lab, "--json", *words).stdout)
    refused = run_cli(lived_lab, "descendants", "nobody")
    assert refused.returncode == 2
    assert "what to do" in refused.stderr


def test_a_lab_that_cannot_be_written_to_is_asked_all_the_same(old_lab: Place) -> None:
    cache = old_lab.path / "cache"
    if cache.is_dir():
        for path in sorted(cache.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        cache.rmdir()
    with old_lab.open(writer=False) as lab:
        assert len(lab.log()) == len(lab.desk.entries())
    assert not os.path.lexists(cache)
