from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skills
from numpy.typing import NDArray

from studbook.errors import DigestDiffers
from studbook.models.forward import Forward
from studbook.models.manifests import check_trained_source, parse_manifest, read_trained_source
from studbook.models.slm import Slm, parse_slm, read_slm, write_slm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOUNDERS = EXAMPLES / "founders"
SPECIALISTS = {"rev-srt": ("rev", "srt"), "cap-rot": ("cap", "rot"), "dup-odd": ("dup", "odd"), "brk": ("brk",)}
NAMES = ("base", *SPECIALISTS, "ceiling")
ONE_SIDED_95 = 1.6448536269514722


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def founder(name: str) -> Slm:
    return read_slm(FOUNDERS / name / f"{name}.slm")


def receipt(name: str) -> dict[str, object]:
    return dict(json.loads((FOUNDERS / name / "training.json").read_bytes()))


def right(slm: Slm, role: str, skill: str) -> NDArray[np.bool_]:
    lines = (EXAMPLES / "suites" / role / f"{role}-{skill}" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    encode = slm.tokenizer.encode
    pairs = [(encode(item["prompt"], eos=False), encode(item["expected"], bos=False)) for item in items]
    return Forward(slm).score(pairs).exact


@cache
def on_selection(name: str) -> NDArray[np.bool_]:
    return np.concatenate([right(founder(name), "selection", skill) for skill in skills.SKILLS])


def test_the_pins_match_every_shipped_byte_and_leave_none_out() -> None:
    lines = (FOUNDERS / "founders.lock").read_text(encoding="utf-8").splitlines()
    pins = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    assert {path: sha256(FOUNDERS / path) for path in pins} == pins
    folders = [FOUNDERS / name for name in (*NAMES, "data")]
    there = {path.relative_to(FOUNDERS).as_posix() for folder in folders for path in folder.rglob("*")}
    assert there == set(pins)


@pytest.mark.parametrize("name", NAMES)
def test_a_founder_is_a_small_f32_model_of_the_declared_shape(name: str) -> None:
    slm = founder(name)
    shape = slm.shape
    assert slm.label == "f32"
    assert (shape.hidden_size, shape.layer_count, shape.head_count, shape.ffn_size) == (64, 3, 4, 192)
    assert (shape.vocab_size, shape.max_context, shape.tied) == (260, 64, True)
    assert slm.layout_sha256 == founder("base").layout_sha256
    assert slm.size < 720_000


@pytest.mark.parametrize("name", NAMES)
def test_the_trained_source_manifest_is_bound_to_the_container(name: str) -> None:
    source = read_trained_source(FOUNDERS / name / "source.manifest")
    check_trained_source(source, founder(name))


def test_the_manifest_of_one_founder_does_not_fit_another() -> None:
    source = read_trained_source(FOUNDERS / "brk" / "source.manifest")
    with pytest.raises(DigestDiffers, match="the container's payload is"):
        check_trained_source(source, founder("base"))


@pytest.mark.parametrize("name", NAMES)
def test_the_licence_record_names_the_text_beside_it(name: str) -> None:
    folder = FOUNDERS / name
    licence = parse_manifest((folder / "licence.manifest").read_bytes(), folder)
    assert licence["spdx"] == "CC0-1.0"
    assert licence["text_sha256"] == sha256(folder / licence["text_path"])
    assert "CC0-1.0" in (EXAMPLES.parent / licence["declared_in"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_data_manifest_matches_generator_slices_and_receipt(name: str) -> None:
    folder = FOUNDERS / name
    manifest = parse_manifest((folder / "data.manifest").read_bytes(), folder)
    own = SPECIALISTS.get(name, skills.SKILLS)
    assert manifest["licence"] == "CC0-1.0"
    assert manifest["split"] == "train"
    assert manifest["split_rule"] == skills.SPLIT_RULE
    assert manifest["skills"].split(" ") == list(own)
    assert manifest["rehearsal"] == ("0.25" if name in SPECIALISTS else "0.0")
    assert manifest["generator_sha256"] == skills.generator_sha256()
    for number, skill in enumerate(skills.SKILLS):
        path = FOUNDERS / manifest[f"file.{number}.path"]
        assert path.name == f"{skill}.jsonl"
        assert manifest[f"file.{number}.sha256"] == sha256(path)
        assert int(manifest[f"file.{number}.rows"]) == len(path.read_bytes().splitlines())
    assert receipt(name)["data_manifest_sha256"] == sha256(folder / "data.manifest")
    assert receipt(name)["rows"] == int(manifest["rows"])
    assert str(receipt(name)["seed"]) == manifest["seed"]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_receipt_is_canonical_and_names_result_start_and_sources(name: str) -> None:
    text = (FOUNDERS / name / "training.json").read_bytes()
    fields = json.loads(text)
    assert json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() == text
    assert fields["result_sha256"] == founder(name).sha256
    assert fields["result_bytes"] == founder(name).size
    assert fields["start_sha256"] == (founder("base").sha256 if name in SPECIALISTS else None)
    assert fields["source_sha256"] == {path: sha256(FOUNDERS / path) for path in fields["source_sha256"]}
    assert fields["rows"] == fields["steps"] * fields["recipe"]["batch"]
    assert set(fields["environment_class"]) == {"cpu_capability", "cpu_vendor", "platform", "torch"}


def test_the_ceiling_saw_no_more_rows_than_base_and_specialists_together() -> None:
    rows = {name: int(str(receipt(name)["rows"])) for name in NAMES}
    together = sum(rows.values()) - rows["ceiling"]
    assert 0 <= together - rows["ceiling"] < 112


@pytest.mark.parametrize("name", NAMES)
def test_the_lab_measures_the_development_accuracy_that_training_recorded(name: str) -> None:
    slm = founder(name)
    measured = {skill: int(right(slm, "development", skill).sum()) for skill in skills.SKILLS}
    recorded = receipt(name)["development_right"]
    assert isinstance(recorded, dict)
    # Two engines may break a near-tie of two logits differently; more than a few items would be another model.
    assert all(abs(measured[skill] - recorded[skill]) <= 2 for skill in skills.SKILLS)


def test_the_base_leaves_room_and_every_specialist_is_best_at_what_it_learned() -> None:
    recorded = {name: receipt(name)["development_right"] for name in NAMES}
    assert 0.65 < sum(recorded["base"].values()) / 1400 < 0.75
    for name, own in SPECIALISTS.items():
        for skill in own:
            others = [recorded[other][skill] for other in ("base", *SPECIALISTS) if other != name]
            assert recorded[name][skill] > max(others)


def test_a_blend_of_the_four_parents_beats_the_best_of_them_and_the_base_in_every_skill() -> None:
    parents = [founder(name) for name in SPECIALISTS]
    blended = {
        key: sum((slm.dense(key) for slm in parents[1:]), parents[0].dense(key)) / 4 for key in parents[0].tensors
    }
    child_slm = parse_slm(write_slm(parents[0].shape, parents[0].tokenizer, blended))
    child = np.concatenate([right(child_slm, "selection", skill) for skill in skills.SKILLS])
    best = max((on_selection(name) for name in SPECIALISTS), key=np.mean)
    difference = child.astype(float) - best.astype(float)
    gain = difference.mean()
    lower = gain - ONE_SIDED_95 * np.sqrt((np.mean(difference != 0) - gain**2) / len(difference))
    assert len(difference) == 7000
    assert lower > 0
    by_skill = (child.astype(int) - on_selection("base").astype(int)).reshape(7, 1000).mean(1)
    assert (by_skill > 0).all()
