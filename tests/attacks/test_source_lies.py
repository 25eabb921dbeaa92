"""Registrations that tell something else than the stored bytes: every field is derived again, and named when it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from checkpoint_fixtures import HIDDEN, safetensors_bytes, write_llama
from lab_fixtures import PERSON, Place, founder, problems
from studbook.errors import DigestDiffers, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.replay import check_record
from studbook.records import Blob, SourceManifest, replace

OTHER = "0" * 64


def write_lora(folder: Path) -> Path:
    """A PEFT folder of rank 2 on the query projections of two layers."""
    rng = np.random.default_rng(9)
    tensors = {}
    for layer in range(2):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = ("F32", rng.standard_normal((2, HIDDEN)).astype(np.float32))
        tensors[f"{stem}.lora_B.weight"] = ("F32", rng.standard_normal((HIDDEN, 2)).astype(np.float32))
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "tiny"}))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab with a checkpoint, a LoRA folder, a founder and an adapter package; only copy it."""
    folder = tmp_path_factory.mktemp("home")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        lab.register(write_llama(folder / "llama", 0))
        lab.register(write_lora(folder / "lora"))
        lab.register(founder("base"))
        lab.register(founder("rev-srt"))
        made = lab.adapters.make("base", "rev-srt", folder / "package")
        lab.register(made.folder / "source.manifest")
    return place


@pytest.fixture
def lab(home: Place, tmp_path: Path) -> Iterator[Lab]:
    with home.copy(tmp_path / "copy").open() as opened:
        yield opened


def source(lab: Lab, form: str) -> SourceManifest:
    tags = ((m, type(m.source).__struct_config__.tag) for _, m in lab.desk.all(SourceManifest))
    return next(m for m, tag in tags if tag == form)


def told(lab: Lab, forged: SourceManifest) -> StudbookError | None:
    lab.desk.workspace.commit(forged)
    entry = lab.desk.workspace.ledger.entries[-1]
    try:
        check_record(lab.desk.at(entry.sequence), entry)
    except StudbookError as error:
        return error
    return None


def test_every_true_registration_holds(home: Place) -> None:
    assert problems(home) == []


LIES: list[tuple[str, str, Any]] = [
    ("checkpoint", "label", "f32"),
    ("checkpoint", "parameters", 1),
    ("checkpoint", "architecture", "GemmaForCausalLM"),
    ("checkpoint", "vocab_size", 33),
    ("checkpoint", "tokenizer_sha256", OTHER),
    ("checkpoint", "layout_sha256", OTHER),
    ("checkpoint", "weights_bytes", 1),
    ("lora", "rank", 3),
    ("lora", "tensors", 9),
    ("lora", "base_name", "another"),
    ("model", "label", "q8_0"),
    ("model", "parameters", 1),
    ("model", "tokenizer_sha256", OTHER),
    ("model", "layout_sha256", OTHER),
    ("model", "trained_manifest", OTHER),
    ("model", "base", OTHER),
    ("adapter", "package", "ALR1"),
    ("adapter", "base", OTHER),
    ("adapter", "tokenizer_sha256", OTHER),
    ("licence", "text_sha256", OTHER),
]


@pytest.mark.parametrize(("form", "field", "value"), LIES, ids=lambda v: str(v)[:20])
def test_a_field_that_its_bytes_do_not_bear_out_is_refused_and_named(
    lab: Lab, form: str, field: str, value: Any
) -> None:
    true = source(lab, form)
    assert getattr(true.source, field) != value
    found = told(lab, replace(true, source=msgspec.structs.replace(true.source, **{field: value})))
    assert isinstance(found, DigestDiffers)
    assert found.reason == "source.field"
    assert found.where == f"source {true.name}: {field}"
    assert found.advice


@pytest.mark.parametrize("form", ["checkpoint", "lora"])
def test_a_registration_that_names_other_files_than_its_list_is_refused(lab: Lab, form: str) -> None:
    true = source(lab, form)
    first, *others = true.files
    for files in (tuple(others), (Blob(sha256=first.sha256, size=first.size + 1), *others)):
        found = told(lab, replace(true, files=files))
        assert isinstance(found, DigestDiffers)
        assert found.where.endswith(": files")


@pytest.mark.parametrize("form", ["checkpoint", "lora", "model", "licence"])
def test_a_size_that_is_not_the_artifacts_is_refused(lab: Lab, form: str) -> None:
    true = source(lab, form)
    found = told(lab, replace(true, artifact=Blob(sha256=true.artifact.sha256, size=true.artifact.size + 1)))
    assert isinstance(found, DigestDiffers)
    assert found.where.endswith(": artifact.size")


def test_rows_that_a_data_file_does_not_have_are_refused(lab: Lab) -> None:
    true = source(lab, "data")
    first, *others = true.source.files  # type: ignore[union-attr]
    files = (msgspec.structs.replace(first, rows=first.rows + 1), *others)
    found = told(lab, replace(true, source=msgspec.structs.replace(true.source, files=files)))
    assert isinstance(found, DigestDiffers)
    assert found.where.endswith(": files.rows")


@pytest.mark.parametrize("option", ["kind", "share", "seed"])
def test_what_a_package_of_a_lora_would_not_read_is_refused(lab: Lab, tmp_path: Path, option: str) -> None:
    asked: dict[str, Any] = {"kind": "dense", "share": 0.5, "seed": 1}
    with pytest.raises(UsageError) as refused:
        lab.adapters.make("base", "lora", tmp_path / "made", **{option: asked[option]})
    assert (refused.value.where, refused.value.reason) == (f"--{option}", "usage.ignored")


def test_verify_names_the_file_of_the_registration_that_lies(home: Place, tmp_path: Path) -> None:
    place = home.copy(tmp_path / "lying")
    with place.open() as lab:
        true = source(lab, "lora")
        forged = lab.desk.workspace.commit(replace(true, source=msgspec.structs.replace(true.source, rank=3)))
    assert [Path(where).stem for where in problems(place)] == [forged]
