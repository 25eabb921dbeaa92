"""The verbs about suites: made from a template, planned, sealed, opened k of K; and what others report is only shown."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

import studbook
from lab_fixtures import PERSON, PROTECTED, Place, drop_suite, founder, run_cli, shipped_items, write_suite
from release_fixtures import refused
from studbook.cli.suites import _opened_page
from studbook.errors import BytesLie, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.evaluation.suites import read_suite_folder
from studbook.exchange.card import write_card
from studbook.lab import Lab
from studbook.lab.dossiers import collect
from studbook.records import ReportedResult, Scorecard, SealedOpening, replace


def problems_of(lab: Lab) -> list[str]:
    return [problem.where for problem in lab.verify().problems]


def test_a_new_suite_is_a_folder_that_reads_and_whose_examples_are_not_frozen(opened: Lab, tmp_path: Path) -> None:
    for scorer in ("exact-match", "multiple-choice", "numeric", "regex", "safe-text", "code", "bits-per-byte"):
        folder = tmp_path / scorer
        assert opened.suites.new(folder, scorer=scorer) == 2
        assert read_suite_folder(folder).settings["scorer"] == scorer
        rows = {row.answerer: row.verdict for row in opened.suites.floor(folder)}
        assert rows["oracle"] == "pass"
        with pytest.raises(UsageError, match="holds a suite already"):
            opened.suites.new(folder)
    with pytest.raises(UsageError, match="no scorer is called"):
        opened.suites.new(tmp_path / "odd", scorer="vibes")


@pytest.mark.parametrize(
    "wrong",
    [
        {"cluster": "two words"},
        {"name": "line\nrole=sealed"},
        {"licence": "CC0-1.0\nrole=sealed"},
        {"like": "long", "perturb": ["distractor"]},
        {"role": "oracle"},
        {"dimension": "charm"},
        {"dimension": "robustness"},
        {"dimension": "honesty", "role": "selection"},
        {"dimension": "cost", "cluster": "c" * 110},
        {"max_new_tokens": 5000},
    ],
)
def test_a_suite_that_could_not_be_read_again_is_not_written_at_all(
    opened: Lab, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    rows = [
        row | {"prompt": "x" * 3990, "id": f"long-{n}"} for n, row in enumerate(shipped_items("development", "rot"))
    ]
    like = write_suite(tmp_path, rows, name="long") if wrong.pop("like", "") else None
    with pytest.raises(StudbookError) as caught:
        opened.suites.new(tmp_path / "mine", like, **wrong)
    assert "backup" not in caught.value.advice
    assert not (tmp_path / "mine").exists()


def test_a_perturber_that_changes_nothing_leaves_no_folder_behind(opened: Lab, tmp_path: Path) -> None:
    like = write_suite(tmp_path, [row | {"prompt": "1>"} for row in shipped_items("development", "rot")[:2]])
    with pytest.raises(BytesLie, match="holds no items"):
        opened.suites.new(tmp_path / "noisy", like, ["confusable"])
    assert not (tmp_path / "noisy").exists()


def test_items_that_an_interrupted_call_left_are_taken_over_and_others_are_not(opened: Lab, tmp_path: Path) -> None:
    like = write_suite(tmp_path, shipped_items("development", "rot"), name="plain")
    for name, data in (("same", (like / "items.jsonl").read_bytes()), ("other", b"mine\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "items.jsonl").write_bytes(data)
    assert opened.suites.new(tmp_path / "same", like) == 24
    with refused("suite.taken"):
        opened.suites.new(tmp_path / "other", like)
    assert not (tmp_path / "other" / "suite.manifest").exists()


def test_a_suite_is_named_after_the_folder_that_a_dot_is(
    opened: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    opened.suites.new(Path())
    assert read_suite_folder(tmp_path / "mine").settings["name"] == "mine"


def test_a_suite_like_another_keeps_its_mark_and_its_margin(opened: Lab, tmp_path: Path) -> None:
    like = write_suite(tmp_path, shipped_items("development", "rot"), name="plain", pass_mark="0.9", margin="0.4")
    opened.suites.new(tmp_path / "noisy", like, ["white-space"])
    opened.suites.new(tmp_path / "proper", like, scorer="proper-scores", dimension="calibration", margin=None)
    first, second = (read_suite_folder(tmp_path / name).settings for name in ("noisy", "proper"))
    assert (first["pass_mark"], first["margin"]) == ("0.9", "0.4")
    assert "pass_mark" not in second


def test_a_role_or_dimension_that_there_is_not_is_a_slip_of_the_command(new_lab: Place, tmp_path: Path) -> None:
    for option in ("--role", "--dimension"):
        told = run_cli(new_lab, "suite", "new", str(tmp_path / "mine"), option, "vibes")
        assert told.returncode == 2
        assert "vibes" in told.stderr
    assert not (tmp_path / "mine").exists()


def test_another_suites_items_are_perturbed_into_pairs(opened: Lab, tmp_path: Path) -> None:
    like = write_suite(tmp_path, shipped_items("development", "rot"), role="development", name="plain")
    count = opened.suites.new(tmp_path / "noisy", like, ["white-space", "distractor"], 5, role="selection")
    suite = read_suite_folder(tmp_path / "noisy")
    assert (count, suite.settings["dimension"], suite.settings["role"]) == (48, "robustness", "selection")
    opened.suites.freeze([tmp_path / "noisy"], PERSON)


def test_power_says_what_a_suite_can_show_and_refuses_a_margin_it_cannot_test(opened: Lab) -> None:
    rows = opened.suites.power(["selection-rot"])
    assert [(r.items, r.disagreement) for r in rows] == [(24, 0.05), (24, 0.10), (24, 0.14), (24, 0.20)]
    assert [r.detectable for r in rows] == sorted(r.detectable for r in rows)
    assert opened.suites.power(["selection-rot"], 0.4, 0.1)[0].needed <= 24
    with pytest.raises(OutOfOrder, match="needs 2,834 items, the suite has 24") as caught:
        opened.suites.power(["selection-rot"], 0.01, 0.1)
    assert caught.value.reason == "suite.power"
    with pytest.raises(UsageError, match="no suite is called"):
        opened.suites.power(["nobody"])


def test_only_items_that_nobody_saw_are_sealed(opened: Lab, tmp_path: Path) -> None:
    known = shipped_items("development", "rot")
    with pytest.raises(OutOfOrder, match="stands in suite development-rot"):
        opened.suites.seal([write_suite(tmp_path / "a", known, name="sealed-a", role="sealed")], PERSON)
    taught = (founder("base").parent / "data" / "rot.jsonl").read_text().splitlines()[3]
    prompt = re.search(r'"prompt":"([^"]+)"', taught)
    assert prompt
    fresh = [row | {"prompt": f"{row['prompt'][:-1]}q>", "id": f"f{n}"} for n, row in enumerate(known)]
    spoiled = [fresh[0] | {"prompt": prompt[1].upper()}, *fresh[1:]]
    with pytest.raises(OutOfOrder, match="it stands in data"):
        opened.suites.seal([write_suite(tmp_path / "b", spoiled, name="sealed-b", role="sealed")], PERSON)
    with pytest.raises(OutOfOrder, match="has the role selection"):
        opened.suites.seal([write_suite(tmp_path / "c", fresh, name="sealed-c")], PERSON)
    (made,) = opened.suites.seal(
        [write_suite(tmp_path / "d", fresh, name="sealed-d", role="sealed", cluster="d")], PERSON
    )
    assert made.role == "sealed"


def test_what_is_sealed_is_frozen_beside_nothing_that_shows_it_in_whatever_order(opened: Lab, tmp_path: Path) -> None:
    rows = [row | {"prompt": f"{row['prompt'][:-1]}q>"} for row in shipped_items("development", "rot")]

    def suite(name: str, role: str) -> Path:
        items = [row | {"id": f"{name}-{n}"} for n, row in enumerate(rows)]
        return write_suite(tmp_path, items, name=name, role=role, cluster=name)

    shown, first, second = suite("shown", "descriptor"), suite("first", "sealed"), suite("second", "sealed")
    for together in ([shown, first], [first, shown]):
        with pytest.raises(OutOfOrder, match="item first-0 is known already: it stands in suite shown") as caught:
            opened.suites.freeze(together, PERSON)
        assert caught.value.reason == "suite.sealed"
    opened.suites.freeze([first, second], PERSON)
    with pytest.raises(OutOfOrder, match="it stands in suite shown"):
        opened.suites.freeze([shown], PERSON)


def test_no_look_is_logged_that_could_not_be_taken(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = opened.desk
    opened.evaluate(["base"])
    with pytest.raises(UsageError, match="is not the name"):
        opened.suites.open(["base", "nobody"])
    _, policy = desk.policy
    gates = msgspec.structs.replace(policy.gates, sealed_openings=1)
    desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1, gates=gates))
    with pytest.raises(OverBudget, match="2 more looks"):
        opened.suites.open(["base", "cap-rot"])
    held = desk.workspace.blob_path(desk.find_model("base"))
    away = held.rename(held.with_suffix(".away"))
    with refused("digest.missing"):
        opened.suites.open(["base"])
    away.rename(held)
    monkeypatch.setattr("studbook.lab.evaluators.evaluator_sha256", lambda: "e" * 64)
    with pytest.raises(OutOfOrder) as caught:
        opened.suites.open(["base"])
    assert caught.value.reason == "evaluator.unadmitted"
    assert not list(desk.all(SealedOpening))


def test_a_look_that_was_cut_short_goes_on_under_its_number(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("studbook.lab.openings.evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            opened.suites.open(["base"])
    looks = opened.suites.open(["base", "cap-rot"])
    assert [look.opening for look in looks] == [1, 2]
    assert [o.opening for _, o in opened.desk.all(SealedOpening)] == [1, 2]
    assert not problems_of(opened)


def test_a_look_at_sealed_suites_that_ask_for_no_task_is_shown(opened: Lab) -> None:
    for cluster in PROTECTED:
        drop_suite(opened, f"sealed-{cluster}")
    page = io.StringIO()
    _opened_page(opened.suites.open(["base"]))(Console(file=page))
    assert "no tasks" in page.getvalue()


def test_every_look_at_the_sealed_suites_is_on_record_and_counts(opened: Lab) -> None:
    desk = opened.desk
    _, policy = desk.policy
    gates = msgspec.structs.replace(policy.gates, sealed_openings=1)
    desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1, gates=gates))
    (first,) = opened.suites.open(["base"])
    assert (first.opening, first.of) == (1, 1)
    assert first.card.card.role == "sealed"
    (again,) = opened.suites.open(["base"])
    assert (again.opening, again.card) == (0, first.card)
    with pytest.raises(OverBudget, match="all 1 openings"):
        opened.suites.open(["cap-rot"])
    assert [(o.decision, o.opening) for _, o in desk.all(SealedOpening)] == [(None, 1)]
    assert {c.artifact for _, c in desk.all(Scorecard) if c.role == "sealed"} == {desk.find_model("base")}
    assert not problems_of(opened)


def test_what_others_report_is_shown_and_stands_on_the_card_as_reported(opened: Lab) -> None:
    record = opened.suites.attach("cap-rot", "arc-easy", 0.99, "share", "the authors, 25 shots", "their model card")
    assert record in [r for _, r in opened.show("cap-rot")]
    card = write_card(collect(opened.desk, opened.desk.find_model("cap-rot"), {})).decode()
    (line,) = [line for line in card.splitlines() if "arc-easy" in line]
    assert "reported" in line
    assert "0.99" in line
    with pytest.raises(UsageError):
        opened.suites.attach("nobody", "arc-easy", 0.5, "share", "x", "y")
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"value": float("nan")}, "usage.value"),
        ({"value": float("-inf")}, "usage.value"),
        ({"benchmark": "arc easy"}, "usage.name"),
        ({"unit": ""}, "usage.name"),
        ({"method": " "}, "usage.text"),
        ({"citation": "two\nlines"}, "usage.text"),
    )
    for changed, reason in wrong:
        said = {"benchmark": "arc", "value": 0.5, "unit": "share", "method": "x", "citation": "y"} | changed
        with refused(reason):
            opened.suites.attach("cap-rot", **said)
    assert not problems_of(opened)


def test_no_gate_reads_what_others_report() -> None:
    source = Path(studbook.__file__).parent
    readers = {
        p.relative_to(source).as_posix() for p in source.rglob("*.py") if ReportedResult.__name__ in p.read_text()
    }
    assert readers == {
        "exchange/dossier.py",
        "lab/dossiers.py",
        "lab/measured.py",
        "lab/replay.py",
        "lab/review/gather.py",
        "lab/suites.py",
        "records/__init__.py",
        "records/evaluation.py",
        "records/kinds.py",
    }
    gating = [p for room in ("viability", "release", "policy", "population") for p in (source / room).glob("*.py")]
    assert not [p for p in gating if "reported" in p.read_text() and "exchange" in p.read_text()]


def test_the_verbs_answer_on_the_command_line(new_lab: Place, tmp_path: Path) -> None:
    made = run_cli(new_lab, "suite", "new", str(tmp_path / "mine"), "--scorer", "numeric")
    assert made.returncode == 0, made.stderr
    floor = run_cli(new_lab, "suite", "floor", str(tmp_path / "mine"))
    assert "oracle" in floor.stdout
    power = run_cli(new_lab, "suite", "power", "sealed-rot", "--margin", "0.01")
    assert power.returncode != 0
    assert "needs" in power.stderr
    assert "Traceback" not in power.stderr
