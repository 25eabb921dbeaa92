"""From a channel to a bundle: evidence is gathered, the engine asked, files are built, verified, recorded and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from studbook.adapters.reader import parse_adapter
from studbook.assembly import rules
from studbook.assembly.building import Bundle, Parts, build
from studbook.assembly.manifests import (
    Applied,
    adapter_manifests,
    eval_case,
    family_receipt,
    logit_positions,
    needs,
    scores,
)
from studbook.assembly.measuring import Measured, measure
from studbook.assembly.page import page
from studbook.breeding.operators.quantise import Quantise
from studbook.errors import DigestDiffers, OverBudget, ParentsDoNotFit, UsageError
from studbook.files import write_new
from studbook.lab import clock
from studbook.lab.approvals import require_approved
from studbook.lab.bundle_evidence import Evidence, gather, ledger_evidence, lineage
from studbook.lab.desk import Desk
from studbook.models.slm import Slm, parse_slm
from studbook.records import (
    AdapterSource,
    AdmissionRecord,
    BundleRelease,
    CandidateManifest,
    LineageTemplate,
    ModelManifest,
    SourceManifest,
    digest,
    write_record,
)
from studbook.workspace import Accession

__all__ = ["Assembled", "Bundles"]


class Assembled(Struct, frozen=True):
    """A bundle that was written.

    Attributes:
        channel: The channel it is of.
        artifact: Digest of the model.
        name: What people call it.
        folder: Where it lies.
        plan: Digest of its plan, which the page was compiled with.
        plan_size: Bytes of the plan.
        release: Digest of the BundleRelease.
        visible: ``browser`` if a browser ran it, else ``local``.
        files: How many files it has.
        size: Their bytes.
    """

    channel: str
    artifact: str
    name: str
    folder: str
    plan: str
    plan_size: int
    release: str
    visible: str
    files: int
    size: int


class Bundles:
    """The facet behind ``studbook assemble``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def assemble(self, channel: str, folder: Path, adapters: Sequence[str] = ()) -> Assembled:
        """Write what a channel points at as a bundle: a page, and everything it verifies before it runs the model.

        Args:
            channel: ``shadow`` or ``champion``.
            folder: A new folder, or an empty one.
            adapters: Names of registered, approved packages, in the order of the stack.

        Raises:
            UsageError: if the folder is not empty, or a name is no package's.
            OutOfOrder: if the channel or a package is not ready for it.
            OutsideAllowlist: if an offline operator made the model.
            OverBudget: if the model or the packages have too many bytes for a page.
            ParentsDoNotFit: if a package was made for another model.
        """
        desk = self._desk
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError("is not empty", where=folder, advice="Name an empty or new folder.", reason="usage.folder")
        evidence = gather(desk, channel)
        model = _model(desk, evidence.artifact)
        base = _quantised_from(desk, evidence)
        sources = _packages(desk, adapters, base or evidence.artifact)
        parts = _parts(desk, channel, evidence, model, base, sources)
        bundle = build(parts)
        release = _record(desk, channel, evidence, parts, bundle)
        _write(folder, bundle)
        return Assembled(
            channel=channel,
            artifact=evidence.artifact,
            name=desk.name_of(evidence.artifact),
            folder=str(folder),
            plan=digest(bundle.plan),
            plan_size=len(bundle.files["plan.json"]),
            release=release,
            visible=bundle.registry.routes[0].visible,
            files=len(bundle.files),
            size=sum(map(len, bundle.files.values())),
        )


def _model(desk: Desk, artifact: str) -> bytes:
    path = desk.workspace.blob_path(artifact)
    if not path.is_file():
        advice = f"Make it again: studbook reproduce {artifact[:12]} --restore"
        text = f"the bytes of {desk.name_of(artifact)} are gone"
        raise DigestDiffers(text, where=path, advice=advice, reason="digest.missing")
    data = desk.workspace.blob(artifact)
    if len(data) > rules.MODEL_BUDGET:
        text = f"{len(data)} bytes; a page takes models of at most {rules.MODEL_BUDGET}"
        advice = "Quantise it, let a round judge the build, and release that."
        raise OverBudget(text, where=desk.name_of(artifact), advice=advice, reason="assembly.model-budget")
    return data


def _quantised_from(desk: Desk, evidence: Evidence) -> str | None:
    """Digest of the f32 model that a quantised build was made from, as its receipt says; None for what is none."""
    template = desk.workspace.get(evidence.records["template"], LineageTemplate)
    return template.base if template.operator.get("operator") == Quantise.tag() else None


def _packages(desk: Desk, names: Sequence[str], base: str) -> list[tuple[str, SourceManifest, bytes]]:
    """Registration and bytes of every package."""
    found = []
    for name in names:
        held = desk.registered().get(desk.find_model(name))
        if held is None or not isinstance(source := held[1].source, AdapterSource):
            advice = "Register its source.manifest first."
            raise UsageError("is no registered package", where=name, advice=advice, reason="usage.adapter")
        if source.base != base:
            text = f"was made for {desk.name_of(source.base)}, and not for {desk.name_of(base)}"
            raise ParentsDoNotFit(text, where=name, reason="assembly.adapter-base")
        require_approved(desk, "", (held[1].artifact.sha256,), clock.today())
        found.append((*held, desk.workspace.blob(source.adapter_sha256)))
    size = sum(len(data) for _, _, data in found)
    if size > rules.ADAPTER_BUDGET or len(found) > rules.MAX_ADAPTERS:
        text = f"{len(found)} packages of {size} bytes; at most {rules.MAX_ADAPTERS} of {rules.ADAPTER_BUDGET} bytes"
        raise OverBudget(text, where="--adapter", advice="Leave some out.", reason="assembly.adapter-budget")
    return found


def _parts(
    desk: Desk,
    channel: str,
    evidence: Evidence,
    data: bytes,
    base: str | None,
    sources: Sequence[tuple[str, SourceManifest, bytes]],
) -> Parts:
    model = parse_slm(data, f"model {evidence.artifact[:16]}")
    measured = measure(data, [package for _, _, package in sources], base, logit_positions(model))
    manifest = _manifest(desk, evidence, model, base, measured)
    stack = [
        Applied(parse_adapter(package), source, registered, diagnostics)
        for (source, registered, package), diagnostics in zip(sources, measured.stack, strict=True)
    ]
    adapters = adapter_manifests(desk.header, manifest, stack)
    records = list(evidence.records.items())
    records += [(f"adapter-{k}-source", source) for k, (source, _, _) in enumerate(sources, 1)]
    ledger = ledger_evidence(desk, records)
    texts = {"ledger": write_record(ledger)}
    texts |= {role: desk.workspace.canonical(record) for role, record in records}
    return Parts(
        header=desk.header,
        channel=channel,
        model=manifest,
        adapters=adapters,
        family=family_receipt(desk.header, manifest, adapters, measured.whole) if adapters else None,
        evidence=texts,
        checkpoint=ledger.checkpoint,
        eval_case=eval_case(desk.scorecard(evidence.records["evaluation"])),
        binaries={"engine": _engine(), "model": data}
        | {f"adapter-{k}": package for k, (_, _, package) in enumerate(sources, 1)},
        page=page(),
        unsmoked=None,
    )
