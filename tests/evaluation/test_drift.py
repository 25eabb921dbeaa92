"""Drift: divergence and alignment against their definitions, and a model beside itself and beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy

from lab_fixtures import founder, shipped_items, write_suite
from studbook.evaluation.drift_worker import alignment, divergence, work
from studbook.models.slm import read_slm


def test_divergence_is_the_relative_entropy_of_the_two_distributions() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 9)), rng.normal(size=(5, 9)) + 40.0
    p, q = (np.exp(x - x.max(axis=1, keepdims=True)) for x in (a, b))
    expected = [entropy(p[i] / p[i].sum(), q[i] / q[i].sum()) for i in range(5)]
    assert divergence(a, b) == pytest.approx(expected, rel=1e-9)
    assert divergence(a, a + 3.0) == pytest.approx(np.zeros(5), abs=1e-12)
    assert not np.isfinite(divergence(a, np.full_like(a, np.nan))).any()


def test_alignment_ignores_rotation_and_scale_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert alignment(x, 3.0 * x @ turn + 1.0) == pytest.approx(1.0)
    assert 0.0 <= alignment(x, rng.normal(size=(50, 4))) < 0.5
    assert alignment(x, np.ones((50, 4))) == 0.0
    # The kernel form of the same: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).
    y = rng.normal(size=(50, 3))
    centre = np.eye(50) - 1 / 50
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert alignment(x, y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_a_model_beside_itself_has_not_moved_and_beside_a_specialist_has(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, shipped_items("development", "cap")[:8], dimension="drift") / "items.jsonl"

    def beside(name: str) -> dict[str, Any]:
        paths = [founder(n) / f"{n}.slm" for n in (name, "base")]
        digests = [read_slm(path).sha256 for path in paths]
        named = dict(zip(("sha256", "champion_sha256"), digests, strict=True))
        job = {"model": str(paths[0]), "champion": str(paths[1]), "suites": [str(suite)], **named}
        found: dict[str, Any] = work(job, tmp_path)["suites"][0]
        return found

    same, other = beside("base"), beside("brk")
    assert same["kl"] == pytest.approx([0.0] * 8, abs=1e-9)
    assert same["cka"] == pytest.approx([1.0] * len(same["cka"]))
    assert same["before"] == same["after"]
    assert min(other["kl"]) > 1e-3
    assert all(0.0 < v < 1.0 for v in other["cka"])
