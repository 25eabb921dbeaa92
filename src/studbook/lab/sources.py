"""Register, approve, compare: how a parent enters the lab."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from studbook.adapters.reader import parse_adapter
from studbook.errors import UsageError, printable
from studbook.evaluation.contamination import parse_rows
from studbook.lab.desk import Desk, plain_name, plain_text
from studbook.records import (
    AdapterSource,
    CheckpointSource,
    CompatibilityReport,
    DataSource,
    LicenceSource,
    LoraSource,
    ModelSource,
    ParentApproval,
    SourceManifest,
    digest,
)
from studbook.registry.approval import Selection, select_approved_parents
from studbook.registry.checkpoints import FileDraft, is_checkpoint, read_checkpoint
from studbook.registry.compatibility import Parent, check_all, compare
from studbook.registry.sources import Draft, read_source

__all__ = [
    "ANCHOR_ROWS",
    "approve",
    "compare_parents",
    "inherited_data",
    "licence_of",
    "register",
    "select",
    "slice_of",
]

# Rows of the training slice the interpolation barrier is measured on.
ANCHOR_ROWS = 200


def register(desk: Desk, path: Path, name: str | None = None, licence: str | None = None) -> tuple[SourceManifest, ...]:
    """Register what lies at a path: a founder folder, a model, a manifest, a checkpoint or a LoRA folder.

    Args:
        desk: The lab.
        path: Where it lies.
        name: What to call it.
        licence: SPDX identifier of a checkpoint whose model card states none.

    Returns:
        The manifests that are now in the ledger, the model's last.

    Raises:
        StudbookError: any of its kinds; nothing was registered then.
    """
    if name is not None and (re.fullmatch(r"[0-9a-f]{8,64}", name) or name in desk.channels()):
        advice = "Names that look like digests, or are channels, would be taken for something else."
        raise UsageError(f"{name!r} cannot be the name of a model", where="--name", advice=advice, reason="usage.name")
    title = name and plain_name(name, "--name")
    drafts: list[Draft | FileDraft]
    if path.is_dir() and is_checkpoint(path):
        drafts = [*_read_checkpoint(desk, path, title, licence)]
    elif licence is not None:
        advice = "Founders bring a licence.manifest; only checkpoints may be given a licence here."
        raise UsageError("is not a checkpoint", where=path, advice=advice)
    else:
        drafts = [*read_source(desk.header, path, title)]
    for found in drafts:
        _check_again(desk, found.manifest)
    for draft in desk.progress.track(f"registering {path.name}", drafts):
        for digest_, content in draft.blobs.items():
            desk.workspace.mend_blob(digest_, content)
        desk.workspace.commit(draft.manifest, draft.blobs)
    return tuple(draft.manifest for draft in drafts)


def _read_checkpoint(desk: Desk, path: Path, name: str | None, licence: str | None) -> tuple[FileDraft, ...]:
    """The drafts of a checkpoint, its files copied below the lab's cache while progress is shown."""
    total = sum(f.stat().st_size for f in path.iterdir() if f.is_file())
    staging = desk.workspace.work_folder("register")
    with desk.progress.measure(f"copying {path.name}", total) as shown:
        return read_checkpoint(desk.header, path, staging, name, licence, shown)


def _check_again(desk: Desk, manifest: SourceManifest) -> None:
    """The same model may be registered again only to add a fact that was missing; nothing on record is replaced.

    Raises:
        UsageError: naming the fact that would be lost or changed.
    """
    held = desk.registered().get(manifest.artifact.sha256)
    if held is None or held[1] == manifest:
        return
    before = held[1].source
    facts: list[tuple[str, object, object]] = [("name", held[1].name, manifest.name)]
    facts += [
        (f, getattr(before, f), getattr(manifest.source, f, None))
        for f in ("base", "trained_manifest", "licence", "data")
        if hasattr(before, f)
    ]
    for fact, old, new in facts:
        if old and old != new:
            raise UsageError(
                f"is registered already as {held[1].name} with another {fact}; what is on record is not replaced",
                where=manifest.name,
                advice="Registered sources are immutable. Register the model in a new lab if its record was wrong.",
                reason="usage.registered",
            )


