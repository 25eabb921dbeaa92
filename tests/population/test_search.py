"""`search` in a small lab: development items only, one file at the end, and the same receipt whatever cut it short."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lab_fixtures import (
    CLUSTER,
    PARENTS,
    PERSON,
    PROTECTED,
    Place,
    founder,
    problems,
    run_cli,
    small_policy,
    small_suites,
)
from studbook.breeding.operators import decode_operator
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs
from studbook.errors import DigestDiffers, OutsideAllowlist, OverBudget, StudbookError, UsageError
from studbook.lab import Lab, search_check, search_worker
from studbook.lab import search as lab_search
from studbook.lab.search import Request
from studbook.lab.search_check import check_search
from studbook.lab.search_journal import Journal
from studbook.models.forward import Forward
from studbook.models.slm import parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.population import Outcome
from studbook.records import Scorecard, SearchReceipt, SuiteManifest, digest, replace
from studbook.sandbox import run_worker

BUDGET = 7
ARGUMENTS = ("search", CLUSTER, "--method", "m2n2", "--evaluations", "9", "--seed", "5")


def request(method: Any = "random", **changes: Any) -> Request:
    return Request(method=method, evaluations=BUDGET, **changes)


@pytest.fixture(scope="module")
def searched(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab in which one search was made; only read it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("searched"))
    with place.open() as lab:
        run(lab)
    return place


def run(lab: Lab, **changes: Any) -> SearchReceipt:
    return lab.search(CLUSTER, request(**changes)).record


@pytest.mark.parametrize(
    "changes", [{}, {"method": "m2n2"}, {"method": "m2n2", "mix": "slerp"}, {"kind": "ties"}], ids=str
)
def test_a_search_leaves_one_bred_winner_and_a_receipt_that_holds(new_lab: Place, changes: dict[str, Any]) -> None:
    with new_lab.open() as lab:
        found = lab.search(CLUSTER, request(**changes))
        record = found.record
        check_search(lab.desk, record)
        (bred,) = lab.desk.candidates()
        assert bred[0] == record.winner
        assert bred[1].artifact.sha256 == record.artifact
        assert lab.desk.find_model(found.name) == record.artifact
        assert (len(record.evaluated), record.ended) == (BUDGET, "budget")
        soup, best = record.evaluated[0], record.evaluated[record.best]
        assert (soup.origin, soup.genome) == ("soup", "")
        assert (best.objective_ppm, best.tie_micro) >= (soup.objective_ppm, soup.tie_micro)
        card = lab.desk.workspace.get(record.scorecard, Scorecard)
        right = {result.suite: result.right for result in card.results}
        assert [right[suite] for suite in record.suites] == [int(n) for n in best.right.split()]
        assert set(record.labels) == set(PROTECTED)
    assert problems(new_lab) == []


@pytest.fixture
def scheduling_lab(tmp_path: Path) -> Place:
    """The small lab under a policy that allows schedules."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    plain = msgspec.to_builtins(small_policy(tmp_path).operators)
    grants = [g for g in plain if g["operator"] != "scheduled/1"]
    grants.append({"operator": "scheduled/1", "status": "offline", "bounds": {}, "admitted": []})
    Lab.init(place.path, PERSON, place.keys, small_policy(tmp_path, operators=grants))
    with place.open() as lab:
        for name in ("base", *PARENTS):
            lab.register(founder(name))
            lab.approve(name, PERSON, reason="shipped founder")
        lab.suites.freeze([small_suites(tmp_path / "suites")], PERSON)
        lab.release("base", "champion", PERSON, "the deployed generalist")
    return place


@pytest.mark.parametrize("mix", ["lerp", "slerp"])
def test_every_layer_may_have_scales_of_its_own(scheduling_lab: Place, mix: Any) -> None:
    with scheduling_lab.open() as lab:
        record = run(lab, method="m2n2", mix=mix, layered=True, filters=("wo",))
        check_search(lab.desk, record)
        assert len(record.space.genes) == 2 * 3 * len(PARENTS)
        assert {row.origin for row in record.evaluated} == {"soup", "founder", "proposal"}
        assert not [row.detail for row in record.evaluated if row.detail]
    assert problems(scheduling_lab) == []


