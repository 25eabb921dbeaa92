"""A round on parents that do not fit is refused before any work, with the first difference and what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PRUNE, Place, founder, problems, run_cli
from studbook.errors import (
    DigestDiffers,
    OutOfOrder,
    OutsideAllowlist,
    OverBudget,
    ParentsDoNotFit,
    RecordRefused,
    UsageError,
)
from studbook.lab import Lab
from studbook.lab.rounds import run_round
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import read_slm
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import ByteTokenizer, Tokenizer
from studbook.models.trained_files import trained_source_manifest
from studbook.records import (
    CandidateManifest,
    CompatibilityReport,
    FailureCluster,
    LineageTemplate,
    OperatorReceipt,
    ViabilityDecision,
    canonical,
)

WORK = (FailureCluster, LineageTemplate, OperatorReceipt, CandidateManifest, ViabilityDecision)
STRANGER = "stranger"


def other_founder(
    folder: Path, model: bytes, tensors: Mapping[str, np.ndarray], shape: SlmShape, tok: Tokenizer
) -> Path:
    """A founder folder whose papers are in order: licence, trained source, and a receipt that names the shipped base."""
    path = folder / STRANGER
    shutil.copytree(founder("cap-rot"), path, ignore=shutil.ignore_patterns("*.slm"))
    shutil.copytree(founder("base").parent / "data", folder / "data", dirs_exist_ok=True)
    (path / f"{STRANGER}.slm").write_bytes(model)
    (path / "source.manifest").write_bytes(trained_source_manifest(STRANGER, shape, tok, tensors))
    receipt = json.loads((path / "training.json").read_bytes())
    receipt["result_sha256"] = hashlib.sha256(model).hexdigest()
    (path / "training.json").write_bytes(canonical(receipt))
    return path


def with_shape(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    base = read_slm(founder("base") / "base.slm").shape
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__ if name != "where"}
    shape = SlmShape(**fields | changes)
    random = np.random.default_rng(3)
    tensors = {s.name: random.standard_normal(s.dims).astype(np.float32) * np.float32(0.1) for s in shape.tensors()}
    return other_founder(folder, write_slm(shape, tokenizer, tensors), tensors, shape, tokenizer)


def other_tokenizer(folder: Path) -> Path:
    pairs = BpeTokenizer.build([b"th", b"the"], [(ord("t"), ord("h"), 260, 0), (260, ord("e"), 261, 1)])
    return with_shape(folder, pairs, vocab_size=pairs.vocab_size)


def quantised(folder: Path) -> Path:
    source = read_slm(founder("cap-rot") / "cap-rot.slm")
    tensors = {spec.name: source.dense(spec.name) for spec in source.shape.tensors()}
    path = folder / f"{STRANGER}.slm"
    path.write_bytes(write_slm(source.shape, source.tokenizer, tensors, "q8_0"))
    return path


def without(*names: str) -> Callable[[Path], Path]:
    """The shipped ``brk`` without some of its papers."""

    def make(folder: Path) -> Path:
        path = folder / STRANGER
        shutil.copytree(founder("brk"), path, ignore=shutil.ignore_patterns(*names))
        shutil.copytree(founder("base").parent / "data", folder / "data", dirs_exist_ok=True)
        (path / "brk.slm").rename(path / f"{STRANGER}.slm")
        return path

    return make


def foreign_licence(folder: Path) -> Path:
    path = without()(folder)
    manifest = path / "licence.manifest"
    manifest.write_text(manifest.read_text().replace("spdx=CC0-1.0", "spdx=GPL-3.0-only"))
    return path


MISFITS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "another tokenizer": (other_tokenizer, "parents.tokenizer", "stranger has tokenizer .* \\(262 tokens\\)"),
    "another shape": (
        lambda folder: with_shape(folder, ByteTokenizer(), ffn_size=96),
        "parents.layout",
        "stranger: layers.0.w1.weight is \\(96, 64\\), in base it is \\(192, 64\\)",
    ),
    "other constants in the same shapes": (
        lambda folder: with_shape(folder, ByteTokenizer(), rope_theta=500.0),
        "parents.layout",
        "stranger differs from base in rope_theta: 500.0 against 10000.0",
    ),
    "no licence": (without("licence.manifest", "CC0-1.0.txt"), "parents.licence", "stranger has no licence on record"),
    "a licence outside the policy's table": (foreign_licence, "parents.licence", "GPL-3.0-only"),
    "no trained source": (
        without("source.manifest", "training.json"),
        "parents.adapter",
        "stranger names no base",
    ),
    "quantised": (
        quantised,
        "parents.quantisation",
        "stranger is stored as q8_0; merging quantised weights is refused",
    ),
}


def take_in(lab: Lab, path: Path) -> None:
    lab.register(path, STRANGER)
    lab.approve(STRANGER, PERSON, reason="by mistake")


def work_done(lab: Lab) -> int:
    return sum(len(list(lab.desk.workspace.all(kind))) for kind in WORK)


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_parent_that_does_not_fit_is_refused_before_any_work(new_lab: Place, tmp_path: Path, misfit: str) -> None:
    make, reason, words = MISFITS[misfit]
    with new_lab.open() as lab:
        take_in(lab, make(tmp_path))
        with pytest.raises(ParentsDoNotFit, match=words) as caught:
            lab.round(CLUSTER)
        assert caught.value.reason == reason
        assert caught.value.advice
        assert work_done(lab) == 0
        (report,) = [r for _, r in lab.desk.workspace.all(CompatibilityReport)]
        assert not report.passed
        assert lab.round(CLUSTER, parents=PARENTS).released is not None, "the others still fit"
    assert problems(new_lab) == []


def test_the_command_line_says_what_differs_and_what_to_do_without_a_traceback(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        take_in(lab, other_tokenizer(tmp_path))
    ended = run_cli(new_lab, "round", CLUSTER)
    assert ended.returncode == 5
    assert ended.stdout == ""
    assert "stranger has tokenizer" in ended.stderr
    assert "leave it out of the parents" in ended.stderr
    assert "what to do:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run_cli(new_lab, "verify").returncode == 0


# -- approval ----------------------------------------------------------------------------------------------------


def test_a_named_parent_that_nobody_approved_is_refused(opened: Lab) -> None:
    opened.register(founder("brk"))
    with pytest.raises(OutOfOrder, match="brk is registered but nobody approved it") as caught:
        opened.round(CLUSTER, parents=[*PARENTS, "brk"])
    assert "studbook approve brk --as PERSON" in caught.value.advice
    assert work_done(opened) == 0


def test_a_registered_model_that_nobody_approved_is_left_out_with_its_reason(opened: Lab) -> None:
    opened.register(founder("brk"))
    outcome = opened.round(CLUSTER)
    assert {e.name: e.reason for e in outcome.record.excluded}[
        "brk"
    ] == "is registered but nobody approved it as a parent"
    assert len(outcome.record.parents) == len(PARENTS)


def test_an_expired_approval_is_refused(opened: Lab) -> None:
    later = date.today() + timedelta(days=366)
    with pytest.raises(OutOfOrder, match="its approval ended on") as caught:
        run_round(opened.desk, CLUSTER, [BLEND], list(PARENTS), today=later)
    assert caught.value.reason == "order.approval"
    with pytest.raises(OutOfOrder, match=r"no approved parent for rot: .*its approval ended on"):
        run_round(opened.desk, CLUSTER, [BLEND], today=later)
    assert work_done(opened) == 0


def test_an_approval_for_another_cluster_is_refused(opened: Lab) -> None:
    opened.approve("cap-rot", PERSON, clusters=["cap"])
    with pytest.raises(OutOfOrder, match="cap-rot is approved for cap only, not for rot"):
        opened.round(CLUSTER, parents=list(PARENTS))
    assert work_done(opened) == 0


@pytest.mark.parametrize("until", ["2020-01-01", "tomorrow", "2030-02-30"])
def test_an_approval_until_a_day_that_is_past_or_no_day_is_refused(opened: Lab, until: str) -> None:
    with pytest.raises(UsageError):
        opened.approve("cap-rot", PERSON, until=until)


def test_a_name_nobody_knows_is_refused(opened: Lab) -> None:
    with pytest.raises(UsageError, match="'nobody' is not the name of a model here"):
        opened.round(CLUSTER, parents=["nobody", "cap-rot"])


# -- recipes and clusters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipes", "error", "words"),
    [
        ([BLEND, {"operator": "evolve/1"}], OutsideAllowlist, "evolve/1"),
        ([{"operator": "blend/1"}], RecordRefused, "weights"),
        ([BLEND | {"magic": 1}], RecordRefused, "magic"),
        ([{"operator": "prune/1", "fraction": 0.9, "scope": "global", "skip": []}], OutsideAllowlist, "fraction"),
        ([PRUNE | {"fraction": "half"}], RecordRefused, "fraction"),
        ([{"operator": "blend/1", "weights": [0.5, 0.3, 0.2]}], ParentsDoNotFit, "2"),
        ([BLEND] * 17, OverBudget, "17 recipes"),
        ([], OutsideAllowlist, "no recipe"),
    ],
)
def test_a_recipe_that_may_not_or_cannot_run_is_refused_before_any_candidate_is_bred(
    opened: Lab, recipes: list[dict[str, Any]], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        opened.round(CLUSTER, recipes)
    assert not list(opened.desk.workspace.all(LineageTemplate))


def test_a_cluster_without_a_suite_is_refused_with_the_labels_there_are(opened: Lab) -> None:
    with pytest.raises(UsageError, match="no frozen suite has the label 'brk'") as caught:
        opened.round("brk")
    assert "rot" in caught.value.advice


def test_a_parent_whose_bytes_are_gone_is_named(new_lab: Place) -> None:
    with new_lab.open() as lab:
        path = lab.desk.workspace.blob_path(lab.desk.find_model("cap-rot"))
        path.unlink()
        with pytest.raises(DigestDiffers, match="cap-rot are gone") as caught:
            lab.round(CLUSTER)
        assert caught.value.where == str(path)
        assert "register its file again" in caught.value.advice
        assert work_done(lab) == 0
