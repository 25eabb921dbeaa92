"""A bill of materials of a model: CycloneDX 1.6 JSON with a machine-learning-model component and its model card.

Source: ECMA-424, CycloneDX 1.6 JSON schema (``bom-1.6.schema.json``). No time stands in it and its serial number
follows from its content, so the same dossier gives the same bytes. What a metric cannot hold in a field of its own,
its method and digests, stands in its ``slice``.
"""

from __future__ import annotations

import uuid
from typing import Any

from studbook.errors import printable
from studbook.exchange.dossier import Ancestor, Dataset, Dossier
from studbook.exchange.figures import Figure, figures, limits, unmeasured
from studbook.records import CandidateManifest, CheckpointSource, ModelSource, Rung, SourceManifest, canonical, digest

__all__ = ["write_bom"]

# Identifiers of the SPDX list; a licence that is not among them is given by name, which is valid for any.
_SPDX = frozenset(
    "Apache-2.0 MIT BSD-2-Clause BSD-3-Clause CC0-1.0 CC-BY-4.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0 ISC "  # noqa: SIM905
    "GPL-2.0-only GPL-3.0-only LGPL-2.1-only LGPL-3.0-only AGPL-3.0-only MPL-2.0 EPL-2.0 Unlicense Zlib".split()
)


def write_bom(dossier: Dossier) -> bytes:
    """The bill of materials, canonical JSON (RFC 8785).

    Args:
        dossier: What is on record.
    """
    body: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _model(dossier), "tools": {"components": [_tool(dossier)]}},
        "components": [_dataset(data) for data in dossier.data],
    }
    # Version 8 is for content such as this (RFC 9562); built by hand, so that only SHA-256 is in play.
    serial = uuid.UUID(int=int(digest(body)[:32], 16) & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62))
    return canonical(body | {"serialNumber": serial.urn})


def _model(dossier: Dossier) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _urn(dossier.artifact),
        "name": printable(dossier.name),
        "version": dossier.artifact[:12],
        "hashes": _hashes(dossier.artifact),
        "components": [
            {"type": "file", "bom-ref": f"file:{n}", "name": printable(m.path), "hashes": _hashes(m.sha256)}
            for n, m in enumerate(dossier.files)
        ],
        "modelCard": _card(dossier),
        "properties": _properties(dossier),
    }
    if dossier.licence:
        found["licenses"] = _licences(dossier.licence)
    if dossier.ancestors:
        found["pedigree"] = {"ancestors": [_ancestor(a) for a in dossier.ancestors]}
    return found


def _card(dossier: Dossier) -> dict[str, Any]:
    parameters: dict[str, Any] = {"datasets": [{"ref": _data_ref(data)} for data in dossier.data]}
    if architecture := _architecture(dossier):
        parameters["modelArchitecture"] = printable(architecture)
    considerations = {"technicalLimitations": _limitations(dossier)}
    if isinstance(dossier.manifest, CandidateManifest) and dossier.manifest.trade_offs:
        considerations["performanceTradeoffs"] = [printable(text) for text in dossier.manifest.trade_offs]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [_metric(figure) for figure in figures(dossier)]},
        "considerations": considerations,
    }


def _limitations(dossier: Dossier) -> list[str]:
    found = [f"Not supported: {text}" for text in limits(dossier)]
    return [printable(text) for text in (*found, *(f"Not measured: {text}" for text in unmeasured(dossier)))]


def _metric(figure: Figure) -> dict[str, Any]:
    suite = "".join(f"; suite sha256:{suite}" for suite in figure.suites)
    where = f"{figure.on}{suite}; record sha256:{figure.record}; {figure.basis}; {figure.method}"
    found: dict[str, Any] = {
        "type": printable(f"{figure.label} ({figure.unit})"),
        "value": f"{figure.value:.10g}",
        "slice": printable(where),
    }
    if figure.low is not None and figure.high is not None:
        found["confidenceInterval"] = {"lowerBound": f"{figure.low:.10g}", "upperBound": f"{figure.high:.10g}"}
    return found


def _architecture(dossier: Dossier) -> str | None:
    if dossier.form == "slm":
        return "SLM1 decoder"
    manifest = dossier.manifest
    if isinstance(manifest, SourceManifest) and isinstance(manifest.source, CheckpointSource):
        return manifest.source.architecture
    return None


def _properties(dossier: Dossier) -> list[dict[str, str]]:
    """Facts CycloneDX has no field for, under names of this program."""
    found = {
        "claim": dossier.claim.value if dossier.claim else "nothing",
        "evidence": " ".join(rung.value for rung in Rung if rung in dossier.evidence),
        "lab": dossier.lab,
        "record": dossier.record,
        "record-kind": dossier.manifest.kind(),
    }
    if isinstance(dossier.manifest, CandidateManifest):
        found |= {"receipt": dossier.manifest.receipt, "template": dossier.manifest.template}
    elif isinstance(dossier.manifest.source, ModelSource | CheckpointSource):
        found["storage"] = dossier.manifest.source.label
    pairs = sorted(found.items())
    pairs += [("producer-signature", record) for record, _ in dossier.signed]
    pairs += [("producer-key", signature.key_sha256) for _, signature in dossier.signed]
    return [{"name": f"studbook:{name}", "value": value} for name, value in pairs]


def _ancestor(ancestor: Ancestor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": printable(ancestor.name),
        "version": ancestor.artifact[:12],
        "hashes": _hashes(ancestor.artifact),
        "properties": [{"name": "studbook:role", "value": ancestor.role}],
    }
    if ancestor.licence:
        found["licenses"] = _licences(ancestor.licence)
    return found


def _dataset(data: Dataset) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": _data_ref(data),
        "name": printable(data.name),
        "version": data.record[:12],
        "hashes": _hashes(data.sha256),
    }


def _tool(dossier: Dossier) -> dict[str, Any]:
    return {"type": "application", "name": dossier.header.source, "version": dossier.header.version}


def _licences(licence: str) -> list[dict[str, Any]]:
    return [{"license": {"id": licence} if licence in _SPDX else {"name": printable(licence)}}]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _urn(artifact: str) -> str:
    return f"urn:studbook:artifact:{artifact}"


def _data_ref(data: Dataset) -> str:
    return f"urn:studbook:record:{data.record}"