def test_a_policy_without_schedules_has_no_search_of_layers(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = search_check.check_operator

    def without(policy: Any, operator: Any) -> None:
        plain(replace(policy, operators=tuple(g for g in policy.operators if g.operator != "scheduled/1")), operator)

    monkeypatch.setattr(search_check, "check_operator", without)
    with pytest.raises(OutsideAllowlist, match="scheduled/1"):
        run(opened, layered=True)


def test_the_same_search_is_not_run_twice_and_another_seed_is_another(
    opened: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened.search(CLUSTER, request())
    other = opened.search(CLUSTER, request(seed=2))
    assert other.record.evaluated[0] == first.record.evaluated[0]
    assert other.record.evaluated[1:] != first.record.evaluated[1:]

    def never(*_: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(lab_search, "run_worker", never)
    assert opened.search(CLUSTER, request()) == first


def test_workers_are_told_of_development_items_and_of_no_others(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[dict[str, Any]] = []
    readable: set[str] = set()

    def listen(module: str, job: dict[str, Any], folder: Path, limits: Any, reads: list[str]) -> Any:
        jobs.append(job)
        readable.update(reads)
        return run_worker(module, job, folder, limits, reads)

    monkeypatch.setattr(lab_search, "run_worker", listen)
    run(opened, method="m2n2", mix="slerp")
    allowed = {
        str(opened.desk.workspace.blob_path(m.items.sha256).absolute())
        for _, m in opened.desk.all(SuiteManifest)
        if m.role == "development"
    }
    told = {path for job in jobs for path, _ in job.get("suites", [])}
    assert told
    assert told <= allowed
    secret = [m.items.sha256 for _, m in opened.desk.all(SuiteManifest) if m.role != "development"]
    assert not [s for s in secret if s in json.dumps(jobs)]
    assert not [s for s in secret if s in json.dumps(sorted(readable))]
    assert told <= readable


def test_a_killed_search_goes_on_and_ends_with_the_same_receipt(prepared_lab: Place, tmp_path: Path) -> None:
    whole, cut = prepared_lab.copy(tmp_path / "whole"), prepared_lab.copy(tmp_path / "cut")
    plain = run_cli(whole, "--json", *ARGUMENTS)
    assert plain.returncode == 0, plain.stderr
    command = [sys.executable, "-m", "studbook", "--lab", str(cut.path), "--keys", str(cut.keys), *ARGUMENTS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and lines(cut) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= lines(cut) < 9
    again = run_cli(cut, "--json", *ARGUMENTS, "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(plain.stdout)
    assert not journals(cut)
    assert problems(cut) == []


def journals(place: Place) -> list[Path]:
    return list(place.path.glob("cache/resume/search-*/*.jsonl"))


def lines(place: Place) -> int:
    return sum(path.read_bytes().count(b"\n") for path in journals(place))


def test_there_has_to_be_something_to_resume(opened: Lab) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        opened.search(CLUSTER, request(), resume=True)


def test_a_search_that_costs_more_than_the_policy_allows_runs_nothing(
    opened: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_search, "run_worker", None)
    with pytest.raises(OverBudget, match="10000 evaluations x 72 development items"):
        opened.search(CLUSTER, Request(method="random", evaluations=10_000))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"evaluations": 0}, UsageError),
        ({"parents": ["cap-rot"]}, StudbookError),
        ({"parents": ["nobody", "cap-rot"]}, UsageError),
        ({"method": "m2n2", "kind": "ties"}, UsageError),
        ({"kind": "ties", "layered": True}, UsageError),
        ({"filters": ("wo", "nothing")}, UsageError),
    ],
    ids=str,
)
def test_a_choice_that_is_impossible_is_refused_before_anything_runs(
    opened: Lab, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], refusal: type[StudbookError]
) -> None:
    monkeypatch.setattr(lab_search, "run_worker", None)
    with pytest.raises(refusal) as caught:
        opened.search(CLUSTER, request()._replace(**changes))
    assert caught.value.advice


def test_a_filter_that_matches_no_tensor_is_refused_by_name(opened: Lab) -> None:
    with pytest.raises(UsageError, match="'wo2' is part of no tensor's name") as caught:
        opened.search(CLUSTER, request(filters=("wo", "wo2")))
    assert (caught.value.where, caught.value.reason) == ("--filter", "usage.filter")
    assert "tok_embeddings.weight" in caught.value.advice


def test_a_forged_journal_cannot_make_a_winner(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes into the cache can spoil a search, but no receipt says what the winner's file does not do."""
    plain = Journal.add

    def lie(self: Journal, recipe: str, outcome: Outcome) -> None:
        plain(self, recipe, outcome._replace(correct=tuple("1" * len(bits) for bits in outcome.correct)))

    monkeypatch.setattr(Journal, "add", lie)
    with pytest.raises(DigestDiffers, match="as the search saw it"):
        run(opened)
    assert not list(opened.desk.all(SearchReceipt))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"best": 1 if r.best != 1 else 2},
        lambda r: {"budget": 1},
        lambda r: {"recipe": {**r.recipe, "skip": ["*"]}},
        lambda r: {"evaluated": (*r.evaluated[:-1], msgspec.structs.replace(r.evaluated[-1], objective_ppm=999_999))},
        lambda r: {"evaluated": (*r.evaluated[:-1], msgspec.structs.replace(r.evaluated[-1], genome="1 1"))},
        lambda r: {"evaluated": (*r.evaluated, r.evaluated[-1])},
    ],
)
def test_a_receipt_that_was_bent_is_noticed(searched: Place, change: Any) -> None:
    with searched.open(writer=False) as lab:
        ((_, record),) = lab.desk.all(SearchReceipt)
        check_search(lab.desk, record)
        with pytest.raises(DigestDiffers):
            check_search(lab.desk, replace(record, **change(record)))


