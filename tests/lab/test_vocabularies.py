"""A child with another vocabulary is put on record against both tokenizers."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, founder, small_policy, small_suites
from studbook.breeding.operators.tokenizer_prune import TokenizerPrune
from studbook.breeding.template import operator_fields
from studbook.lab import Lab
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import read_slm
from studbook.models.slm_writer import write_slm
from studbook.models.trained_files import trained_source_manifest
from studbook.records import CompatibilityReport, canonical

PAIRS = BpeTokenizer.build([b"th", b"the"], [(ord("t"), ord("h"), 260, 0), (260, ord("e"), 261, 1)])


def paired(folder: Path) -> Path:
    """A founder folder whose model has the shape of the base and a vocabulary of pairs, its weights noise."""
    path = folder / "paired"
    shutil.copytree(founder("base"), path, ignore=shutil.ignore_patterns("*.slm", "training.json"))
    shutil.copytree(founder("base").parent / "data", folder / "data", dirs_exist_ok=True)
    manifest = path / "data.manifest"
    manifest.write_text(manifest.read_text().replace("name=base-curriculum", "name=paired-curriculum"))
    base = read_slm(founder("base") / "base.slm").shape
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__ if name != "where"}
    shape = SlmShape(**fields | {"vocab_size": PAIRS.vocab_size})
    random = np.random.default_rng(3)
    tensors = {s.name: random.standard_normal(s.dims).astype(np.float32) * np.float32(0.1) for s in shape.tensors()}
    model = write_slm(shape, PAIRS, tensors)
    (path / "paired.slm").write_bytes(model)
    (path / "source.manifest").write_bytes(trained_source_manifest("paired", shape, PAIRS, tensors))
    receipt = json.loads((founder("base") / "training.json").read_bytes())
    (path / "training.json").write_bytes(canonical({**receipt, "result_sha256": hashlib.sha256(model).hexdigest()}))
    return path


def test_a_pruned_vocabulary_is_reported_against_both_tokenizers(tmp_path: Path) -> None:
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(tmp_path))
    with place.open() as lab:
        for path in (founder("base"), *map(founder, PARENTS), paired(tmp_path)):
            lab.register(path)
            lab.approve(path.name, PERSON)
        lab.suites.freeze([small_suites(tmp_path / "suites")], PERSON)
        lab.release("paired", "champion", PERSON)
        recipe = operator_fields(TokenizerPrune.of(PAIRS, 1))
        child = lab.breed(CLUSTER, recipe, PARENTS)
        (report,) = [r for _, r in lab.desk.all(CompatibilityReport) if child in r.parents]
        (change,) = report.tokenizers
        assert (report.base, change.parent) == (lab.desk.find_model("paired"), child)
        assert (change.kept, change.dropped, change.added, change.failed) == (261, 1, 0, 0)
        assert change.text_bytes > 0
        assert change.base_tokens <= change.parent_tokens
        checks = {c.name: c.passed for c in report.checks}
        assert not checks["tokenizer"]
        assert checks["adapter"], "it descends from its base"
        assert checks["provenance"]
        assert lab.verify().ok
