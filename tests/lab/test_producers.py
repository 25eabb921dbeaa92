"""Sources that their producer signed: what is recorded of it, where it is shown, and what is said when nobody checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import PERSON, Place, founder, rewrite, run_cli
from producer_fixtures import SIGNATURE, curve_key, digests, edwards_key, link_folder, public_file, sign_folder
from studbook.errors import DigestDiffers, UsageError
from studbook.lab import Lab
from studbook.lab.papers import Papers
from studbook.lab.producers import Producer, signatures
from studbook.models.manifests import write_trained_source
from studbook.models.slm import read_slm
from studbook.records import ProducerSignature, SourceManifest


class Told:
    """Progress that keeps what was said."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        monkeypatch.setattr(lab.desk.progress, "say", self.lines.append)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("empty")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    return place


@pytest.fixture
def place(empty: Place, tmp_path: Path) -> Place:
    return empty.copy(tmp_path / "copy")


@pytest.fixture
def lab(place: Place) -> Iterator[Lab]:
    with place.open() as opened:
        yield opened


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return public_file(tmp_path / "producer.pem", curve_key())


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "llama", 0)


def only(lab: Lab) -> ProducerSignature:
    ((_, record),) = lab.desk.all(ProducerSignature)
    return record


def test_a_signed_checkpoint_is_registered_with_the_record_of_its_signature(lab: Lab, llama: Path, key: Path) -> None:
    signature = sign_folder(llama, name="a llama")
    *_, manifest = lab.register(llama, producer=Producer(key))
    record = only(lab)
    assert (record.form, record.name, record.artifact) == ("oms", "a llama", manifest.artifact.sha256)
    assert record.covered == tuple(sorted(digests(llama)))
    assert record.absent == ()
    assert lab.desk.workspace.blob(record.document_sha256) == signature.read_bytes()
    assert lab.desk.workspace.get(record.source, SourceManifest) == manifest
    assert lab.desk.workspace.void(lab.desk.entries()[-1]) is False
    assert lab.verify().ok


def test_a_link_by_an_edwards_key_does_as_well_and_may_lie_elsewhere(lab: Lab, llama: Path, tmp_path: Path) -> None:
    place = link_folder(llama, tmp_path / "train.link")
    key = public_file(tmp_path / "ed.pem", edwards_key())
    lab.register(llama, producer=Producer(key, place))
    assert (only(lab).form, only(lab).name) == ("in-toto-link", "train")
    assert lab.verify().ok


def test_what_was_signed_and_is_not_taken_is_listed_and_said(
    lab: Lab, llama: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama / "pytorch_model.bin").write_bytes(b"never opened")
    sign_folder(llama)
    told = Told(lab, monkeypatch)
    lab.register(llama, producer=Producer(key))
    assert only(lab).absent == ("pytorch_model.bin",)
    assert any("pytorch_model.bin" in line for line in told.lines)
    assert lab.verify().ok