OUTCOME = Outcome(("10", "011"), (-5, -7))


def journal(path: Path) -> Journal:
    return Journal(path, (2, 3))


def test_a_journal_gives_back_what_was_added_and_forgets_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept = journal(path)
    kept.add(digest(1), OUTCOME)
    kept.add(digest(2), Outcome((), (), "is not finite"))
    assert journal(path).known == {digest(1): OUTCOME, digest(2): Outcome((), (), "is not finite")}
    kept.discard()
    assert journal(path).known == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data + b'{"recipe": 1}\n',
        lambda data: data.replace(b'"011"', b'"111"'),
        lambda data: data + data.splitlines()[0][:40],
        lambda data: data + b"\xff\n",
    ],
)
def test_damaged_lines_of_a_journal_are_cut_off_and_run_again(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "journal"
    journal(path).add(digest(1), Outcome(("11", "000"), (-1, -2)))
    journal(path).add(digest(2), OUTCOME)
    path.write_bytes(damage(path.read_bytes()))
    found = journal(path)
    assert digest(1) in found.known
    assert set(found.known) <= {digest(1), digest(2)}
    found.add(digest(3), OUTCOME)
    assert journal(path).known == found.known


def test_an_outcome_of_other_suites_is_not_believed(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", (3, 2)).add(digest(1), Outcome(("101", "01"), (-5, -7)))
    assert journal(tmp_path / "journal").known == {}


def job(**more: Any) -> dict[str, Any]:
    def file(name: str) -> list[str]:
        path = founder(name) / f"{name}.slm"
        return [str(path), read_slm(path).sha256]

    return {"base": file("base"), "parents": [file(p) for p in PARENTS], **more}


def test_a_model_in_memory_is_the_model_in_its_file() -> None:
    base, *parents = (read_slm(founder(n) / f"{n}.slm") for n in ("base", *PARENTS))
    operator = decode_operator({"operator": "task-delta/1", "scales": [0.31, 0.29], "skip": []})
    tensors = compute(operator, as_inputs(base, parents))
    kept, read = search_worker.in_memory(base, tensors), parse_slm(write_slm(base.shape, base.tokenizer, tensors))
    for spec in base.shape.tensors():
        assert kept.dense(spec.name).tobytes() == read.dense(spec.name).tobytes()
    pairs = [
        (base.tokenizer.encode("rot abc>", bos=True, eos=False), base.tokenizer.encode("bca", bos=False, eos=True))
    ]
    assert Forward(kept).score(pairs).loglik == Forward(read).score(pairs).loglik


def test_a_recipe_that_breaks_a_rule_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    good = {"operator": "task-delta/1", "scales": [0.3, 0.3], "skip": []}
    wild = {**good, "scales": [9.0, 0.0]}
    answer = search_worker.work(job(operators=[wild, good], suites=[], relative_delta=1.5), tmp_path)["outcomes"]
    assert "outside" in answer[0]["detail"]
    assert answer[1]["detail"] == ""
    (moved,) = search_worker.work(job(operators=[good], suites=[], relative_delta=1e-6), tmp_path)["outcomes"]
    assert "may move the weights" in moved["detail"]


def test_items_that_are_not_the_frozen_ones_are_refused(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("{}\n")
    with pytest.raises(DigestDiffers, match="suite"):
        search_worker.work(job(operators=[], suites=[[str(items), "0" * 64]], relative_delta=1.0), tmp_path)


def test_tensors_fall_into_blocks_by_filter_and_layer() -> None:
    names = ("tok_embeddings.weight", "layers.0.wo.weight", "layers.1.w1.weight", "layers.2.wo.weight", "norm.weight")
    assert [search_worker.block_of(n, 3, ()) for n in names] == [0, 0, 1, 2, 0]
    assert [search_worker.block_of(n, 3, ("wo",)) for n in names] == [3, 0, 4, 2, 3]
    assert [search_worker.block_of(n, 1, ("wo",)) for n in names] == [1, 0, 1, 0, 1]


def test_the_tables_of_a_space_are_inner_products_of_task_vectors() -> None:
    base, *parents = (read_slm(founder(n) / f"{n}.slm") for n in ("base", *PARENTS))
    tables = search_worker.inner_products(as_inputs(base, parents), 3, ["wo"])
    name = "layers.1.wo.weight"
    deltas = [p.dense(name).astype(np.float64).reshape(-1) - base.dense(name).reshape(-1) for p in parents]
    assert tables[1] == [[pytest.approx(float(a @ b), rel=1e-9) for b in deltas] for a in deltas]
