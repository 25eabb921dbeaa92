"""`studbook export` with its documents: written from a real lab, all or nothing, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from checkpoint_fixtures import write_llama
from exchange.test_oms import curve_key, private, public
from lab_fixtures import Place, run_cli
from studbook.errors import ClaimRefused, DigestDiffers, NotAuthorised, UsageError
from studbook.exchange import check_producer_signature, read_minimodel, read_provenance
from studbook.exchange.minimodel import check_artifact, check_signature
from studbook.lab import Lab
from studbook.lab.dossiers import collect
from studbook.lab.export import export
from studbook.lab.papers import Papers
from studbook.records import AdmissionRecord, ConfirmationRecord, Rung, Scorecard, Zone

ALL = Papers(card=True, cyclonedx=True, slsa=True, minimodel=True)
NAMES = ["README.md", "bom.cdx.json", "minimodel.manifest", "model.sig", "provenance.dsse.json", "studbook.json"]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file that model signing knows."""
    path = tmp_path / "key.pem"
    path.write_bytes(private(curve_key()))
    path.chmod(0o600)
    return path


def winner(lab: Lab) -> str:
    """The candidate that was admitted."""
    return next(record.artifact for _, record in lab.desk.all(AdmissionRecord))


def files_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_every_document_of_a_promoted_child_checks_and_says_the_same(lived_lab: Place, tmp_path: Path, key: Path):
    with lived_lab.open(writer=False) as lab:
        artifact = winner(lab)
        written = export(lab.desk, artifact, tmp_path / "out", ALL._replace(oms=key))
        again = export(lab.desk, artifact, tmp_path / "again", ALL._replace(oms=key))
        release = lab.desk.workspace.keys.find(lab.desk.workspace.root, Zone.RELEASE, "admission-record/1").public
        lab_id = lab.desk.workspace.root.lab
        sealed_cards = [d for d, c in lab.desk.all(Scorecard) if c.artifact == artifact and c.role == "sealed"]
        look = next(d for d, c in lab.desk.all(ConfirmationRecord) if c.candidate == artifact)
    out = tmp_path / "out"
    container = next(path for path in out.iterdir() if path.suffix == ".slm")
    assert written == again == files_of(out)
    assert sorted(written) == sorted([*NAMES, container.name])
    assert written[container.name] == artifact

    predicate = read_provenance((out / "provenance.dsse.json").read_bytes(), release)
    assert predicate["runDetails"]["builder"]["id"] == f"urn:studbook:lab:{lab_id}"
    manifest = read_minimodel((out / "minimodel.manifest").read_bytes())
    check_signature(manifest, release)
    check_artifact(manifest, container.read_bytes())
    covered = {path: sha256 for path, sha256 in written.items() if path != "model.sig"}
    found = check_producer_signature(covered, (out / "model.sig").read_bytes(), public(curve_key()))
    assert found.covered == tuple(sorted(covered))

    card, bom = (out / "README.md").read_text(), json.loads((out / "bom.cdx.json").read_text())
    assert f"`{artifact}`" in card
    assert bom["metadata"]["component"]["hashes"][0]["content"] == artifact
    assert "On record it claims: converted-trained." in card
    assert manifest.values["evidence.claim"] == "converted-trained"
    # What the sealed suites showed leaves as comparisons; the scorecards on them stay in the lab.
    assert f"`{look}`" in card
    for digest in sealed_cards:
        assert digest not in card
        assert digest not in json.dumps(bom)


def test_without_options_only_the_records_leave_with_the_model(lived_lab: Place, tmp_path: Path):
    with lived_lab.open(writer=False) as lab:
        written = lab.export(winner(lab), tmp_path / "out")
    assert len(written) == 2
    assert written == files_of(tmp_path / "out")


