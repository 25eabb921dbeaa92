"""Build provenance of a model bred here: SLSA provenance v1 in an in-toto statement, in a DSSE envelope.

Source: SLSA 1.0, build provenance (``https://slsa.dev/provenance/v1``); in-toto Attestation Framework, Statement v1.
Times are those of the ledger; there is no other clock in it, and Ed25519 is deterministic, so equal records and an
equal key give equal bytes.
"""

from __future__ import annotations

from typing import Any

from studbook.errors import BytesLie, UsageError, printable
from studbook.exchange.dossier import Dossier, Making
from studbook.exchange.dsse import open_signed, sign
from studbook.models.strict_json import read_object
from studbook.records import CandidateManifest, OperatorReceipt, canonical
from studbook.seal import SigningKey

__all__ = ["BUILD_TYPE", "PREDICATE_TYPE", "provenance_statement", "read_provenance", "write_provenance"]

BUILD_TYPE = "urn:studbook:build:breed:1"
"""Parents, an operator record and a policy in; one artifact out. docs/interchange.md says what every field holds."""
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_REASON = "provenance.form"


def write_provenance(dossier: Dossier, key: SigningKey) -> bytes:
    """The sealed provenance, canonical JSON.

    Args:
        dossier: What is on record.
        key: A release key of the lab.

    Raises:
        UsageError: if the model was not bred here; ``export.not-bred``.
    """
    return sign(provenance_statement(dossier), key)


def provenance_statement(dossier: Dossier) -> bytes:
    """The in-toto statement, canonical JSON (RFC 8785).

    Raises:
        UsageError: if the model was not bred here; ``export.not-bred``.
    """
    manifest, making = dossier.manifest, dossier.making
    if making is None or not isinstance(manifest, CandidateManifest):
        raise UsageError(
            "was registered, not bred here: this lab cannot say how it was built",
            where=dossier.name,
            advice="Leave --slsa out, or export a model that was bred here.",
            reason="export.not-bred",
        )
    predicate = {"buildDefinition": _definition(dossier, making), "runDetails": _details(dossier, making, manifest)}
    return canonical(
        {
            "_type": _STATEMENT,
            "subject": _subjects(dossier),
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def read_provenance(data: bytes, public: str, where: object = "") -> dict[str, Any]:
    """The predicate of a sealed provenance that a key signed.

    Args:
        data: The envelope.
        public: The release key, 64 hex digits.
        where: File, for errors.

    Raises:
        BytesLie: if it is no envelope, or holds no SLSA provenance.
        NotAuthorised: if that key did not sign it.
    """
    statement = read_object(open_signed(data, public, where), where, _REASON)
    predicate = statement.get("predicate")
    kinds = (statement.get("_type"), statement.get("predicateType"))
    if kinds != (_STATEMENT, PREDICATE_TYPE) or not isinstance(predicate, dict):
        raise BytesLie(f"holds no statement of type {PREDICATE_TYPE}", where=where, reason=_REASON)
    return predicate


def _definition(dossier: Dossier, making: Making) -> dict[str, Any]:
    template, receipt = making.template, making.receipt
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "recipe": template.operator,
            "base": template.base,
            "parents": list(template.parents),
            "purpose": template.purpose,
        },
        "internalParameters": {
            "policy": template.policy,
            "numericContract": template.numeric_contract,
            "recipeSha256": template.recipe_sha256,
            "limits": template.limits,
            "isolation": list(receipt.isolation),
            "reproducibility": receipt.reproducibility,
        },
        "resolvedDependencies": _dependencies(dossier, receipt),
    }


def _details(dossier: Dossier, making: Making, manifest: CandidateManifest) -> dict[str, Any]:
    header = manifest.header
    return {
        "builder": {
            "id": f"urn:studbook:lab:{dossier.lab}",
            "version": {header.source: header.version, "environment": header.environment},
        },
        "metadata": {
            "invocationId": f"urn:studbook:record:{manifest.receipt}",
            "startedOn": making.started,
            "finishedOn": making.finished,
        },
        "byproducts": [
            _resource("lineage-template", "record", manifest.template),
            _resource("operator-receipt", "record", manifest.receipt),
            _resource("candidate-manifest", "record", dossier.record),
        ],
    }


def _subjects(dossier: Dossier) -> list[dict[str, Any]]:
    """The artifact, then its files; of a container they are one and the same."""
    found = [{"name": m.path, "digest": {"sha256": m.sha256}} for m in dossier.files]
    if [m.sha256 for m in dossier.files] == [dossier.artifact]:
        return found
    return [{"name": printable(dossier.name), "digest": {"sha256": dossier.artifact}}, *found]


def _dependencies(dossier: Dossier, receipt: OperatorReceipt) -> list[dict[str, Any]]:
    """Every input as the worker hashed it before it ran, then the data the ancestors were trained on."""
    names = {a.artifact: a.name for a in dossier.ancestors}
    found = [
        _resource(names.get(i.before, i.before[:12]), "artifact", i.before) | {"annotations": {"role": i.role}}
        for i in receipt.inputs
    ]
    data = [_resource(d.name, "record", d.record) | {"annotations": {"role": "data"}} for d in dossier.data]
    return [*found, *data]


def _resource(name: str, kind: str, digest: str) -> dict[str, Any]:
    return {"name": printable(name), "uri": f"urn:studbook:{kind}:{digest}", "digest": {"sha256": digest}}
