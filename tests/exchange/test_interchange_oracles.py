"""What we write, read by the libraries that define the formats; and what they write, read by us."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from exchange.dossiers import KEY, candidate, lora, with_texts
from exchange.test_oms import EDWARDS, curve_key, private, public
from studbook.errors import DigestDiffers
from studbook.exchange import check_producer_signature, sign_files, write_bom, write_card, write_provenance
from studbook.exchange.minimodel import merkle_root

pytestmark = pytest.mark.train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a file in a folder below."""
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    for path in ("config.json", "model.safetensors", "1_Pooling/config.json", "a.json"):
        (tmp_path / "model" / path).write_text(f"content of {path}")
    for name, data in (("key.pem", private(curve_key())), ("public.pem", public(curve_key()))):
        (tmp_path / name).write_bytes(data)
    return tmp_path / "model"


def digests(folder: Path) -> dict[str, str]:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "model.sig")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_model_signing_verifies_what_we_sign(folder):
    verifying = pytest.importorskip("model_signing.verifying")
    (folder / "model.sig").write_bytes(sign_files("model", digests(folder), curve_key()))

    def verify() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=folder.parent / "public.pem")
        config.verify(folder, folder / "model.sig")

    verify()
    (folder / "extra.json").write_text("new")
    with pytest.raises(ValueError, match=r"extra\.json"):
        verify()
    (folder / "extra.json").unlink()
    (folder / "config.json").write_text("changed")
    with pytest.raises(ValueError, match="Hash mismatch"):
        verify()


def test_we_check_what_model_signing_signs(folder):
    signing = pytest.importorskip("model_signing.signing")
    config = signing.Config().use_elliptic_key_signer(private_key=folder.parent / "key.pem")
    config.sign(folder, folder / "model.sig")
    bundle = (folder / "model.sig").read_bytes()
    found = check_producer_signature(digests(folder), bundle, public(curve_key()))
    assert (found.name, found.absent) == ("model", ())
    (folder / "a.json").write_text("changed")
    with pytest.raises(DigestDiffers, match=r"a\.json"):
        check_producer_signature(digests(folder), bundle, public(curve_key()))


@pytest.mark.parametrize("dossier", [candidate(), lora(), lora(licence="my-own"), with_texts("<b>\x1b[31m é")])
def test_the_official_schema_takes_the_bill_of_materials(dossier):
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(write_bom(dossier).decode()) is None
    broken = json.loads(write_bom(dossier))
    broken["metadata"]["component"]["type"] = "model"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_securesystemslib_opens_the_envelope_and_in_toto_reads_statement_and_predicate():
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    json_format = pytest.importorskip("google.protobuf.json_format")
    provenance = pytest.importorskip("in_toto_attestation.predicates.provenance.v1.provenance_pb2")
    statements = pytest.importorskip("in_toto_attestation.v1.statement")
    protos = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    body: dict[str, Any] = json.loads(write_provenance(candidate(), KEY))
    payload = json.loads(base64.b64decode(body["payload"]))
    key = signer.SSlibKey(KEY.public, "ed25519", "ed25519", {"public": KEY.public})
    assert list(dsse.Envelope.from_dict(body).verify([key], 1)) == [KEY.public]
    statements.Statement.copy_from_pb(json_format.ParseDict(payload, protos.Statement())).validate()
    predicate = json_format.ParseDict(payload["predicate"], provenance.Provenance())
    assert predicate.run_details.builder.id.startswith("urn:studbook:lab:")
    assert len(predicate.build_definition.resolved_dependencies) == 4


@pytest.mark.parametrize("wrapped", [False, True])
def test_we_check_the_links_that_in_toto_signs(folder, wrapped):
    link = pytest.importorskip("in_toto.models.link")
    metadata = pytest.importorskip("in_toto.models.metadata")
    signer = pytest.importorskip("securesystemslib.signer")
    products = {path: {"sha256": sha256} for path, sha256 in digests(folder).items()}
    made = link.Link(name="train", products=products, byproducts={"stdout": 'a "quote" \\ é'})
    document = metadata.Envelope.from_signable(made) if wrapped else metadata.Metablock(signed=made)
    document.create_signature(signer.CryptoSigner(EDWARDS))
    document.dump(folder.parent / "train.link")
    found = check_producer_signature(digests(folder), (folder.parent / "train.link").read_bytes(), public(EDWARDS))
    assert (found.form, found.name, len(found.covered)) == ("in-toto-link", "train", 4)


@pytest.mark.parametrize("dossier", [candidate(), lora(), lora(licence="my-own"), with_texts("<b> é: - [x]")])
def test_the_hub_s_own_reader_takes_the_card(dossier, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    path = tmp_path / "README.md"
    path.write_bytes(write_card(dossier))
    data = hub.ModelCard.load(path).data
    assert data.license in ("cc0-1.0", "unknown", "other")
    assert data.tags[0] == "studbook"
    assert data.base_model


def test_pymerkle_finds_the_same_root():
    pymerkle = pytest.importorskip("pymerkle")
    leaves = [hashlib.sha256(bytes([i])).hexdigest() for i in range(70)]
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for count, leaf in enumerate(leaves, 1):
        tree.append_entry(bytes.fromhex(leaf))
        assert tree.get_root().hex() == merkle_root(leaves[:count])
