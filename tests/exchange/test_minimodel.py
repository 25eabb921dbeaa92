"""The MiniModel manifest: sorted lines, signed, read back, and held against the file."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.dossiers import KEY, candidate, lora, model
from studbook.errors import DigestDiffers, ManifestRefused, NotAuthorised, SlmRefused, UsageError
from studbook.exchange import read_minimodel, write_minimodel
from studbook.exchange.minimodel import CHUNK_BYTES, check_artifact, check_signature, merkle_root


@cache
def written() -> bytes:
    return write_minimodel(candidate(), model()[0], KEY, "README.md")


def changed(key: str, value: str | None) -> bytes:
    """The manifest with one line changed, added or left out."""
    lines = dict(line.split("=", 1) for line in written().decode().splitlines())
    if value is None:
        del lines[key]
    else:
        lines[key] = value
    return "".join(f"{k}={v}\n" for k, v in sorted(lines.items())).encode()


def test_lines_are_sorted_and_digests_are_uppercase():
    data = written()
    lines = data.decode().splitlines()
    assert lines == sorted(lines, key=lambda line: line.partition("=")[0])
    assert data.endswith(b"\n")
    assert b"\r" not in data
    assert f"artifact.sha256=sha256:{model()[1].sha256.upper()}" in lines
    for line in ("artifact.kind=slm", "artifact.project_server_url=none", "manifest.version=0", "license.spdx=CC0-1.0"):
        assert line in lines
    assert write_minimodel(candidate(), model()[0], KEY, "README.md") == data


def test_what_is_written_reads_back_with_its_chunks():
    data, slm = model()
    found = read_minimodel(written())
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    assert len(chunks) > 2
    assert found.chunks == tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
    assert found.values["slm.parameter_count"] == str(slm.shape.parameter_count)
    assert found.values["evidence.claim"] == "converted-trained"
    check_artifact(found, data)
    check_signature(found, KEY.public)


def test_line_ends_and_empty_lines_of_the_draft_are_read_as_the_same_manifest():
    found = read_minimodel(b"\r\n" + written().replace(b"\n", b"\r\n\r\n"))
    assert found == read_minimodel(written())
    check_signature(found, KEY.public)


def test_the_signature_covers_every_line_but_its_own():
    signed = read_minimodel(written()).signed
    assert signed == b"".join(line + b"\n" for line in written().splitlines() if not line.startswith(b"signature."))
    found = read_minimodel(changed("license.spdx", "MIT"))
    with pytest.raises(NotAuthorised, match="does not verify"):
        check_signature(found, KEY.public)
    with pytest.raises(NotAuthorised, match="another key"):
        check_signature(read_minimodel(written()), "0" * 64)
    for key in ("signature.algorithm", "signature.value"):
        with pytest.raises(NotAuthorised, match="no Ed25519 signature"):
            check_signature(read_minimodel(changed(key, None)), KEY.public)
    with pytest.raises(NotAuthorised):
        check_signature(read_minimodel(changed("signature.value", "%")), KEY.public)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("manifest.version", "1"),
        ("manifest.kind", "other"),
        ("manifest.schema_checksum", "sha256:" + "a" * 64),
        ("artifact.kind", "gguf"),
        ("artifact.project_server_url", "https://example.com/model.slm"),
        ("artifact.acquisition", "server-push"),
        ("artifact.sha256", None),
        ("artifact.sha256", "sha256:" + "a" * 64),
        ("artifact.byte_count", "-1"),
        ("artifact.byte_count", "12"),
        ("publisher.key_id", None),
        ("model.id", " padded"),
        ("model.id", "\u00e9"),
        ("Model.Extra", "x"),
        ("model..extra", "x"),
        ("chunks.scheme", "other"),
        ("chunks.size", "0"),
        ("chunks.count", "1"),
        ("chunks.count", "99999999"),
        ("chunks.00001.sha256", None),
        ("chunks.00001.sha256", "sha256:" + "0" * 64),
        ("chunks.00099.sha256", "sha256:" + "0" * 64),
        ("chunks.merkle_root_sha256", "sha256:" + "0" * 64),
        ("chunks.merkle_root_sha256", None),
    ],
)
def test_one_broken_line_is_refused_and_named(key, value):
    with pytest.raises(ManifestRefused) as refused:
        read_minimodel(changed(key, value), "minimodel.manifest")
    assert refused.value.where.startswith("minimodel.manifest")


@pytest.mark.parametrize("extra", [b"# a comment\n", b"no value\n", b"model.id=again\n", b"a=\x1b[31m\n", b"\xff=1\n"])
def test_comments_doubles_and_control_characters_are_refused(extra):
    with pytest.raises(ManifestRefused):
        read_minimodel(written() + extra)


def test_a_manifest_without_chunks_is_one():
    kept = b"".join(line + b"\n" for line in written().splitlines() if not line.startswith(b"chunks."))
    found = read_minimodel(kept)
    assert found.chunks == ()
    check_artifact(found, model()[0])


def test_another_file_is_not_the_one_described():
    data, slm = model()
    for key, value in (
        ("artifact.sha256", "sha256:" + "0" * 64),
        ("slm.storage", "q8_0"),
        ("slm.parameter_count", "1"),
        ("slm.tokenizer_sha256", "sha256:" + "0" * 64),
    ):
        with pytest.raises(DigestDiffers, match=re.escape(key)):
            check_artifact(read_minimodel(changed(key, value)), data)
    with pytest.raises(SlmRefused):
        check_artifact(read_minimodel(written()), data[:-64])
    assert slm.size == len(data)


def test_only_a_container_can_be_described_and_only_the_right_one():
    with pytest.raises(UsageError) as refused:
        write_minimodel(lora(), b"", KEY, "README.md")
    assert refused.value.reason == "export.not-slm"
    with pytest.raises(DigestDiffers):
        write_minimodel(candidate(artifact="00" * 32), model()[0], KEY, "README.md")


def test_a_name_is_made_fit_for_a_route():
    found = read_minimodel(write_minimodel(candidate(name="ann/blend+1"), model()[0], KEY, "README.md"))
    assert found.values["model.id"] == "ann-blend-1"


def test_the_root_is_that_of_rfc_6962():
    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    entries = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
    leaf = [hashlib.sha256(b"\0" + bytes.fromhex(entry)).digest() for entry in entries]
    four = node(node(leaf[0], leaf[1]), node(leaf[2], leaf[3]))
    assert merkle_root(entries) == node(four, leaf[4]).hex()
    assert merkle_root(entries[:3]) == node(node(leaf[0], leaf[1]), leaf[2]).hex()
    assert merkle_root(entries[:1]) == leaf[0].hex()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3000), st.binary(max_size=12), st.integers(0, 80))
def test_a_damaged_manifest_is_refused_or_read_and_nothing_else_happens(at, piece, gone):
    whole = written()
    with suppress(ManifestRefused):
        read_minimodel(whole[:at] + piece + whole[at + gone :])