def test_a_signature_nobody_gave_a_key_for_is_said_to_be_unchecked_and_not_recorded(
    lab: Lab, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_folder(llama, curve_key(0xBAD))
    told = Told(lab, monkeypatch)
    lab.register(llama)
    assert any("NOT checked" in line and SIGNATURE in line for line in told.lines)
    assert list(lab.desk.all(ProducerSignature)) == []
    assert any("no signature over its files" in text for text in lab.audit("llama").assumptions)


def test_the_same_source_registered_again_with_its_signature_gains_only_the_record(
    lab: Lab, llama: Path, key: Path
) -> None:
    lab.register(llama)
    before = len(lab.desk.entries())
    sign_folder(llama)
    for _ in range(2):
        lab.register(llama, producer=Producer(key))
        assert len(lab.desk.entries()) == before + 1
    assert lab.verify().ok


def test_a_founder_folder_is_covered_with_every_file_that_was_read_of_it(lab: Lab, tmp_path: Path, key: Path) -> None:
    folder = shutil.copytree(founder("cap-rot"), tmp_path / "founders" / "cap-rot")
    for beside in founder("cap-rot").parent.iterdir():
        if beside.name != "cap-rot" and beside.name != "base" and beside.is_dir() and not any(beside.glob("*.slm")):
            shutil.copytree(beside, tmp_path / "founders" / beside.name)
    sign_folder(folder)
    *_, manifest = lab.register(folder, producer=Producer(key))
    held = {manifest.artifact.sha256, *(b.sha256 for b in manifest.files)}
    names = {path for path, sha256 in digests(folder).items() if sha256 in held}
    assert names | {"licence.manifest", "data.manifest"} <= set(only(lab).covered)
    assert lab.verify().ok


@pytest.mark.parametrize("changed", ["licence.manifest", "data.manifest"])
def test_a_founder_folder_whose_papers_were_changed_is_refused(
    lab: Lab, tmp_path: Path, key: Path, changed: str
) -> None:
    folder = shutil.copytree(founder("cap-rot").parent, tmp_path / "founders") / "cap-rot"
    sign_folder(folder)
    path = folder / changed
    rewrite(path, path.read_bytes() + b"note=x\n")
    before = len(lab.desk.entries())
    with pytest.raises(DigestDiffers, match=changed) as refused:
        lab.register(folder, producer=Producer(key))
    assert refused.value.reason == "oms.file"
    assert len(lab.desk.entries()) == before


def test_a_single_file_and_a_converted_model_cannot_be_vouched_for(lab: Lab, tmp_path: Path, key: Path) -> None:
    with pytest.raises(UsageError) as refused:
        lab.register(founder("base") / "base.slm", producer=Producer(key))
    assert refused.value.reason == "producer.folder"
    model = read_slm(founder("base") / "base.slm")
    tensors = {name: model.dense(name) for name in model.tensors}
    folder = tmp_path / "parts"
    write_trained_source(folder, "parts", model.shape, model.tokenizer, tensors)
    sign_folder(folder)
    with pytest.raises(UsageError) as refused:
        lab.register(folder, producer=Producer(key))
    assert refused.value.reason == "producer.converted"
    assert list(lab.desk.all(SourceManifest)) == []


def test_an_adapter_package_is_registered_by_its_folder_and_may_be_signed(lab: Lab, tmp_path: Path, key: Path) -> None:
    for name in ("base", "cap-rot"):
        lab.register(founder(name))
    made = lab.adapters.make("base", "cap-rot", tmp_path / "package")
    sign_folder(made.folder)
    path = made.folder / "source.manifest"
    signed = path.read_bytes()
    rewrite(path, signed + b"note=x\n")
    with pytest.raises(DigestDiffers, match=r"source\.manifest"):
        lab.register(made.folder, producer=Producer(key))
    rewrite(path, signed)
    (manifest,) = lab.register(made.folder, producer=Producer(key))
    assert manifest.name == "cap-rot-dense"
    assert only(lab).covered == tuple(sorted(digests(made.folder)))
    assert lab.verify().ok


def test_show_audit_lineage_card_and_bill_of_materials_tell_of_the_signature(
    lab: Lab, llama: Path, key: Path, tmp_path: Path
) -> None:
    sign_folder(llama, name="a llama")
    lab.register(llama, producer=Producer(key))
    ((digest, record),) = signatures(lab.desk, lab.desk.find_model("llama"))
    assert "producer-signature/1" in {entry.record_kind for entry, _ in lab.show("llama")}
    assert lab.lineage("llama").signed_by == (record.key_sha256,)
    (vouched,) = lab.audit("llama").vouched
    assert (vouched.record, vouched.key_sha256, vouched.covered) == (digest, record.key_sha256, len(record.covered))
    lab.export("llama", tmp_path / "out", Papers(card=True, cyclonedx=True))
    cards = [p.read_text() for p in (tmp_path / "out").glob("*.md")]
    assert any(record.key_sha256 in text and digest in text for text in cards)
    bom = json.loads((tmp_path / "out" / "bom.cdx.json").read_text())
    told = {p["name"]: p["value"] for p in bom["metadata"]["component"]["properties"]}
    assert told["studbook:producer-key"] == record.key_sha256
    assert told["studbook:producer-signature"] == digest


def test_withdrawing_a_signed_source_leaves_a_lab_that_is_explained(lab: Lab, llama: Path, key: Path) -> None:
    sign_folder(llama)
    lab.register(llama, producer=Producer(key))
    lab.withdraw("llama", PERSON, "its producer asked")
    found = lab.verify()
    assert found.ok, found.problems
    assert any("producer-signature" in gone.where for gone in found.absent)


def test_the_command_line_registers_with_a_key_and_refuses_a_signature_without_one(
    place: Place, llama: Path, key: Path
) -> None:
    signature = sign_folder(llama).rename(llama.parent / "kept.sig")
    refused = run_cli(place, "register", str(llama), "--signature", str(signature))
    assert (refused.returncode, "--producer-key" in refused.stderr) == (2, True)
    refused = run_cli(place, "register", str(llama), "--producer-key", str(key))
    assert refused.returncode == 2
    assert "there is no signature" in refused.stderr
    run = run_cli(place, "register", str(llama), "--producer-key", str(key), "--signature", str(signature))
    assert run.returncode == 0, run.stderr
    shown = run_cli(place, "audit", "llama")
    assert "signed by its producer as 'llama'" in shown.stdout
    assert "signed by producer's key" in run_cli(place, "lineage", "llama").stdout
