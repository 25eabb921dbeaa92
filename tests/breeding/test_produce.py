"""Nothing in a receipt is the worker's word: the lab hashes and measures what went in and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_fixtures import BLEND, CLUSTER, rewrite
from studbook.breeding import produce
from studbook.breeding.produce import delta_norm
from studbook.breeding.sources import SlmTensors
from studbook.errors import DigestDiffers
from studbook.lab import Lab
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm
from studbook.models.slm_writer import write_slm
from studbook.records import OperatorReceipt
from studbook.sandbox import Answer, Limits, run_worker

Meddle = Callable[[dict[str, Any], dict[str, Any], Path], object]


def between(monkeypatch: pytest.MonkeyPatch, meddle: Meddle) -> None:
    """Meddle after the worker has ended and before the lab looks."""

    def run(module: str, job: dict[str, Any], folder: Path, limits: Limits, reads: Any) -> Answer:
        answer = run_worker(module, job, folder, limits, reads)
        meddle(answer.value, job, folder)
        return answer

    monkeypatch.setattr(produce, "run_worker", run)


def flipped(path: Path) -> None:
    data = path.read_bytes()
    rewrite(path, data[:-1] + bytes([data[-1] ^ 1]))


LIES: dict[str, Meddle] = {
    "another digest": lambda answer, _job, _folder: answer.update(sha256="0" * 64),
    "another size": lambda answer, _job, _folder: answer.update(size=answer["size"] + 1),
    "an output written to again": lambda _answer, _job, folder: flipped(folder / "candidate.slm"),
    "a changed base": lambda _answer, job, _folder: flipped(Path(job["base"][0])),
    "a changed parent": lambda _answer, job, _folder: flipped(Path(job["parents"][-1][0])),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_differs_from_the_files_is_refused(opened: Lab, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    between(monkeypatch, LIES[lie])
    with pytest.raises(DigestDiffers) as caught:
        opened.breed(CLUSTER, BLEND)
    assert (caught.value.reason == "digest.input") == ("changed" in lie)
    assert not list(opened.desk.all(OperatorReceipt))


def test_the_change_is_measured_on_the_files(opened: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def boast(answer: dict[str, Any], _job: dict[str, Any], _folder: Path) -> None:
        seen.append(dict(answer))
        answer.update(delta_norm=0.0, after=[])

    between(monkeypatch, boast)
    child = opened.desk.model(opened.breed(CLUSTER, BLEND))
    (_, receipt), *_ = opened.desk.all(OperatorReceipt)
    assert [set(answer) for answer in seen] == [{"sha256", "size"}]
    base = opened.desk.model(opened.desk.find_model("base"))
    assert receipt.delta_norm == pytest.approx(distance(base, child), rel=1e-12)
    assert receipt.delta_norm > 0
    assert (receipt.output.sha256, receipt.output.size) == (child.sha256, child.size)


def distance(first: Slm, second: Slm) -> float:
    parts = [first.dense(n).astype(np.float64) - second.dense(n) for n in first.tensors]
    return float(np.linalg.norm(np.concatenate([part.reshape(-1) for part in parts])))


def test_the_change_of_a_quantised_child_is_measured_on_what_its_readers_decode(opened: Lab) -> None:
    base = opened.desk.model(opened.desk.find_model("base"))
    tensors = {name: base.dense(name) for name in base.tensors}
    child = parse_slm(write_slm(base.shape, base.tokenizer, tensors, dtype="q4_0"))
    assert delta_norm(SlmTensors(base), SlmTensors(base)) == 0.0
    assert delta_norm(SlmTensors(base), SlmTensors(child)) == pytest.approx(distance(base, child), rel=1e-12)
    assert delta_norm(SlmTensors(base), SlmTensors(child)) > 0.01


@pytest.mark.parametrize("change", [{"ffn_size": 8}, {"layer_count": 1}])
def test_the_change_between_models_of_other_shapes_is_beyond_every_bound(opened: Lab, change: dict[str, int]) -> None:
    base = opened.desk.model(opened.desk.find_model("base"))
    shape = SlmShape(**{f.name: getattr(base.shape, f.name) for f in fields(base.shape)} | change)
    zeros = {spec.name: np.zeros(spec.dims, dtype=np.float32) for spec in shape.tensors()}
    other = parse_slm(write_slm(shape, base.tokenizer, zeros))
    assert delta_norm(SlmTensors(base), SlmTensors(other)) == math.inf
    assert delta_norm(SlmTensors(other), SlmTensors(base)) == math.inf
