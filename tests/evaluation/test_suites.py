"""Suites: read strictly, put to the floor test, frozen; what is edited afterwards is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab_fixtures import PERSON, Place, problems, rewrite, shipped_items, write_suite
from release_fixtures import refused
from studbook.errors import BytesLie, ManifestRefused, NotAuthorised, OutOfOrder, RecordRefused, UsageError
from studbook.evaluation.contamination import parse_rows
from studbook.evaluation.floor import ANSWERERS, floor_rows
from studbook.evaluation.suites import freeze, parse_items, read_suite_folder
from studbook.lab import Lab
from studbook.records import FloorReport, Header, SuiteManifest, SuitesLock, replace
from studbook.sandbox import Limits

LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)
HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
WORTHLESS = {"no-op", "constant", "random", "echo", "nan", "empty", "oversize", "early-exit"}


def items(count: int = 24) -> list[dict[str, Any]]:
    return shipped_items("development", "rot")[:count]


def same_answer(count: int = 24) -> list[dict[str, Any]]:
    return [item | {"expected": "yes"} for item in items(count)]


def test_every_worthless_answerer_fails_and_the_oracle_passes(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        reports = [report for _, report in lab.desk.workspace.all(FloorReport)]
    assert len(reports) == 12
    for report in reports:
        verdicts = {row.answerer: row.verdict for row in report.rows}
        assert set(verdicts) == WORTHLESS | {"oracle"} == set(ANSWERERS)
        assert verdicts.pop("oracle") == "pass"
        assert "pass" not in verdicts.values()
        assert 0.0 < report.minimum_detectable < 1.0


def test_a_suite_that_the_constant_answerer_passes_is_not_frozen(tmp_path: Path) -> None:
    folder = read_suite_folder(write_suite(tmp_path, same_answer()))
    with pytest.raises(OutOfOrder, match=r"constant answerer gets 1\.000") as caught:
        freeze(HEADER, folder, 0.05, None, LIMITS)
    assert caught.value.reason == "suite.floor"


def test_a_suite_that_the_echo_answerer_passes_is_not_frozen(tmp_path: Path) -> None:
    echoed = [item | {"expected": item["prompt"].rstrip(">").split(" ")[-1]} for item in items()]
    with pytest.raises(OutOfOrder, match="echo"):
        freeze(HEADER, read_suite_folder(write_suite(tmp_path, echoed)), 0.05, None, LIMITS)


@pytest.mark.parametrize("mark", ["0", "0.0001", "-1", "nan", "inf", "2"])
def test_a_pass_mark_that_lets_the_worthless_in_or_the_oracle_out_is_not_frozen(tmp_path: Path, mark: str) -> None:
    folder = read_suite_folder(write_suite(tmp_path, items(), pass_mark=mark))
    with pytest.raises((OutOfOrder, ManifestRefused)):
        freeze(HEADER, folder, 0.05, None, LIMITS)


def test_an_item_whose_own_answer_is_wrong_by_its_rule_is_not_frozen(tmp_path: Path) -> None:
    rows = [row | {"rule": {"pattern": row["expected"]}} for row in items()]
    rows[5]["rule"] = {"pattern": "never"}
    folder = read_suite_folder(write_suite(tmp_path, rows, scorer="regex"))
    with pytest.raises(OutOfOrder, match=r"oracle gets 0\.958: an expected answer is wrong by its own item") as caught:
        freeze(HEADER, folder, 0.05, None, LIMITS)
    assert caught.value.reason == "suite.floor"


def test_one_answer_longer_than_the_suite_allows_is_not_frozen(tmp_path: Path) -> None:
    rows = items()
    rows[5] |= {"expected": "x" * 13}
    with pytest.raises(OutOfOrder, match="longer than the limit"):
        freeze(HEADER, read_suite_folder(write_suite(tmp_path, rows)), 0.05, None, LIMITS)


def test_an_answer_longer_than_the_suite_allows_lets_no_oracle_pass(tmp_path: Path) -> None:
    folder = read_suite_folder(write_suite(tmp_path, items(), max_new_tokens=1))
    with pytest.raises(OutOfOrder, match="oracle"):
        freeze(HEADER, folder, 0.05, None, LIMITS)


def test_proper_scores_are_put_to_the_same_floor() -> None:
    found = parse_items(b"".join(_line(item) for item in items()))
    rows = {row.answerer: row.verdict for row in floor_rows(found, "proper-scores", 0.75, 12)}
    assert rows.pop("oracle") == "pass"
    assert "pass" not in rows.values()


def _line(item: dict[str, Any]) -> bytes:
    return msgspec.json.encode(item, order="sorted") + b"\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"items": 23}, "the file holds 24"),
        ({"items_sha256": "0" * 64}, "items_sha256"),
        ({"scorer": "vibes"}, "vibes"),
        ({"role": "oracle"}, "a value is not allowed"),
        ({"dimension": "charm"}, "a value is not allowed"),
        ({"max_new_tokens": "many"}, "not a whole number"),
        ({"max_new_tokens": 5000}, "not allowed|not 1"),
        ({"cluster": "two words"}, "a value is not allowed"),
        ({"licence": ""}, "a value is not allowed"),
        ({"margin": "0"}, "margin=0 is not a share"),
        ({"margin": "2.5"}, "margin=2.5 is not a share"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_field(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    path = write_suite(tmp_path, items(), **settings)
    with pytest.raises(ManifestRefused, match=words) as caught:
        freeze(HEADER, read_suite_folder(path), 0.05, None, LIMITS)
    assert str(path / "suite.manifest") in caught.value.where


@pytest.mark.parametrize("key", ["name", "role", "cluster", "items_sha256", "licence"])
def test_a_manifest_without_a_required_key_is_refused_by_name(tmp_path: Path, key: str) -> None:
    path = write_suite(tmp_path, items()) / "suite.manifest"
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith(f"{key}=")]
    path.write_text("".join(lines))
    with pytest.raises(ManifestRefused, match=f"key {key} is missing"):
        read_suite_folder(path.parent)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BytesLie),
        (b"\n", RecordRefused),
        (b"{}\n", RecordRefused),
        (_line({"id": "a", "cluster": "c", "expected": "e", "perturbation": "none", "prompt": "p"})[:-1], BytesLie),
        (_line({"id": "a", "cluster": "c", "expected": "e", "perturbation": "none", "prompt": "p"}) * 2, BytesLie),
        (_line({"id": "a", "cluster": "c", "expected": "", "perturbation": "none", "prompt": "p"}), RecordRefused),
        (
            _line({"id": "a", "cluster": "c", "expected": "e", "perturbation": "none", "prompt": "p", "x": 1}),
            RecordRefused,
        ),
    ],
)
def test_items_that_are_not_exactly_items_are_refused(data: bytes, error: type[BytesLie]) -> None:
    with pytest.raises(error):
        parse_items(data, "items.jsonl")


@pytest.mark.parametrize(
    "spelling",
    [lambda line: line + b"\r", lambda line: b"\xef\xbb\xbf" + line, lambda line: line[:1] + b" " + line[1:]],
)
def test_a_line_that_a_person_wrote_otherwise_is_refused_with_how_to_write_it(spelling: Any) -> None:
    line = _line({"id": "a", "cluster": "c", "expected": "e", "perturbation": "none", "prompt": "p"})[:-1]
    for read in (parse_items, parse_rows):
        with pytest.raises(RecordRefused) as caught:
            read(spelling(line) + b"\n", "items.jsonl")
        assert "line 1" in caught.value.where
        assert "jq -cS" in caught.value.advice
        assert "backup" not in caught.value.advice


def test_an_item_that_its_scorer_cannot_use_is_told_with_its_file(tmp_path: Path) -> None:
    path = write_suite(tmp_path, [row | {"rule": {"pattern": "("}} for row in items()], scorer="regex")
    with pytest.raises(BytesLie) as caught:
        read_suite_folder(path)
    assert caught.value.where.startswith(f"{path / 'items.jsonl'}: item ")


def test_line_feeds_and_tabs_may_stand_in_a_prompt_and_other_control_characters_may_not() -> None:
    plain = {"id": "a", "cluster": "c", "expected": "e", "perturbation": "none"}
    (item,) = parse_items(_line(plain | {"prompt": "first\tcell\nsecond line\n"}), "items.jsonl")
    assert item.prompt == "first\tcell\nsecond line\n"
    for mark in "\r\v\x00\x1b\x7f\x85\u2028\u202e":
        with pytest.raises(RecordRefused):
            parse_items(_line(plain | {"prompt": f"a{mark}b"}), "items.jsonl")


def test_the_echo_answerer_says_the_last_word_of_the_last_line() -> None:
    rows = [_line({**row, "prompt": f"What is it?\nsay\t{row['expected']}"}) for row in items()]
    assert {r.answerer: r.verdict for r in floor_rows(parse_items(b"".join(rows)), "exact-match", 0.25, 12)}[
        "echo"
    ] == "pass"


def test_freezing_again_changes_nothing_and_another_suite_of_that_name_is_refused(opened: Lab, tmp_path: Path) -> None:
    before = len(opened.desk.workspace.ledger.entries)
    same = write_suite(
        tmp_path / "same", shipped_items("development", "rot"), name="development-rot", role="development"
    )
    opened.suites.freeze([same], PERSON)
    assert len(opened.desk.workspace.ledger.entries) == before
    other = write_suite(tmp_path / "other", items(23), name="development-rot", role="development")
    with pytest.raises(UsageError, match="frozen already"):
        opened.suites.freeze([other], PERSON)
    assert len(opened.desk.workspace.ledger.entries) == before


def test_a_suite_of_an_older_scorer_is_frozen_again_in_its_place(opened: Lab, tmp_path: Path) -> None:
    desk = opened.desk
    _, lock = desk.suites_lock
    place = next(n for n, d in enumerate(lock.suites) if desk.workspace.get(d, SuiteManifest).name == "development-rot")
    old = replace(desk.workspace.get(lock.suites[place], SuiteManifest), scorer_sha256="5c" * 32)
    suites = (*lock.suites[:place], desk.workspace.commit(old), *lock.suites[place + 1 :])
    desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 1, suites=suites))
    with pytest.raises(OutOfOrder, match="another version of its scorer"):
        opened.evaluate(["base"])
    same = write_suite(tmp_path, shipped_items("development", "rot"), name="development-rot", role="development")
    opened.suites.freeze([same], PERSON)
    assert desk.suites_lock[1].suites == lock.suites
    opened.evaluate(["base"])
    assert opened.verify().ok


def test_a_suite_that_another_version_froze_alike_is_not_frozen_anew(
    opened: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(opened.desk.entries())
    same = write_suite(tmp_path, shipped_items("development", "rot"), name="development-rot", role="development")
    header = msgspec.structs.replace(opened.desk.header, version="9.9")
    monkeypatch.setattr(type(opened.desk), "header", header)
    (made,) = opened.suites.freeze([same], PERSON)
    assert made.header.version != "9.9"
    assert len(opened.desk.entries()) == before


def test_a_new_suite_makes_a_new_lock_that_keeps_the_old_suites(opened: Lab, tmp_path: Path) -> None:
    _, before = opened.desk.suites_lock
    opened.suites.freeze(
        [write_suite(tmp_path, items(20), name="development-more", role="development", cluster="more")], PERSON
    )
    _, after = opened.desk.suites_lock
    assert after.lock_version == before.lock_version + 1
    assert after.suites[:-1] == before.suites


def test_freezing_needs_the_policy_key_of_a_person(new_lab: Place, tmp_path: Path) -> None:
    (new_lab.keys / "people" / "policy" / "policy.pem").unlink()
    with new_lab.open() as lab:
        locks = len(list(lab.desk.workspace.all(SuitesLock)))
        with pytest.raises(NotAuthorised):
            lab.suites.freeze(
                [write_suite(tmp_path, same_answer(), name="development-more", role="development")], PERSON
            )
        assert len(list(lab.desk.workspace.all(SuitesLock))) == locks


def test_of_several_suites_all_are_frozen_or_none(opened: Lab, tmp_path: Path) -> None:
    before = len(opened.desk.entries())
    good = write_suite(tmp_path, items(20), name="development-a", role="development", cluster="a")
    bad = write_suite(tmp_path, same_answer(), name="development-b", role="development", cluster="b")
    with pytest.raises(OutOfOrder, match="constant"):
        opened.suites.freeze([good, bad], PERSON)
    assert len(opened.desk.entries()) == before


def test_a_second_task_suite_of_a_role_for_one_label_is_refused_since_no_decision_could_use_it(
    opened: Lab, tmp_path: Path
) -> None:
    before = len(opened.desk.entries())
    with pytest.raises(UsageError, match="development-rot is the development suite of task for rot already") as caught:
        opened.suites.freeze([write_suite(tmp_path, items(20), name="development-more", role="development")], PERSON)
    assert caught.value.reason == "suite.label"
    pair = [write_suite(tmp_path, items(20), name=n, role="development", cluster="twice") for n in ("one", "two")]
    with refused("suite.label"):
        opened.suites.freeze(pair, PERSON)
    assert len(opened.desk.entries()) == before


def test_a_folder_without_a_suite_is_refused(opened: Lab, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no suite"):
        opened.suites.freeze([tmp_path], PERSON)


def test_items_edited_after_freezing_are_noticed_by_verify_and_stop_an_evaluation(new_lab: Place) -> None:
    with new_lab.open(writer=False) as lab:
        manifest = next(
            m for _, m in lab.desk.workspace.all(SuiteManifest) if (m.role, m.cluster) == ("development", "rot")
        )
        path = lab.desk.workspace.blob_path(manifest.items.sha256)
    rewrite(path, path.read_bytes().replace(b'"expected":"', b'"expected":"x', 1))
    assert str(path) in problems(new_lab)
    with new_lab.open() as lab, pytest.raises(Exception, match="is not the file that was stored") as caught:
        lab.evaluate(["base"])
    assert caught.value.where == str(path)  # type: ignore[attr-defined]
