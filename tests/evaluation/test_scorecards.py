"""What a scorecard says was counted while it happened; and what makes two scorecards comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab_fixtures import CLUSTER, Place, founder, shipped_items, write_suite
from studbook.evaluation import score_worker, scorecards
from studbook.evaluation.costs import answered, measures
from studbook.evaluation.items import parse_items
from studbook.models import forward
from studbook.models.slm import read_slm
from studbook.records import canonical


def job(folder: Path) -> dict[str, object]:
    path = founder("base") / "base.slm"
    suite = write_suite(folder, shipped_items("development", CLUSTER))
    return {
        "model": str(path),
        "sha256": read_slm(path).sha256,
        "suites": [{"path": str(suite / "items.jsonl"), "scorer": "exact-match", "limit": 12, "said": None}],
    }


def test_every_item_is_counted_once_as_it_goes_through_the_model(tmp_path: Path) -> None:
    told = score_worker.work(job(tmp_path), tmp_path)
    (suite,) = told["suites"]
    assert suite["calls"] == len(suite["correct"]) == 24


def test_multiply_adds_of_a_suite_are_those_of_its_items_one_by_one(tmp_path: Path) -> None:
    model = read_slm(founder("base") / "base.slm")
    alone = 0
    for item in shipped_items("development", CLUSTER):
        prompt = len(model.tokenizer.encode(item["prompt"], bos=True, eos=False))
        answer = len(model.tokenizer.encode(item["expected"], bos=False, eos=True))
        alone += model.shape.multiply_adds(prompt + answer - 1, answer)
    assert score_worker.work(job(tmp_path), tmp_path)["multiply_adds"] == alone


@pytest.mark.parametrize(("times", "calls"), [(0, 0), (2, 48)])
def test_items_that_were_never_scored_or_twice_are_not_counted_as_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, calls: int
) -> None:
    plain = forward._batches

    def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
        for batch in plain(lengths, most):
            yield from [batch] * times

    monkeypatch.setattr(forward, "_batches", batches)
    told = score_worker.work(job(tmp_path), tmp_path)
    assert told["suites"][0]["calls"] == calls


def test_another_class_of_machine_is_another_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    here = scorecards.evaluator_sha256()
    assert scorecards.evaluator_sha256() == here
    monkeypatch.setattr(scorecards, "environment_class", lambda: "cpython-3.99 numpy-9 linux-riscv64")
    assert scorecards.evaluator_sha256() != here


def test_only_what_was_measured_is_called_observed(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        cards = [card for _, card in lab.desk.all(scorecards.Scorecard)]
    assert cards
    for card in cards:
        assert {m.unit: m.basis for m in card.cost} == {
            "bytes": "observed",
            "parameters": "observed",
            "decoded-bytes": "observed",
            "kv-bytes": "observed",
            "multiply-adds": "estimated",
            "fuel": "observed",
        }


def test_answering_is_every_token_fed_once_from_the_prompt_to_the_last_but_one() -> None:
    model = read_slm(founder("base") / "base.slm")
    items = parse_items(b"".join(canonical(row) + b"\n" for row in shipped_items("development", CLUSTER)[:3]))
    lengths = [len(model.tokenizer.encode(item.prompt, bos=True, eos=False)) for item in items]
    found = answered(model, "prompts", items, [1, 2, 5], 11)
    fed = [lengths[0], lengths[1] + 1, lengths[2] + 4]
    assert found.tokens == 8
    assert found.work == sum(model.shape.multiply_adds(f, w) for f, w in zip(fed, (1, 2, 5), strict=True))
    stated = {m.unit: (m.value, m.basis) for m in measures(model, 7, 0, [found])}
    assert stated["tokens-written/prompts"] == (8.0, "observed")
    assert stated["multiply-adds/prompts"] == (float(found.work), "estimated")
    assert stated["multiply-adds"] == (7.0, "estimated")
    assert stated["fuel/prompts"] == (11.0, "observed")
    assert "fuel" not in stated
    # Only numbers of one method are compared: how much was fed is no part of it.
    assert [m.method for m in measures(model, 7, 3)] == [m.method for m in measures(model, 8, 4)]
