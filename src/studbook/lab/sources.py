"""Register and compare: how a parent enters the lab."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from studbook.adapters.reader import parse_adapter
from studbook.errors import DigestDiffers, UsageError
from studbook.evaluation.contamination import parse_rows
from studbook.lab.absence import check_not_withdrawn
from studbook.lab.desk import Desk
from studbook.lab.producers import Producer, accession, read_producer, say_unchecked
from studbook.lab.words import plain_name
from studbook.models.checkpoint import open_checkpoint, parse_listing
from studbook.models.checkpoint_folder import CONFIG
from studbook.records import (
    AdapterSource,
    CheckpointSource,
    CompatibilityReport,
    DataSource,
    LicenceSource,
    LineageTemplate,
    LoraSource,
    ModelSource,
    SourceManifest,
    digest,
)
from studbook.registry.checkpoint_compatibility import CheckpointParent, compare_checkpoints
from studbook.registry.checkpoints import FileDraft, is_checkpoint, read_checkpoint
from studbook.registry.compatibility import Parent, check_all, compare
from studbook.registry.shelf import Shelf
from studbook.registry.sources import Draft, read_source
from studbook.workspace import Accession

__all__ = [
    "ANCHOR_ROWS",
    "checkpoint_of",
    "compare_parents",
    "inherited_data",
    "is_listing",
    "licence_of",
    "parent_of",
    "register",
    "require_model",
    "slice_of",
]

# Rows of the training slice the interpolation barrier is measured on.
ANCHOR_ROWS = 200
_FUSE = "adapter-fuse/1"


def register(
    desk: Desk, path: Path, name: str | None = None, licence: str | None = None, producer: Producer | None = None
) -> tuple[SourceManifest, ...]:
    """Register what lies at a path: a founder folder, a model, a manifest, a checkpoint or a LoRA folder.

    Args:
        desk: The lab.
        path: Where it lies.
        name: What to call it.
        licence: SPDX identifier of a checkpoint whose model card states none.
        producer: Whose signature over the folder must hold; it is recorded with the registration.

    Returns:
        The manifests that are now in the ledger, the model's last.

    Raises:
        UsageError: if the name is another artifact's, or the same artifact is on record with other facts.
        StudbookError: any of its kinds; nothing was registered then.
    """
    title = name and plain_name(name, "--name")
    signature = read_producer(path, producer) if producer else None
    shelf = Shelf(path)
    drafts: list[Draft | FileDraft]
    if path.is_dir() and is_checkpoint(path):
        drafts = [*_read_checkpoint(desk, path, title, licence)]
    elif licence is not None:
        advice = "Founders bring a licence.manifest; only checkpoints may be given a licence here."
        raise UsageError("is not a checkpoint", where=path, advice=advice)
    else:
        drafts = [*read_source(desk.header, path, title, shelf)]
    _check_names(desk, [found.manifest for found in drafts], title, path)
    for found in drafts:
        check_not_withdrawn(desk, found.manifest.artifact.sha256)
        _check_again(desk, found.manifest)
    accessions = [Accession(draft.manifest, draft.blobs) for draft in drafts]
    if signature:
        accessions.append(accession(desk, signature, drafts[-1].manifest, _taken(drafts[-1]) or shelf.digests()))
    else:
        say_unchecked(desk, path)
    _say_known(desk, drafts[-1].manifest)
    for draft in desk.progress.track(f"registering {path.name}", drafts):
        for digest_, content in draft.blobs.items():
            desk.workspace.mend_blob(digest_, content)
    desk.workspace.commit_all(accessions)
    return tuple(draft.manifest for draft in drafts)


def _taken(draft: Draft | FileDraft) -> dict[str, str]:
    """Relative path -> SHA-256 of the files of a checkpoint or LoRA folder, as they were copied; none of others."""
    listing = draft.blobs[draft.manifest.artifact.sha256]
    if not isinstance(draft, FileDraft) or not isinstance(listing, bytes):
        return {}
    return {entry.path: entry.sha256 for entry in parse_listing(listing, draft.manifest.name)}


def _read_checkpoint(desk: Desk, path: Path, name: str | None, licence: str | None) -> tuple[FileDraft, ...]:
    """The drafts of a checkpoint, its files copied below the lab's cache while progress is shown."""
    total = sum(f.stat().st_size for f in path.iterdir() if f.is_file())
    staging = desk.workspace.work_folder("register")
    with desk.progress.measure(f"copying {path.name}", total) as shown:
        return read_checkpoint(desk.header, path, staging, name, licence, shown)


def _check_names(desk: Desk, manifests: Sequence[SourceManifest], title: str | None, path: Path) -> None:
    """A name is one thing's: what is registered may not be called as something else is called already.

    Licences are left out: they are called by their identifier, whatever their text.

    Raises:
        UsageError: if a name is taken, would be taken for something else, or ``--name`` names nothing here.
    """
    where = "--name" if title else path
    if title and title not in [m.name for m in manifests]:
        advice = f"Leave --name out: {path.name} says itself that it is called {manifests[-1].name}."
        raise UsageError("only models and checkpoints can be given a name", where="--name", advice=advice)
    everything = [m for _, m in desk.all(SourceManifest) if not isinstance(m.source, LicenceSource)]
    held = {m.name: (m.artifact.sha256, "a registered source") for m in everything}
    held |= {c.name: (c.artifact.sha256, "a candidate that was bred here") for _, c in desk.candidates()}
    for manifest in manifests:
        if isinstance(manifest.source, LicenceSource):
            continue
        try:
            plain_name(manifest.name, str(path))
        except UsageError as error:
            error.advice = f"Say what to call it: studbook register {shlex.quote(str(path))} --name NAME"
            raise
        if re.fullmatch(r"[0-9a-f]{8,64}", manifest.name) or manifest.name in (*desk.channels(), "nothing"):
            advice = "Names that look like digests, or are channels, would be taken for something else: use --name."
            message = f"{manifest.name!r} cannot be the name of a model"
            raise UsageError(message, where=where, advice=advice, reason="usage.name")
        artifact, what = held.setdefault(manifest.name, (manifest.artifact.sha256, "something else in this folder"))
        if artifact != manifest.artifact.sha256:
            raise UsageError(
                f"the name {manifest.name!r} is taken: {what} with other bytes, {artifact[:12]}, is called that",
                where=where,
                advice=f"Choose another name: studbook register {path} --name NAME",
                reason="usage.name-taken",
            )


