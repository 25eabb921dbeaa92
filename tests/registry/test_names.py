"""A name is one thing's: registration refuses a second owner of a name, and says when nothing is new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import founder
from studbook.errors import DigestDiffers, UsageError
from studbook.lab import Lab
from studbook.lab.progress import Silent
from studbook.records import CompatibilityReport, SourceManifest

PERSON = "ann"
PRUNE = {"operator": "prune/1", "fraction": 0.2, "scope": "global", "skip": ["*embed*", "*norm*"]}


class Heard(Silent):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def lab(tmp_path: Path, heard: Heard) -> Iterator[Lab]:
    """A lab with one checkpoint, called llama."""
    Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys")
    write_llama(tmp_path / "llama", 0)
    with Lab(tmp_path / "lab", tmp_path / "keys", progress=heard) as opened:
        opened.register(tmp_path / "llama")
        yield opened


def sources(lab: Lab) -> list[str]:
    return [m.name for _, m in lab.desk.all(SourceManifest)]


def refused(lab: Lab, path: Path, name: str | None = None) -> UsageError:
    before = len(lab.desk.entries())
    with pytest.raises(UsageError) as caught:
        lab.register(path, name)
    assert len(lab.desk.entries()) == before, "nothing was registered"
    return caught.value


def test_a_name_that_is_another_checkpoints_is_refused_with_advice(lab: Lab, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other" / "llama", 1)
    for path, name in ((other, None), (write_llama(tmp_path / "second", 2), "llama")):
        found = refused(lab, path, name)
        assert found.reason == "usage.name-taken"
        assert "the name 'llama' is taken" in found.message
        assert "--name NAME" in found.advice


def test_kinds_share_one_space_of_names(lab: Lab, tmp_path: Path) -> None:
    """A container and data are held against a checkpoint, and a checkpoint against them."""
    assert refused(lab, founder("brk"), "llama").reason == "usage.name-taken"
    lab.register(founder("brk"))
    assert refused(lab, write_llama(tmp_path / "brk", 1)).reason == "usage.name-taken"
    assert refused(lab, tmp_path / "brk", "brk-curriculum").reason == "usage.name-taken"
    assert refused(lab, founder("cap-rot"), "brk").where == "--name"


def test_the_name_of_something_that_was_bred_is_taken(lab: Lab, tmp_path: Path) -> None:
    lab.approve("llama", PERSON)
    child = lab.breed(None, PRUNE, ["llama"])
    found = refused(lab, write_llama(tmp_path / "other", 1), lab.desk.name_of(child))
    assert "a candidate that was bred here" in found.message


def test_one_licence_may_come_with_many_models(lab: Lab, tmp_path: Path) -> None:
    lab.register(write_llama(tmp_path / "other", 1, card="---\nlicense: apache-2.0\n---\nanother card\n"))
    assert sources(lab).count("Apache-2.0") == 2


def test_the_same_bytes_under_the_same_name_are_registered_already_and_it_is_said(
    lab: Lab, tmp_path: Path, heard: Heard
) -> None:
    entries, artifact = len(lab.desk.entries()), lab.desk.find_model("llama")
    assert not heard.lines
    assert lab.register(tmp_path / "llama")[-1].artifact.sha256 == artifact
    assert len(lab.desk.entries()) == entries
    assert heard.lines == [f"llama is registered already, with the same bytes: {artifact}"]


def test_the_same_bytes_under_another_name_are_refused(lab: Lab, tmp_path: Path) -> None:
    found = refused(lab, tmp_path / "llama", "lama")
    assert "is registered already as llama with another name" in found.message


@pytest.mark.parametrize("name", ["champion", "shadow", "deadbeef"])
def test_a_folder_whose_name_means_something_else_needs_a_name(lab: Lab, tmp_path: Path, name: str) -> None:
    path = write_llama(tmp_path / name, 1)
    found = refused(lab, path)
    assert found.reason == "usage.name"
    assert "use --name" in found.advice
    assert lab.register(path, "plain")[-1].name == "plain"


def test_a_name_for_what_names_itself_is_refused(lab: Lab) -> None:
    found = refused(lab, founder("brk") / "licence.manifest", "mine")
    assert found.where == "--name"
    assert "licence.manifest says itself that it is called CC0-1.0" in found.advice


# -- checkpoints in compare ----------------------------------------------------------------------------------------


def test_two_checkpoints_are_compared_and_the_report_is_a_record(lab: Lab, tmp_path: Path) -> None:
    lab.register(write_llama(tmp_path / "tuned", 1, tmp_path / "llama"))
    report = lab.compare("llama", ["tuned"])
    assert report.passed
    assert lab.compare("llama", ["tuned"]) == report
    assert [r for _, r in lab.desk.all(CompatibilityReport)] == [report]
    assert lab.verify().ok


def test_a_checkpoint_is_not_compared_with_a_container(lab: Lab) -> None:
    lab.register(founder("brk"))
    for names in (("llama", ["brk"]), ("brk", ["llama"])):
        with pytest.raises(UsageError, match="brk: is no checkpoint"):
            lab.compare(*names)


def test_a_checkpoint_whose_bytes_are_gone_is_named(lab: Lab, tmp_path: Path) -> None:
    lab.register(write_llama(tmp_path / "tuned", 1, tmp_path / "llama"))
    weights = next(
        p for p in (tmp_path / "lab" / "registry" / "blobs").iterdir()
        if p.read_bytes() == (tmp_path / "tuned" / "model.safetensors").read_bytes()
    )  # fmt: skip
    weights.unlink()
    with pytest.raises(DigestDiffers, match="bytes of tuned are gone") as caught:
        lab.compare("llama", ["tuned"])
    assert caught.value.reason == "digest.missing"
    assert caught.value.where == str(weights)
