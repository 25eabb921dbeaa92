"""The bill of materials: what CycloneDX asks for, from records alone."""

from __future__ import annotations

import json
import uuid

import pytest

from exchange.dossiers import BASE, DATA, FIRST, candidate, lora, model, with_texts
from studbook.exchange import write_bom
from studbook.exchange.figures import figures, unmeasured
from studbook.records import canonical


def test_the_model_is_a_component_with_hashes_licence_pedigree_and_files():
    bom = json.loads(write_bom(candidate()))
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    component = bom["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"] == [{"alg": "SHA-256", "content": model()[1].sha256}]
    assert component["licenses"] == [{"license": {"id": "CC0-1.0"}}]
    above = component["pedigree"]["ancestors"]
    assert [a["hashes"][0]["content"] for a in above][:2] == [BASE, FIRST]
    assert [a.get("licenses") for a in above] == [
        [{"license": {"id": "CC0-1.0"}}],
        [{"license": {"id": "MIT"}}],
        None,
    ]
    assert component["components"][0]["name"] == "blend-1.slm"
    datasets = component["modelCard"]["modelParameters"]["datasets"]
    assert [d["ref"] for d in datasets] == [c["bom-ref"] for c in bom["components"]] == [f"urn:studbook:record:{DATA}"]


def test_every_metric_carries_method_suites_and_record_in_its_slice():
    dossier = candidate()
    metrics = json.loads(write_bom(dossier))["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    for metric, figure in zip(metrics["performanceMetrics"], figures(dossier), strict=True):
        assert figure.method in metric["slice"]
        assert f"record sha256:{figure.record}" in metric["slice"]
        assert all(f"suite sha256:{suite}" in metric["slice"] for suite in figure.suites)
        assert float(metric["value"]) == pytest.approx(figure.value)
        assert ("confidenceInterval" in metric) == (figure.low is not None)


def test_limits_and_what_was_not_measured_are_considerations():
    card = json.loads(write_bom(candidate()))["metadata"]["component"]["modelCard"]
    told = card["considerations"]["technicalLimitations"]
    assert told[0] == "Not supported: long texts"
    assert told[1:] == [f"Not measured: {line}" for line in unmeasured(candidate())]
    assert card["considerations"]["performanceTradeoffs"] == ["moved a little"]


def test_a_licence_outside_the_list_is_given_by_name():
    component = json.loads(write_bom(lora(licence="my-own")))["metadata"]["component"]
    assert component["licenses"] == [{"license": {"name": "my-own"}}]
    assert "licenses" not in json.loads(write_bom(lora()))["metadata"]["component"]


def test_the_serial_number_follows_from_the_content():
    first, again, other = write_bom(candidate()), write_bom(candidate()), write_bom(candidate(licence="MIT"))
    assert first == again == canonical(json.loads(first))
    serials = [json.loads(bom)["serialNumber"] for bom in (first, other)]
    assert serials[0] != serials[1]
    assert [uuid.UUID(serial).version for serial in serials] == [8, 8]
    assert uuid.UUID(serials[0]).variant == uuid.RFC_4122


def test_no_control_or_direction_character_reaches_a_value():
    found = write_bom(with_texts("a\x1b[31m\x00\u202eb\u2028")).decode()
    assert "\\u00" not in found
    assert "\u202e" not in found
    assert "a\ufffd[31m\ufffd\ufffdb\ufffd" in found
