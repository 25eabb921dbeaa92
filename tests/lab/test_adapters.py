"""Packages made from models of the lab, registered, approved and fused into a candidate that is judged like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab_fixtures import BLEND, CLUSTER, PERSON, Place, founder, rewrite, run_cli
from studbook.errors import ManifestRefused, OutOfOrder, ParentsDoNotFit, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.gates import CLAIM, evidence_for
from studbook.models.slm import read_slm
from studbook.models.slm_writer import write_slm
from studbook.records import CandidateManifest, Rung

FUSE = {"operator": "adapter-fuse/1"}


def make(lab: Lab, folder: Path, name: str, **told: object) -> str:
    """A package of one founder's change, registered and approved; its name."""
    made = lab.adapters.make("base", name, folder / name, **told)  # type: ignore[arg-type]
    (manifest,) = lab.register(made.folder / "source.manifest")
    lab.approve(manifest.name, PERSON)
    return manifest.name


def test_a_dense_package_fused_into_its_base_is_the_tuned_model_up_to_one_rounding(opened: Lab, tmp_path: Path) -> None:
    package = make(opened, tmp_path, "cap-rot")
    child = opened.breed(CLUSTER, FUSE, [package])
    model, tuned = opened.desk.model(child), read_slm(founder("cap-rot") / "cap-rot.slm")
    for name in tuned.tensors:
        assert np.allclose(model.dense(name), tuned.dense(name), rtol=0, atol=2e-7), name
    assert opened.reproduce(child) == child
    assert {a.name for a in opened.lineage(child).parents} == {"base", package}
    assert opened.verify().ok


def test_a_sparse_package_keeps_the_share_that_was_asked_for_and_two_packages_stack(
    opened: Lab, tmp_path: Path
) -> None:
    first = make(opened, tmp_path, "cap-rot", kind="top", share=0.2)
    second = make(opened, tmp_path, "dup-odd", kind="random", share=0.3, seed=4)
    one = opened.breed(CLUSTER, FUSE, [first])
    two = opened.breed(CLUSTER, FUSE, [first, second])
    assert len({one, two}) == 2
    outcome = opened.decide(CLUSTER, [one, two])
    assert {s.artifact for s in outcome.record.standings} == {one, two}
    assert opened.verify().ok


def test_a_package_that_nobody_approved_is_refused(opened: Lab, tmp_path: Path) -> None:
    made = opened.adapters.make("base", "cap-rot", tmp_path / "made")
    (manifest,) = opened.register(made.folder / "source.manifest")
    with pytest.raises(OutOfOrder, match="nobody approved"):
        opened.breed(CLUSTER, FUSE, [manifest.name])


def test_a_manifest_that_says_something_else_than_its_package_is_refused(opened: Lab, tmp_path: Path) -> None:
    made = opened.adapters.make("base", "cap-rot", tmp_path / "made")
    path = made.folder / "source.manifest"
    rewrite(path, path.read_bytes().replace(b"package=ADP1", b"package=ALR1"))
    with pytest.raises(ManifestRefused, match="package"):
        opened.register(path)