def _say_known(desk: Desk, manifest: SourceManifest) -> None:
    """Registering the same bytes under the same name again adds nothing, and mends what was deleted."""
    if digest(manifest) in desk.workspace:
        desk.progress.say(f"{manifest.name} is registered already, with the same bytes: {manifest.artifact.sha256}")


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

    Raises:
        UsageError: if one of them is no model by itself, or some are checkpoints and others are not.
    """
    _, policy = desk.policy
    if any(is_listing(desk, artifact) for artifact in (base, *parents)):
        everyone = [checkpoint_of(desk, artifact) for artifact in (base, *parents)]
        found_ = compare_checkpoints(desk.header, policy, everyone[0], everyone[1:])
        return desk.workspace.commit(found_), found_
    rows = parse_rows(desk.workspace.blob(training_slice), "training slice")[:ANCHOR_ROWS] if training_slice else ()
    shared, herd, anchor = (
        parent_of(desk, base),
        [parent_of(desk, p, base) for p in parents],
        training_slice or digest([]),
    )
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


def require_model(desk: Desk, artifact: str, *, checkpoints: bool = False) -> None:
    """Refuse what was registered but is no model, before anything is done with it.

    Args:
        desk: The lab.
        artifact: Its digest.
        checkpoints: Whether a checkpoint or a LoRA folder will do too.

    Raises:
        UsageError: saying what it is, and what to do with it.
    """
    found = desk.registered().get(artifact)
    source = found[1].source if found else None
    name = found[1].name if found else ""
    if isinstance(source, AdapterSource):
        raise UsageError(
            "is an adapter package, not a model",
            where=name,
            advice=f"""Fuse it into its base first: studbook breed CLUSTER '{{"operator":"{_FUSE}"}}' --parent {name}""",
            reason="usage.adapter",
        )
    if isinstance(source, CheckpointSource | LoraSource) and not checkpoints:
        raise UsageError(
            "is a checkpoint or LoRA folder, and this needs an SLM1 model",
            where=name,
            advice="Checkpoints are bred, shown, compared, and exported; no suite here can judge them.",
            reason="usage.checkpoint",
        )


def is_listing(desk: Desk, artifact: str) -> bool:
    """Whether an artifact is a list of files; an SLM1 model is not.

    Raises:
        UsageError: if it is an adapter package; ``usage.adapter``.
    """
    require_model(desk, artifact, checkpoints=True)
    path = desk.workspace.blob_path(artifact)
    return path.is_file() and desk.workspace.blob(artifact)[:1] == b"{"


def checkpoint_of(desk: Desk, artifact: str) -> CheckpointParent:
    """A checkpoint of the lab, opened from its stored files; to be closed by whoever asks.

    Raises:
        UsageError: if it is none; ``usage.checkpoint``.
        DigestDiffers: if bytes are gone or others; ``digest.missing``.
    """
    name, listed = desk.name_of(artifact), is_listing(desk, artifact)
    listing = parse_listing(desk.workspace.blob(artifact), f"files of {name}") if listed else ()
    files = {entry.path: desk.workspace.blob_path(entry.sha256) for entry in listing}
    if CONFIG not in files:
        what = "a LoRA folder" if listed else "no checkpoint"
        raise UsageError(
            f"is {what}, and others that are named are checkpoints",
            where=name,
            advice="Compare checkpoints with checkpoints, SLM1 models with SLM1 models; a LoRA goes into a recipe.",
            reason="usage.checkpoint",
        )
    for path in files.values():
        if not path.is_file():
            advice = f"Bred here: studbook reproduce {artifact[:12]} --restore. A source: register its folder again."
            raise DigestDiffers(f"bytes of {name} are gone", where=path, advice=advice, reason="digest.missing")
    return CheckpointParent(name, open_checkpoint(files, artifact), files, licence_of(desk, artifact))


def parent_of(desk: Desk, artifact: str, shared: str = "") -> Parent:
    """A registered model, or one bred here: its base is what it was bred from, its sources have to be trained ones.

    What was bred here in several steps is the difference of everything it descends from, so of these the shared base counts.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        shared: Digest of the base it is to be compared with; its template's by default.

    Raises:
        DigestDiffers: if its bytes are gone or others.
        UsageError: if it is no SLM1 model.
    """
    source = found[1].source if (found := desk.sources().get(artifact)) else None
    base, trained = None, False
    if isinstance(source, ModelSource):
        base, trained = source.base, source.trained_manifest is not None
    elif bred := next((c for _, c in desk.candidates() if c.artifact.sha256 == artifact), None):
        base = (
            shared if shared in desk.ancestry(artifact)[1:] else desk.workspace.get(bred.template, LineageTemplate).base
        )
        trained = all(desk.trained(founder) for founder in desk.founders_of(artifact))
    return Parent(
        name=desk.name_of(artifact),
        model=desk.model(artifact),
        path=desk.workspace.blob_path(artifact),
        licence=licence_of(desk, artifact),
        base=base,
        trained=trained,
    )
