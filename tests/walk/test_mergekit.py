"""A mergekit file becomes a child of the lab: names are looked up, notes are said, the arithmetic is the operators'."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import bf16, read_llama, write_llama
from studbook.errors import StudbookError, UsageError
from studbook.lab import Lab

PERSON = "ann"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with a base and two that were tuned from it."""
    folder = tmp_path_factory.mktemp("home")
    write_llama(folder / "base", 0)
    write_llama(folder / "first", 1, folder / "base")
    write_llama(folder / "second", 2, folder / "base")
    Lab.init(folder / "lab", PERSON, folder / "keys")
    with Lab(folder / "lab", folder / "keys") as lab:
        for name in ("base", "first", "second"):
            lab.register(folder / name)
            lab.approve(name, PERSON)
    return folder


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    """A copy of it, opened."""
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / "home" / "lab", tmp_path / "home" / "keys") as opened:
        yield opened


def merged(lab: Lab, text: str, folder: Path) -> dict[str, np.ndarray]:
    """The child of a file, exported and read."""
    lab.export(lab.breed(None, {"mergekit": text, "where": "config.yml"}), folder / "out")
    return read_llama(folder / "out")


def test_a_linear_file_gives_the_weighted_mean(lab: Lab, home: Path, tmp_path: Path) -> None:
    text = """
models:
  - model: ./models/first
    parameters: {weight: 0.25}
  - model: someone/second
    parameters: {weight: 0.75}
merge_method: linear
dtype: bfloat16
"""
    found, a, b = merged(lab, text, tmp_path), read_llama(home / "first"), read_llama(home / "second")
    for name, values in found.items():
        wanted = np.float32(0.25) * a[name] + np.float32(0.75) * b[name]
        assert np.array_equal(bf16(values), bf16(wanted)), name


def test_stacked_layers_are_copies_and_the_config_counts_them(lab: Lab, home: Path, tmp_path: Path) -> None:
    text = """
slices:
  - sources: [{model: first, layer_range: [0, 2]}]
  - sources: [{model: second, layer_range: [1, 2]}]
merge_method: passthrough
dtype: bfloat16
"""
    found, a, b = merged(lab, text, tmp_path), read_llama(home / "first"), read_llama(home / "second")
    assert '"num_hidden_layers": 3' in (tmp_path / "out" / "config.json").read_text()
    for name, values in found.items():
        source = a
        if name.startswith("model.layers.2."):
            name, source = name.replace("layers.2.", "layers.1."), b
        if name in ("model.norm.weight", "lm_head.weight"):
            source = b
        assert np.array_equal(values, source[name]), name


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: first}, {model: nobody}]\n",
            "nobody",
        ),
        ("merge_method: karcher\nmodels: [{model: first}, {model: second}]\n", "karcher"),
        ("merge_method: linear\nmodels: [{model: first}\n", "config.yml"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place(lab: Lab, text: str, word: str) -> None:
    with pytest.raises(StudbookError, match=word):
        lab.breed(None, {"mergekit": text, "where": "config.yml"})


def test_a_file_that_names_its_parents_goes_with_no_other(lab: Lab) -> None:
    with pytest.raises(UsageError):
        lab.breed(None, {"mergekit": "merge_method: linear", "where": "config.yml"}, ["first"])


def test_a_path_that_is_taken_for_a_name_of_the_lab_is_said_once(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(lab.desk.progress, "say", said.append)
    text = "models: [{model: /models/first}, {model: second}]\nmerge_method: linear\nparameters: {weight: 1}\n"
    merged(lab, text, tmp_path)
    assert [line for line in said if "is taken for" in line] == [
        f"/models/first is taken for first of this lab, {lab.desk.find_model('first')[:12]}"
    ]


def test_a_seed_for_a_merge_that_draws_nothing_is_refused(lab: Lab) -> None:
    text = "models: [{model: first}, {model: second}]\nmerge_method: linear\nparameters: {weight: 1}\n"
    with pytest.raises(UsageError, match="draws nothing") as caught:
        lab.breed(None, {"mergekit": text, "where": "config.yml", "seed": 3})
    assert caught.value.where == "--seed"
    drawn = (
        "models: [{model: first, parameters: {weight: 1, density: 0.5}}]\nmerge_method: dare_linear\nbase_model: base\n"
    )
    assert lab.breed(None, {"mergekit": drawn, "where": "config.yml", "seed": 3})
