"""SLSA provenance: how a child was built, sealed with a key of the lab."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from exchange.dossiers import BASE, DATA, FIRST, KEY, LAB, RECIPE, SECOND, candidate, lora, model
from studbook.errors import BytesLie, NotAuthorised, UsageError
from studbook.exchange import read_provenance, write_provenance
from studbook.exchange.dsse import sign
from studbook.exchange.slsa import provenance_statement
from studbook.records import canonical
from studbook.seal import peek


def test_it_names_recipe_parents_builder_and_the_times_of_the_ledger():
    dossier = candidate()
    predicate = read_provenance(write_provenance(dossier, KEY), KEY.public)
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    assert definition["externalParameters"]["recipe"] == RECIPE
    inputs = [(d["annotations"]["role"], d["digest"]["sha256"]) for d in definition["resolvedDependencies"]]
    assert inputs == [("base", BASE), ("parent", FIRST), ("parent", SECOND), ("data", DATA)]
    assert details["builder"]["id"] == f"urn:studbook:lab:{LAB}"
    assert dossier.making is not None
    assert details["metadata"]["startedOn"] == dossier.making.started
    assert details["metadata"]["finishedOn"] == dossier.making.finished
    assert [b["digest"]["sha256"] for b in details["byproducts"]][2] == dossier.record
    assert definition["internalParameters"]["limits"]["seconds"] == 60


def test_its_subjects_are_the_artifact_and_its_files():
    statement = json.loads(provenance_statement(candidate()))
    assert statement["subject"] == [{"name": "blend-1.slm", "digest": {"sha256": model()[1].sha256}}]
    two = (*lora().files,)
    statement = json.loads(provenance_statement(candidate(files=two)))
    assert [s["name"] for s in statement["subject"]] == ["blend-1", *(m.path for m in two)]


def test_a_registered_source_has_no_provenance_of_this_lab():
    with pytest.raises(UsageError) as refused:
        write_provenance(lora(), KEY)
    assert refused.value.reason == "export.not-bred"


def test_equal_records_and_keys_make_equal_bytes():
    assert write_provenance(candidate(), KEY) == write_provenance(candidate(), KEY)


def test_another_key_and_a_changed_payload_are_refused():
    sealed = write_provenance(candidate(), KEY)
    with pytest.raises(NotAuthorised) as refused:
        read_provenance(sealed, "d7" + "5a" * 31)
    assert refused.value.reason == "envelope.signature"
    for no_key in ("", "zz", "00" * 31):
        with pytest.raises(NotAuthorised, match="no Ed25519 key"):
            read_provenance(sealed, no_key)
    body = json.loads(sealed)
    changed = base64.b64decode(body["payload"]).replace(b"blend/1", b"slerp/1")
    with pytest.raises(NotAuthorised):
        read_provenance(canonical(body | {"payload": base64.b64encode(changed).decode()}), KEY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"payload": "%%%"},
        {"payload": None},
        {"signatures": []},
        {"signatures": ["x"]},
        {"signatures": [{"sig": 7}]},
    ],
)
def test_what_is_no_envelope_is_refused(change):
    body = json.loads(write_provenance(candidate(), KEY)) | change
    with pytest.raises(BytesLie) as refused:
        read_provenance(canonical(body), KEY.public, "provenance.dsse.json")
    assert refused.value.reason == "envelope.form"
    assert "provenance.dsse.json" in refused.value.where


def test_a_signed_statement_of_another_type_is_no_provenance():
    statement = json.loads(provenance_statement(candidate())) | {"predicateType": "https://example.com/other"}
    with pytest.raises(BytesLie) as refused:
        read_provenance(sign(canonical(statement), KEY), KEY.public)
    assert refused.value.reason == "provenance.form"


def test_the_lab_never_takes_provenance_for_one_of_its_records():
    with pytest.raises(BytesLie):
        peek(write_provenance(candidate(), KEY))


def test_the_receipt_s_own_inputs_are_told_not_the_template_s():
    dossier = candidate()
    assert dossier.making is not None
    fewer = msgspec.structs.replace(dossier.making.receipt, inputs=dossier.making.receipt.inputs[:1])
    changed = candidate(making=msgspec.structs.replace(dossier.making, receipt=fewer), data=())
    found = json.loads(provenance_statement(changed))["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [d["digest"]["sha256"] for d in found] == [BASE]
