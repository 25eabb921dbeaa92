"""Folders that are not what their producer signed, and records of signatures that nobody made."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import PERSON, Place, problems
from producer_fixtures import SIGNATURE, curve_key, edwards_key, public_file, sign_folder
from studbook.errors import BytesLie, DigestDiffers, NotAuthorised, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.producers import Producer
from studbook.lab.replay import check_record
from studbook.records import ProducerSignature, SourceManifest, replace

OTHER = "0" * 64


class Bench(NamedTuple):
    """A lab, a signed folder and the producer's key."""

    lab: Lab
    place: Place
    folder: Path
    key: Path


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("empty")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    return place


@pytest.fixture
def bench(empty: Place, tmp_path: Path) -> Iterator[Bench]:
    place = empty.copy(tmp_path / "copy")
    folder = write_llama(tmp_path / "llama", 0, card=None)
    sign_folder(folder)
    with place.open() as lab:
        yield Bench(lab, place, folder, public_file(tmp_path / "producer.pem", curve_key()))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def wrong_key(bench: Bench) -> Producer:
    return Producer(public_file(bench.key.with_name("other.pem"), curve_key(0xBAD)))


def key_of_another_kind(bench: Bench) -> Producer:
    return Producer(public_file(bench.key.with_name("ed.pem"), edwards_key()))


def no_key_at_all(bench: Bench) -> Producer:
    bench.key.write_text("-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----\n")
    return Producer(bench.key)


def key_from_the_folder(bench: Bench) -> Producer:
    inside = bench.folder / "producer.pem"
    shutil.copy(bench.key, inside)
    return Producer(inside)


def key_through_a_link(bench: Bench) -> Producer:
    key_from_the_folder(bench)
    outside = bench.key.with_name("link")
    outside.symlink_to(bench.folder / "producer.pem")
    return Producer(outside)


def flipped_weights(bench: Bench) -> Producer:
    flip(next(bench.folder.glob("*.safetensors")))
    return Producer(bench.key)


def flipped_tokenizer(bench: Bench) -> Producer:
    path = bench.folder / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    return Producer(bench.key)


def extra_file(bench: Bench) -> Producer:
    (bench.folder / "chat_template.jinja").write_text("{{ messages }}")
    return Producer(bench.key)


