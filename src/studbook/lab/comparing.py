"""What the registry says besides the sources themselves, derived again: comparisons of parents, producers' signatures."""

from __future__ import annotations

from studbook.errors import DigestDiffers
from studbook.evaluation.contamination import parse_rows
from studbook.exchange.oms import read_signature
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.producers import bytes_of
from studbook.lab.sources import ANCHOR_ROWS, checkpoint_of, is_listing, parent_of
from studbook.models.checkpoint import parse_listing
from studbook.records import (
    CheckpointSource,
    CompatibilityReport,
    DataSource,
    LoraSource,
    ProducerSignature,
    SourceManifest,
    digest,
)
from studbook.registry.checkpoint_compatibility import compare_checkpoints
from studbook.registry.compatibility import check_all, measured_pairs, tokenizer_changes
from studbook.registry.geometry_worker import task_vectors

__all__ = ["check_producer", "check_report"]


def check_report(desk: Desk, record: CompatibilityReport) -> None:
    """A report on parents against the parents, under the policy that was in force.

    Everything in it is made again but the interpolation barrier, a loss whose last digits are the machine's.

    Args:
        desk: The lab as it was before the record.
        record: The report.

    Raises:
        DigestDiffers: naming the field that differs; ``report.field``.
        StudbookError: any of its kinds, if bytes are gone or break a rule of their format.
    """
    again = _compare(desk, record)
    fields = ("base", "parents", "checks", "tokenizers", "pairs", "anchor", "passed")
    facts = {field: (getattr(record, field), getattr(again, field)) for field in fields}
    require("report", facts, "report.field")


def check_producer(desk: Desk, record: ProducerSignature) -> None:
    """A producer's signature against its stored bytes, the stored key, and the files that were registered.

    Args:
        desk: The lab as it was before the record.
        record: The signature's record.

    Raises:
        DigestDiffers: naming the field that differs; ``producer.field``.
        NotAuthorised: if the key did not sign it; ``oms.signature``.
        StudbookError: any of its kinds, if bytes are gone or malformed.
    """
    manifest = desk.workspace.get(record.source, SourceManifest)
    document, key = (desk.workspace.blob(d) for d in (record.document_sha256, record.key_sha256))
    signed = read_signature(document, key, f"signature {record.document_sha256[:16]}")
    covered = {path: signed.files.get(path, "") for path in record.covered}
    facts: dict[str, tuple[object, object]] = {
        "artifact": (record.artifact, manifest.artifact.sha256),
        "form": (record.form, signed.form),
        # A key has one form in which its digest is taken.
        "key_sha256": (record.key_sha256, signed.key_sha256),
        "name": (record.name, signed.name),
        "covered": (list(record.covered), sorted(covered)),
        "covered: signed": (set(covered) - signed.files.keys(), set()),
        "absent": (list(record.absent), sorted(signed.files.keys() - covered.keys())),
        "covered: files": (bytes_of(manifest) - set(covered.values()), set()),
    }
    if isinstance(manifest.source, CheckpointSource | LoraSource):
        listing = parse_listing(desk.workspace.blob(record.artifact), f"files of {manifest.name}")
        facts["covered: listing"] = (covered, {entry.path: entry.sha256 for entry in listing})
    require(f"producer-signature of {manifest.name}", facts, "producer.field")


def _compare(desk: Desk, record: CompatibilityReport) -> CompatibilityReport:
    _, policy = desk.policy
    everyone = (record.base, *record.parents)
    for path in (desk.workspace.blob_path(artifact) for artifact in everyone):
        if not path.is_file():
            raise DigestDiffers("bytes of a model it compares are gone", where=path, reason="digest.missing")
    if any(is_listing(desk, artifact) for artifact in everyone):
        base, *parents = (checkpoint_of(desk, artifact) for artifact in everyone)
        try:
            return compare_checkpoints(record.header, policy, base, parents)
        finally:
            for opened in (base, *parents):
                opened.model.close()
    shared, herd = parent_of(desk, record.base), [parent_of(desk, artifact, record.base) for artifact in record.parents]
    checks = check_all(policy, shared, herd)
    rows = _rows(desk, record)
    vectors = task_vectors(shared.model, [p.model for p in herd]) if all(c.passed for c in checks) else []
    barriers = [pair.barrier.value for pair in record.pairs] + [0.0] * len(vectors)
    found = [{**vector, "barrier": barrier} for vector, barrier in zip(vectors, barriers, strict=False)]
    return CompatibilityReport(
        header=record.header,
        base=shared.model.sha256,
        parents=tuple(p.model.sha256 for p in herd),
        checks=checks,
        tokenizers=tokenizer_changes(shared, herd, rows),
        pairs=measured_pairs(herd, found, len(rows)),
        anchor=record.anchor if rows else digest([]),
        passed=all(c.passed for c in checks),
    )


def _rows(desk: Desk, record: CompatibilityReport) -> list[tuple[str, str]]:
    """The rows it was measured on; none unless they are a slice of registered data."""
    manifests = (m.source for _, m in desk.all(SourceManifest))
    slices = {f.sha256 for source in manifests if isinstance(source, DataSource) for f in source.files}
    if record.anchor not in slices:
        return []
    rows = parse_rows(desk.workspace.blob(record.anchor), "training slice")[:ANCHOR_ROWS]
    return [(row.prompt, row.expected) for row in rows]