@pytest.mark.parametrize(("base", "tuned"), [("base", "base"), ("nobody", "cap-rot")])
def test_nothing_to_package_is_said_in_words(opened: Lab, tmp_path: Path, base: str, tuned: str) -> None:
    with pytest.raises(StudbookError):
        opened.adapters.make(base, tuned, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_model_is_no_adapter(opened: Lab) -> None:
    with pytest.raises(UsageError, match="not an adapter"):
        opened.breed(CLUSTER, FUSE, ["cap-rot"])


def test_the_command_line_makes_a_package(old_lab: Place, tmp_path: Path) -> None:
    run = run_cli(old_lab, "adapter", "make", "base", "cap-rot", str(tmp_path / "made"), "--kind", "top")
    assert run.returncode == 0, run.stderr
    assert "ASP1" in run.stdout
    assert (tmp_path / "made" / "source.manifest").is_file()


def test_a_package_is_registered_by_its_own_folder(opened: Lab, tmp_path: Path) -> None:
    made = opened.adapters.make("base", "cap-rot", tmp_path / "made")
    (by_folder,) = opened.register(made.folder)
    entries = len(opened.desk.entries())
    (by_file,) = opened.register(made.folder / "source.manifest")
    assert by_folder == by_file
    assert len(opened.desk.entries()) == entries
    opened.approve(by_folder.name, PERSON)
    assert opened.breed(CLUSTER, FUSE, [by_folder.name])


@pytest.mark.parametrize(
    ("option", "asked"), [("--share", {"share": 0.1}), ("--seed", {"kind": "top", "seed": 1}), ("--seed", {"seed": 0})]
)
def test_what_a_package_of_a_model_would_not_read_is_refused(
    opened: Lab, tmp_path: Path, option: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as refused:
        opened.adapters.make("base", "cap-rot", tmp_path / "made", **asked)
    assert (refused.value.where, refused.value.reason) == (option, "usage.ignored")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("option", "asked"), [("base", {"base": "base"}), ("threads", {"threads": 2})])
def test_what_breeding_for_a_cluster_would_not_read_is_refused(opened: Lab, option: str, asked: dict[str, Any]) -> None:
    entries = len(opened.desk.entries())
    with pytest.raises(UsageError) as refused:
        opened.breed(CLUSTER, BLEND, **asked)
    assert (refused.value.where, refused.value.reason) == (option, "usage.ignored")
    assert len(opened.desk.entries()) == entries


def test_a_package_leaves_the_lab_as_itself(opened: Lab, tmp_path: Path) -> None:
    made = opened.adapters.make("base", "cap-rot", tmp_path / "made")
    (manifest,) = opened.register(made.folder / "source.manifest")
    opened.export(manifest.name, tmp_path / "out")
    (package,) = (tmp_path / "out").glob("*.adp1")
    assert package.read_bytes() == next(made.folder.glob("*.adp1")).read_bytes()


def test_a_name_never_leads_out_of_a_folder(opened: Lab, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plain name"):
        opened.register(founder("brk"), "x/../../evil")


def test_a_build_that_no_receipt_of_the_lab_vouches_for_is_refused(opened: Lab, tmp_path: Path) -> None:
    package, base = make(opened, tmp_path, "cap-rot"), read_slm(founder("base") / "base.slm")
    data = write_slm(base.shape, base.tokenizer, {n: base.dense(n) for n in base.tensors}, dtype="q8_0")
    (tmp_path / "stranger.slm").write_bytes(data)
    opened.register(tmp_path / "stranger.slm")
    for name in ("stranger", "dup-odd"):
        with pytest.raises(ParentsDoNotFit, match="no receipt of this lab") as caught:
            opened.breed(CLUSTER, FUSE, [name, package])
        assert caught.value.reason == "parents.adapter"
    assert not list(opened.desk.all(CandidateManifest))


def quantised(lab: Lab, dtype: str = "q8_0") -> str:
    """A quantised build of the base, bred in the lab; its digest."""
    return lab.breed(CLUSTER, {"operator": "quantise/1", "dtype": dtype})


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0"])
def test_a_package_is_fused_onto_a_build_that_a_receipt_of_the_lab_vouches_for(
    opened: Lab, tmp_path: Path, dtype: str
) -> None:
    package, build = make(opened, tmp_path, "cap-rot"), quantised(opened, dtype)
    child = opened.breed(CLUSTER, FUSE, [opened.desk.name_of(build), package])
    model, below = opened.desk.model(child), opened.desk.model(build)
    base, tuned = (read_slm(founder(n) / f"{n}.slm") for n in ("base", "cap-rot"))
    for name in tuned.tensors:
        change = tuned.dense(name).astype(np.float64) - base.dense(name)
        assert np.allclose(model.dense(name), below.dense(name) + change, rtol=0, atol=4e-7), name
    assert {a.name for a in opened.lineage(child).parents} >= {opened.desk.name_of(build), package}
    assert opened.reproduce(child) == child
    assert child != opened.breed(CLUSTER, FUSE, ["base", package]) == opened.breed(CLUSTER, FUSE, [package])
    assert opened.verify().ok


def test_a_fused_child_shows_less_than_what_may_enter_shadow(opened: Lab, tmp_path: Path) -> None:
    child = opened.breed(CLUSTER, FUSE, [make(opened, tmp_path, "cap-rot")])
    blend = opened.breed(CLUSTER, BLEND)
    assert CLAIM is Rung.TRAINED
    assert not evidence_for(opened.desk, child)[CLAIM]
    assert evidence_for(opened.desk, blend)[CLAIM]