def extra_card(bench: Bench) -> Producer:
    """A model card that nobody signed would bring a licence that nobody gave."""
    (bench.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return Producer(bench.key)


def signature_of_another_model(bench: Bench) -> Producer:
    other = write_llama(bench.folder.with_name("other"), 1)
    shutil.copy(sign_folder(other), bench.folder / SIGNATURE)
    return Producer(bench.key)


def removed_signature(bench: Bench) -> Producer:
    (bench.folder / SIGNATURE).unlink()
    return Producer(bench.key)


def named_signature_that_is_missing(bench: Bench) -> Producer:
    return Producer(bench.key, bench.folder / "elsewhere.sig")


def signature_that_is_a_link(bench: Bench) -> Producer:
    moved = (bench.folder / SIGNATURE).rename(bench.key.with_name("moved.sig"))
    (bench.folder / SIGNATURE).symlink_to(moved)
    return Producer(bench.key)


def flipped_signature(bench: Bench) -> Producer:
    path = bench.folder / SIGNATURE
    path.write_bytes(path.read_bytes().replace(b'"sig":"M', b'"sig":"N'))
    return Producer(bench.key)


def name_with_a_terminal_escape(bench: Bench) -> Producer:
    sign_folder(bench.folder, name="model\x1b[2J")
    return Producer(bench.key)


Lie = Callable[[Bench], Producer]
LIES: dict[Lie, tuple[type[StudbookError], str]] = {
    wrong_key: (NotAuthorised, "oms.signature"),
    key_of_another_kind: (NotAuthorised, "oms.key"),
    no_key_at_all: (NotAuthorised, "oms.key"),
    key_from_the_folder: (UsageError, "producer.key-inside"),
    key_through_a_link: (UsageError, "producer.key-inside"),
    flipped_weights: (DigestDiffers, "oms.file"),
    flipped_tokenizer: (DigestDiffers, "oms.file"),
    extra_file: (DigestDiffers, "oms.file"),
    extra_card: (DigestDiffers, "oms.file"),
    signature_of_another_model: (DigestDiffers, "oms.file"),
    removed_signature: (UsageError, "producer.unsigned"),
    named_signature_that_is_missing: (UsageError, "producer.unsigned"),
    signature_that_is_a_link: (BytesLie, ""),
    flipped_signature: (NotAuthorised, "oms.signature"),
    name_with_a_terminal_escape: (BytesLie, "oms.form"),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_folder_that_its_producer_did_not_sign_is_refused_and_nothing_of_it_is_kept(bench: Bench, lie: Lie) -> None:
    kind, reason = LIES[lie]
    producer, before = lie(bench), len(bench.lab.desk.entries())
    with pytest.raises(kind) as refused:
        bench.lab.register(bench.folder, producer=producer)
    assert not reason or refused.value.reason == reason
    assert refused.value.where
    assert len(bench.lab.desk.entries()) == before
    assert not list((bench.place.path / "registry").glob("*/*"))


def test_a_file_that_is_swapped_after_it_was_copied_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the folder swaps every file as soon as the lab has looked at all of them."""
    signed = {p.name: p.read_bytes() for p in bench.folder.iterdir()}
    plain = SourceManifest.references

    def swap(self: SourceManifest) -> tuple[str, ...]:
        for path in bench.folder.iterdir():
            path.write_bytes(b"swapped")
        return plain(self)

    monkeypatch.setattr(SourceManifest, "references", swap)
    *_, manifest = bench.lab.register(bench.folder, producer=Producer(bench.key))
    monkeypatch.undo()
    (record,) = (r for _, r in bench.lab.desk.all(ProducerSignature))
    stored = {b.sha256 for b in manifest.files}
    assert {hashlib.sha256(signed[name]).hexdigest() for name in record.covered} == stored
    assert bench.lab.desk.workspace.blob(record.document_sha256) == signed[SIGNATURE]
    assert bench.lab.verify().ok


def forged(record: ProducerSignature, other: SourceManifest) -> dict[str, dict[str, Any]]:
    """Fields that a thief with the registry's key would change, by what the lie is."""
    return {
        "artifact": {"artifact": other.artifact.sha256},
        "form": {"form": "in-toto-link"},
        "name": {"name": "a famous model"},
        "covered": {"covered": record.covered[::-1]},
        "covered: files": {"covered": record.covered[1:], "absent": (record.covered[0],)},
        "covered: signed": {"covered": tuple(sorted((*record.covered, "zzz")))},
        "absent": {"absent": ("LICENSE",)},
    }


@pytest.mark.parametrize(
    "field", ["artifact", "form", "name", "covered", "covered: files", "covered: signed", "absent"]
)
def test_a_record_of_a_signature_that_its_bytes_do_not_bear_out_is_refused_and_named(bench: Bench, field: str) -> None:
    lab = bench.lab
    other = lab.register(write_llama(bench.folder.with_name("other"), 1))[-1]
    lab.register(bench.folder, producer=Producer(bench.key))
    ((_, true),) = lab.desk.all(ProducerSignature)
    lie = lab.desk.workspace.commit(replace(true, **forged(true, other)[field]))
    entry = lab.desk.workspace.ledger.entries[-1]
    with pytest.raises(DigestDiffers) as found:
        check_record(lab.desk.at(entry.sequence), entry)
    assert (found.value.reason, found.value.where.partition(": ")[2]) == ("producer.field", field)
    assert [Path(p.where).stem for p in lab.verify().problems] == [lie]


def test_a_signature_that_is_said_to_be_of_another_source_is_found_by_verify(bench: Bench) -> None:
    lab = bench.lab
    other = lab.register(write_llama(bench.folder.with_name("other"), 1))[-1]
    lab.register(bench.folder, producer=Producer(bench.key))
    ((_, true),) = lab.desk.all(ProducerSignature)
    source = next(d for d, m in lab.desk.all(SourceManifest) if m == other)
    lie = lab.desk.workspace.commit(replace(true, artifact=other.artifact.sha256, source=source))
    assert [Path(p.where).stem for p in lab.verify().problems] == [lie]


def test_a_key_or_a_document_that_nobody_stored_is_found_by_verify(bench: Bench) -> None:
    lab = bench.lab
    lab.register(bench.folder, producer=Producer(bench.key))
    ((_, true),) = lab.desk.all(ProducerSignature)
    lies = {lab.desk.workspace.commit(replace(true, **{f: OTHER})) for f in ("key_sha256", "document_sha256")}
    lies.add(lab.desk.workspace.commit(replace(true, key_sha256=true.document_sha256)))
    assert {Path(p.where).stem for p in lab.verify().problems} == lies


@pytest.mark.parametrize("field", ["key_sha256", "document_sha256"])
def test_a_changed_byte_of_a_stored_signature_or_key_is_named(bench: Bench, field: str) -> None:
    bench.lab.register(bench.folder, producer=Producer(bench.key))
    ((_, true),) = bench.lab.desk.all(ProducerSignature)
    path = bench.lab.desk.workspace.blob_path(getattr(true, field))
    bench.lab.close()
    path.chmod(0o644)
    flip(path)
    assert problems(bench.place) == [str(path)]
