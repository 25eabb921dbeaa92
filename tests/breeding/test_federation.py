"""A federated round with real packages and no training: who is let in, who is left out, and what the mean is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab_fixtures import founder
from studbook.adapters.make import dense_delta
from studbook.breeding.federation import Gathered, Left, Update, average, gather
from studbook.errors import ParentsDoNotFit
from studbook.models.slm import Slm, parse_slm, read_slm
from studbook.models.slm_writer import write_slm

NAMES = ("rev-srt", "cap-rot", "dup-odd", "brk")
BASE = read_slm(founder("base") / "base.slm")


def sent(folder: Path, name: str, base: Slm, tuned: Slm, rows: int = 100) -> Update:
    path = folder / f"{name}.adp1"
    path.write_bytes(dense_delta(base, tuned, licence="CC0-1.0"))
    return Update(name, path, rows)


def tuned(name: str) -> Slm:
    return read_slm(founder(name) / f"{name}.slm")


@pytest.fixture
def round_(tmp_path: Path) -> list[Update | Left]:
    """Four sound clients of unequal size, and everyone who must stay outside."""
    rows = (100, 300, 200, 400)
    updates: list[Update | Left] = [sent(tmp_path, n, BASE, tuned(n), r) for n, r in zip(NAMES, rows, strict=True)]
    far = {s.name: BASE.dense(s.name) * np.float32(3) for s in BASE.shape.tensors()}
    updates.append(sent(tmp_path, "far", BASE, parse_slm(write_slm(BASE.shape, BASE.tokenizer, far))))
    updates.append(sent(tmp_path, "other-base", tuned("brk"), tuned("rev-srt")))
    broken = sent(tmp_path, "broken", BASE, tuned("brk"))
    broken.package.write_bytes(broken.package.read_bytes()[:-8] + b"\xff" * 8)
    return [*updates, broken, Left("failed", "budget.worker", "took too long")]


def test_every_client_outside_the_rules_is_left_out_with_its_reason_and_the_round_goes_on(round_):
    found = gather(BASE, round_, limit=20.0)
    assert found.clients == NAMES
    reasons = {left.client: left.reason for left in found.left}
    assert set(reasons) == {"far", "other-base", "broken", "failed"}
    assert reasons["far"] == "federated.norm"
    assert reasons["other-base"] == "adapter.model.base"
    assert reasons["broken"].startswith("adapter.")
    assert reasons["failed"] == "budget.worker"
    assert "above the limit 20" in next(left.words for left in found.left if left.client == "far")
    assert average(BASE, found, clip=20.0, limit=20.0)


def test_the_child_is_the_base_and_the_mean_of_changes_weighted_by_rows(round_):
    child = parse_slm(average(BASE, gather(BASE, round_, 20.0), clip=1e9, limit=1e9))
    for spec in BASE.shape.tensors():
        base = BASE.dense(spec.name).astype(np.float64)
        change = sum(w * (tuned(n).dense(spec.name) - base) for n, w in zip(NAMES, (0.1, 0.3, 0.2, 0.4), strict=True))
        assert np.allclose(child.dense(spec.name), base + change, atol=1e-6)


def test_a_client_never_moves_the_child_further_than_the_clip(round_):
    one = gather(BASE, round_[:1], 20.0)
    child = parse_slm(average(BASE, one, clip=0.5, limit=20.0))
    moved = np.sqrt(sum(np.square(child.dense(n).astype(np.float64) - BASE.dense(n)).sum() for n in BASE.tensors))
    assert one.norms[0] > 0.5
    assert moved == pytest.approx(0.5, rel=1e-4)


def test_a_round_of_nobody_is_refused_with_everyones_reason(round_):
    found = gather(BASE, round_[4:], 20.0)
    assert found.clients == ()
    with pytest.raises(ParentsDoNotFit) as caught:
        average(BASE, found, clip=1.0, limit=1.0)
    assert caught.value.reason == "parents.all-excluded"
    assert all(name in caught.value.advice + caught.value.message for name in ("far", "other-base", "broken", "failed"))


def test_an_empty_round_says_so():
    with pytest.raises(ParentsDoNotFit) as caught:
        average(BASE, Gathered((), (), (), (), ()), clip=1.0, limit=1.0)
    assert "no clients" in caught.value.message