def approve(desk: Desk, name: str, person: str, clusters: Sequence[str], until: str, reason: str) -> ParentApproval:
    """A person approves a registered model as a parent.

    Raises:
        UsageError: if there is no such registered model, or the day has passed.
        NotAuthorised: if the person's key is not at hand.
    """
    artifact = desk.find_model(name)
    sources = desk.registered()
    if artifact not in sources:
        raise UsageError(
            f"{name!r} is a candidate, not a registered source", advice="Only registered sources are approved."
        )
    until = until or (date.today() + timedelta(days=365)).isoformat()
    try:
        passed = date.fromisoformat(until) < date.today()
        passed = passed or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", until)
    except ValueError as error:
        raise UsageError(f"{printable(until)!r} is not a day such as 2027-01-31", where="--until") from error
    if passed:
        raise UsageError(f"{until} has passed already, or is not written as 2027-01-31", where="--until")
    approval = ParentApproval(
        header=desk.header,
        artifact=artifact,
        source=sources[artifact][0],
        approved_by=plain_name(person, "--as"),
        clusters=tuple(clusters) or ("*",),
        until=until,
        reason=plain_text(reason, "--reason"),
    )
    desk.workspace.commit(approval, owner=person)
    return approval


def select(desk: Desk, cluster: str, base: str, today: date) -> Selection:
    """The approved parents for a cluster, and everybody else with a reason."""
    approvals = [approval for _, approval in desk.all(ParentApproval)]
    return select_approved_parents(cluster, desk.sources(), approvals, base, today)


def compare_parents(
    desk: Desk, base: str, parents: Sequence[str], training_slice: str | None
) -> tuple[str, CompatibilityReport]:
    """Compare parents with their base and each other, and put the report into the ledger.

    Args:
        desk: The lab.
        base: Digest of the shared base.
        parents: Digests of the parents.
        training_slice: Digest of the rows the barrier is measured on; none is measured without.

    Returns:
        Digest and report; a report that did not pass is a record too.
    """
    _, policy = desk.policy
    rows = parse_rows(desk.workspace.blob(training_slice), "training slice")[:ANCHOR_ROWS] if training_slice else ()
    shared, herd, anchor = _parent(desk, base), [_parent(desk, p) for p in parents], training_slice or digest([])
    checks = check_all(policy, shared, herd)
    for found, known in desk.all(CompatibilityReport):
        same = (known.base, known.parents, known.anchor, known.checks) == (base, tuple(parents), anchor, checks)
        if same and known.header == desk.header:
            return found, known
    report = compare(
        desk.header,
        policy,
        shared,
        herd,
        anchor,
        [(row.prompt, row.expected) for row in rows],
        desk.workspace.work_folder("geometry"),
        desk.worker_limits(),
    )
    return desk.workspace.commit(report), report


def licence_of(desk: Desk, artifact: str) -> str | None:
    """SPDX identifier on record for a registered model or candidate, or None."""
    for _, candidate in desk.candidates():
        if candidate.artifact.sha256 == artifact:
            return candidate.licence
    for _, manifest in desk.registered().values():
        packed = manifest.source
        if isinstance(packed, AdapterSource) and artifact in (manifest.artifact.sha256, packed.adapter_sha256):
            return parse_adapter(desk.workspace.blob(packed.adapter_sha256), manifest.name).meta.licence
    found = desk.registered().get(artifact)
    source = found[1].source if found else None
    if not isinstance(source, ModelSource | CheckpointSource | LoraSource) or source.licence is None:
        return None
    licence = desk.workspace.get(source.licence, SourceManifest).source
    return licence.spdx if isinstance(licence, LicenceSource) else None


def inherited_data(desk: Desk, parents: Sequence[str]) -> tuple[str, ...]:
    """Digests of every data manifest the parents were trained on, each once."""
    found: dict[str, None] = {}
    sources = desk.sources()
    bred = {c.artifact.sha256: c.data for _, c in desk.candidates()}
    for parent in parents:
        source = sources[parent][1].source if parent in sources else None
        found |= dict.fromkeys(source.data if isinstance(source, ModelSource) else bred.get(parent, ()))
    return tuple(found)


def slice_of(desk: Desk, cluster: str, base: str) -> tuple[str, str] | None:
    """The training slice for a cluster among the base's data manifests.

    Returns:
        Digest of the data manifest and of the slice, or None when no data manifest holds one.
    """
    for manifest in inherited_data(desk, [base]):
        source = desk.workspace.get(manifest, SourceManifest).source
        assert isinstance(source, DataSource)
        for file in source.files:
            if file.label == cluster:
                return manifest, file.sha256
    return None


def _parent(desk: Desk, artifact: str) -> Parent:
    found = desk.sources().get(artifact)
    source = found[1].source if found else None
    model = source if isinstance(source, ModelSource) else None
    return Parent(
        name=desk.name_of(artifact),
        model=desk.model(artifact),
        path=desk.workspace.blob_path(artifact),
        licence=licence_of(desk, artifact),
        base=model.base if model else None,
        trained=bool(model and model.trained_manifest),
    )
