"""Kinds of scorers: what each calls right, what it asks of an item, and that a new kind is one file and one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import founder, shipped_items, write_suite
from studbook.errors import BytesLie, OutOfOrder, OverBudget, RecordRefused
from studbook.evaluation import score_worker
from studbook.evaluation.items import Item
from studbook.evaluation.scorers import Answers, expected_calls, judge
from studbook.evaluation.scoring import KINDS, Kind
from studbook.evaluation.suites import floor_of, freeze, read_suite_folder
from studbook.models.forward import Forward
from studbook.models.slm import read_slm
from studbook.records import Header, canonical, read_struct
from studbook.sandbox import Limits

LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)
HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}


def item(expected: str = "4", rule: dict[str, Any] | None = None, prompt: str = "q") -> Item:
    return Item("i", "c", prompt, expected, "none", rule or {})


def test_an_item_without_a_rule_is_written_as_it_always_was() -> None:
    line = b'{"cluster":"c","expected":"4","id":"i","perturbation":"none","prompt":"q"}'
    assert read_struct(line, Item) == item()
    assert canonical(item()) == line


@pytest.mark.parametrize(
    ("kind", "rule", "right", "wrong"),
    [
        ("regex", {"pattern": "[0-9]+ apples"}, ["4 apples", "12 apples"], ["apples", "4 apples!", "", None, 4]),
        ("numeric", {"absolute": 0.1, "relative": 0.0}, ["4", " 4.05 ", "+40e-1"], ["4.2", "four", "nan", "inf", "4 5"]),
        ("numeric", {"absolute": 0.0, "relative": 0.5}, ["2", "6"], ["1.9", "6.1", "1e999", None]),
        ("safe-text", {"pattern": ".*4.*", "banned": ["Top Secret"]}, ["4", "it is 4"],
         ["", "5", "4, and TOP  secret", "4\x00", "4 topsecret", None]),
    ],
)  # fmt: skip
def test_a_written_answer_is_right_by_its_items_own_rule(
    kind: str, rule: dict[str, Any], right: list[object], wrong: list[object]
) -> None:
    found = KINDS[kind]
    assert [found.right(item(rule=rule), said, 99) for said in right] == [True] * len(right)
    assert [found.right(item(rule=rule), said, 99) for said in wrong] == [False] * len(wrong)
    assert not found.right(item(rule=rule), right[0], 0)


def test_json_has_to_be_json_and_of_the_schema() -> None:
    kind, asked = KINDS["json-schema"], item('{"a": 1}', {"schema": SCHEMA})
    kind.check(asked)
    assert kind.right(asked, '{"a": 2, "b": []}', 99)
    for said in ('{"a": "2"}', "{}", '{"a": 1', '{"a": 1, "a": "x"}', '{"a": NaN}', "", None):
        assert not kind.right(asked, said, 99)
    with pytest.raises(RecordRefused, match="is not a JSON Schema"):
        kind.check(item("1", {"schema": {"type": 7}}))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/hostname"}}},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"properties": {"a": {"pattern": "("}}},
        {"patternProperties": {"(": {}}},
    ],
)
def test_a_schema_fetches_nothing_and_one_that_cannot_be_asked_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RecordRefused, match="is not a JSON Schema"):
        KINDS["json-schema"].check(item("{}", {"schema": schema}))


def test_a_reference_that_only_some_answers_reach_lets_none_of_them_pass() -> None:
    asked = item("{}", {"schema": {"properties": {"a": {"$ref": "#/nowhere"}}}})
    KINDS["json-schema"].check(asked)
    assert KINDS["json-schema"].right(asked, "{}", 99)
    assert not KINDS["json-schema"].right(asked, '{"a": 1}', 99)


@pytest.mark.parametrize("value", ["{'a', 'b'}", "[1, {2}]", "set()"])
def test_a_value_that_is_printed_in_another_order_every_time_is_refused(value: str) -> None:
    with pytest.raises(RecordRefused, match="gives a set"):
        KINDS["code"].check(item("f = 1", {"calls": ["f"], "gives": [value]}))
    KINDS["code"].check(item("f = 1", {"calls": ["f"], "gives": [" ['a', 'b']"]}))


@pytest.mark.parametrize(
    ("kind", "expected", "rule"),
    [
        ("exact-match", "4", {"pattern": "4"}),
        ("regex", "4", {}),
        ("regex", "4", {"pattern": "("}),
        ("regex", "4", {"pattern": "4", "more": 1}),
        ("numeric", "four", {"absolute": 0.0, "relative": 0.0}),
        ("numeric", "4", {"absolute": -1.0, "relative": 0.0}),
        ("multiple-choice", "4", {"choices": ["5", "6"], "by": "raw"}),
        ("multiple-choice", "4", {"choices": ["4", "4"], "by": "raw"}),
        ("multiple-choice", "4", {"choices": ["4", "5"], "by": "luck"}),
        ("safe-text", "the code", {"pattern": ".*", "banned": ["code"]}),
        ("code", "f = abs", {"calls": ["f(1)"], "gives": ["1", "2"]}),
        ("code", "f = abs", {"calls": ["f("], "gives": ["1"]}),
        ("code", "f = abs", {"calls": ["f(1)"], "gives": ["f"]}),
    ],
)
def test_an_item_that_a_kind_cannot_judge_is_refused_by_field(kind: str, expected: str, rule: dict[str, Any]) -> None:
    with pytest.raises(RecordRefused) as caught:
        KINDS[kind].check(item(expected, rule))
    assert caught.value.reason == "suite.rule"
    assert "item i" in caught.value.where
    assert caught.value.advice


@pytest.mark.parametrize(
    ("by", "loglik", "right"),
    [
        ("raw", [-2.0, -3.0], True),
        ("raw", [-3.0, -2.0], False),
        ("raw", [-2.0, -2.0], False),
        ("raw", [math.nan, -2.0], False),
        ("token", [-4.0, -3.0], True),
        ("byte", [-4.0, -3.0], True),
        ("byte", [-8.0, -1.0], False),
    ],
)
def test_a_choice_wins_only_by_being_strictly_likelier(by: str, loglik: list[float], right: bool) -> None:
    asked = item("abcd", {"choices": ["xy", "abcd"], "by": by})
    kind = KINDS["multiple-choice"]
    assert kind.sequences(asked) == ("abcd", "xy")
    assert kind.chosen(asked, loglik, [4, 2], exactly=True) is right


def test_bits_per_byte_are_counted_over_the_whole_suite() -> None:
    items = [item("ä"), item("abc")]
    answers = Answers([True] * 2, [-math.log(2) * 4, -math.log(2)], [0.1] * 2, 2)
    assert judge(answers, 2, "bits-per-byte", 1.0, items) == (pytest.approx(1.0), "pass", "1.0000 against a mark of 1")
    assert judge(answers, 2, "bits-per-byte", 0.9, items).verdict == "fail"
    assert judge(answers._replace(loglik=[-1.0, -math.inf]), 2, "bits-per-byte", 9.0, items).verdict == "error"


def test_every_choice_is_scored_by_the_model_and_counted(tmp_path: Path) -> None:
    rows = []
    for row in shipped_items("development", "rot")[:6]:
        rows.append(row | {"rule": {"choices": [row["expected"], row["expected"][::-1] + "q", "zzzz"], "by": "byte"}})
    path = write_suite(tmp_path, rows, scorer="multiple-choice") / "items.jsonl"
    model = founder("ceiling") / "ceiling.slm"
    job = {"path": str(path), "scorer": "multiple-choice", "limit": 12, "said": None}
    slm = read_slm(model)
    (found,) = score_worker.work({"model": str(model), "sha256": slm.sha256, "suites": [job]}, tmp_path)["suites"]
    items = read_suite_folder(path.parent).items
    assert found["calls"] == expected_calls("multiple-choice", 6, items) == 18
    encode, best = slm.tokenizer.encode, []
    for asked in items:
        prompt, texts = encode(asked.prompt, bos=True, eos=False), KINDS["multiple-choice"].sequences(asked)
        alone = [Forward(slm).score([(prompt, encode(t, bos=False, eos=True))]).loglik[0] / len(t) for t in texts]
        best.append(max(range(3), key=lambda i: alone[i]) == 0)
    assert found["correct"] == best
    assert any(best)


class Backwards(Kind):
    """Right is the expected answer from its end to its beginning."""

    name = "backwards"
    mark = 0.5

    def right(self, item: Item, said: object, limit: int) -> bool:
        return isinstance(said, str) and said[::-1] == item.expected and len(said) <= limit


def test_a_new_kind_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_suite(tmp_path, shipped_items("development", "rot"), scorer="backwards")
    monkeypatch.setitem(KINDS, "backwards", Backwards())
    suite = read_suite_folder(folder)
    rows = {row.answerer: row.verdict for row in floor_of(suite, None, LIMITS)}
    assert set(rows.values()) <= {"fail", "error"}  # the oracle says the expected text, which is not backwards
    with pytest.raises(OutOfOrder, match="oracle"):
        freeze(HEADER, suite, 0.05, None, LIMITS)
    said = [i.expected[::-1] for i in suite.items]
    model = founder("base") / "base.slm"
    job = {"path": str(folder / "items.jsonl"), "scorer": "backwards", "limit": 12, "said": said}
    told = score_worker.work({"model": str(model), "sha256": read_slm(model).sha256, "suites": [job]}, tmp_path)
    assert told["suites"][0]["correct"] == [True] * len(said)


@pytest.mark.parametrize(
    ("scorer", "rule", "words"),
    [
        ("safe-text", {"pattern": ".+", "banned": []}, "random|constant|echo"),
        ("regex", {"pattern": ".*"}, "empty|constant|random|echo|oversize"),
        ("multiple-choice", {"choices": ["yes", "no"], "by": "raw"}, "constant"),
    ],
)
def test_a_suite_of_any_kind_that_the_worthless_pass_is_not_frozen(
    tmp_path: Path, scorer: str, rule: dict[str, Any], words: str
) -> None:
    rows = [row | {"expected": "yes", "rule": rule} for row in shipped_items("development", "rot")]
    with pytest.raises(OutOfOrder, match=words) as caught:
        freeze(HEADER, read_suite_folder(write_suite(tmp_path, rows, scorer=scorer)), 0.05, None, LIMITS)
    assert caught.value.reason == "suite.floor"


@pytest.mark.parametrize("scorer", ["regex", "safe-text"])
def test_a_pattern_that_never_ends_is_refused_and_ended(tmp_path: Path, scorer: str) -> None:
    rule: dict[str, Any] = {"pattern": "(a+)+b|yes"} | ({"banned": []} if scorer == "safe-text" else {})
    rows = [row | {"expected": "yes", "rule": rule} for row in shipped_items("development", "rot")]
    rows[3] |= {"prompt": "a" * 60 + ">"}
    suite = read_suite_folder(write_suite(tmp_path, rows, scorer=scorer, max_new_tokens="80"))
    short = Limits(seconds=1, memory_bytes=4 << 30, file_bytes=1 << 20)
    with pytest.raises(OverBudget, match="too long") as caught:
        freeze(HEADER, suite, 0.05, None, short)
    assert caught.value.reason == "suite.pattern"


def test_a_margin_that_so_few_items_cannot_test_is_not_frozen(tmp_path: Path) -> None:
    rows = shipped_items("development", "rot")
    with pytest.raises(OutOfOrder, match="needs 2,164 items, the suite has 24") as caught:
        freeze(HEADER, read_suite_folder(write_suite(tmp_path / "a", rows, margin="0.02")), 0.05, None, LIMITS)
    assert caught.value.reason == "suite.power"
    freeze(HEADER, read_suite_folder(write_suite(tmp_path / "b", rows, margin="0.2")), 0.05, None, LIMITS)


@pytest.mark.parametrize("dimension", ["robustness", "bias"])
def test_a_paired_suite_whose_neighbours_are_no_pairs_is_refused(tmp_path: Path, dimension: str) -> None:
    with pytest.raises(BytesLie, match="pairs of neighbours") as caught:
        read_suite_folder(write_suite(tmp_path, shipped_items("development", "rot"), dimension=dimension))
    assert caught.value.reason == "suite.pairs"