def test_a_document_that_is_refused_leaves_nothing_behind(lived_lab: Place, tmp_path: Path, key: Path):
    with lived_lab.open(writer=False) as lab:
        with pytest.raises(UsageError) as refused:
            export(lab.desk, "base", tmp_path / "out", Papers(card=True, slsa=True))
        assert refused.value.reason == "export.not-bred"
        key.chmod(0o644)
        with pytest.raises(NotAuthorised):
            export(lab.desk, "base", tmp_path / "out", Papers(card=True, oms=key))
    with Lab(lived_lab.path, tmp_path / "no-keys", writer=False) as lab, pytest.raises(NotAuthorised):
        export(lab.desk, winner(lab), tmp_path / "out", Papers(slsa=True))
    assert not (tmp_path / "out").exists()


def test_a_registered_source_gets_a_card_of_what_is_known(lived_lab: Place, tmp_path: Path):
    with lived_lab.open(writer=False) as lab:
        written = export(lab.desk, "base", tmp_path / "out", Papers(card=True, cyclonedx=True, minimodel=True))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "how it was made is not on record here" in card
    assert "library_name: studbook" in card
    assert {"README.md", "bom.cdx.json", "minimodel.manifest"} <= written.keys()


def test_a_model_whose_bytes_are_gone_is_refused_before_anything_is_written(old_lab: Place, tmp_path: Path):
    with old_lab.open(writer=False) as lab:
        artifact = winner(lab)
        path = lab.desk.workspace.blob_path(artifact)
        path.chmod(0o644)
        path.unlink()
        with pytest.raises(DigestDiffers) as refused:
            export(lab.desk, artifact, tmp_path / "out", ALL)
        assert refused.value.reason == "digest.missing"
    assert not (tmp_path / "out").exists()


def test_a_claim_whose_evidence_is_gone_is_refused(old_lab: Place, tmp_path: Path):
    with old_lab.open(writer=False) as lab:
        artifact = winner(lab)
        assert collect(lab.desk, artifact, {}).claim == Rung.TRAINED
        path = lab.desk.workspace.blob_path(artifact)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-64])
        with pytest.raises(ClaimRefused, match="no evidence for structural-validation"):
            export(lab.desk, artifact, tmp_path / "out", Papers(card=True))
    assert not (tmp_path / "out").exists()


def test_documents_of_a_checkpoint_stand_beside_its_own_files(tmp_path: Path):
    source = tmp_path / "source"
    write_llama(source, 0)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    Lab.init(tmp_path / "lab", "ann", tmp_path / "keys")
    key_path = tmp_path / "key.pem"
    key_path.write_bytes(private(curve_key()))
    key_path.chmod(0o600)
    with Lab(tmp_path / "lab", tmp_path / "keys") as lab:
        lab.register(source, "mine")
        papers = Papers(card=True, cyclonedx=True, oms=key_path)
        written = export(lab.desk, "mine", tmp_path / "out", papers)
        with pytest.raises(UsageError) as refused:
            export(lab.desk, "mine", tmp_path / "other", Papers(minimodel=True))
    assert refused.value.reason == "export.not-slm"
    assert (tmp_path / "out" / "README.md").read_text().endswith("# mine\n")
    assert "no passed runtime smoke" in (tmp_path / "out" / "studbook-README.md").read_text()
    covered = {path: sha256 for path, sha256 in written.items() if path != "model.sig"}
    bundle = (tmp_path / "out" / "model.sig").read_bytes()
    assert check_producer_signature(covered, bundle, public(curve_key())).absent == ()


def test_the_command_writes_the_documents_it_is_asked_for(lived_lab: Place, tmp_path: Path, key: Path):
    done = run_cli(lived_lab, "--json", "export", "base", str(tmp_path / "out"), "--card", "--oms", str(key))
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["files"]) == ["README.md", "base.slm", "model.sig", "studbook.json"]
    edwards = tmp_path / "edwards.pem"
    edwards.write_bytes(private(Ed25519PrivateKey.generate()))
    edwards.chmod(0o600)
    refused = run_cli(lived_lab, "export", "base", str(tmp_path / "two"), "--oms", str(edwards))
    assert refused.returncode == 9
    assert "P-256" in refused.stderr
    assert "Traceback" not in refused.stderr
