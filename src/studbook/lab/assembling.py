"""From a channel to a bundle: evidence is gathered, the engine asked, files are built, verified, recorded and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from studbook.adapters.reader import parse_adapter
from studbook.assembly import rules
from studbook.assembly.building import Bundle, Parts, build
from studbook.assembly.manifests import (
    Applied,
    adapter_manifests,
    eval_case,
    family_receipt,
    needs,
    scores,
)
from studbook.assembly.measuring import measure
from studbook.assembly.page import page
from studbook.assembly.plan import BROWSER
from studbook.assembly.verify import exported, verify
from studbook.breeding.operators.quantise import Quantise
from studbook.errors import DigestDiffers, OverBudget, ParentsDoNotFit, UsageError
from studbook.lab import clock
from studbook.lab.approvals import require_approved
from studbook.lab.browser import look
from studbook.lab.bundle_evidence import (
    Evidence,
    gather,
    inclusion,
    ledger_evidence,
    lineage,
    require_offered,
)
from studbook.lab.bundle_files import require_new_places, written
from studbook.lab.desk import Desk
from studbook.lab.evaluators import require_in_force
from studbook.lab.pending import require_key
from studbook.models.engine import ENGINE_SHA256, engine_bytes
from studbook.models.slm import Slm, parse_slm
from studbook.records import (
    KINDS,
    AdapterSource,
    AdmissionRecord,
    BrowserSmoke,
    BundleRelease,
    CandidateManifest,
    LedgerEvidence,
    LineageTemplate,
    ModelManifest,
    SourceManifest,
    canonical,
    digest,
    read_struct,
    write_record,
)
from studbook.records.smokes import LogitDigest
from studbook.workspace import Accession

__all__ = ["Assembled", "Wanted", "assemble", "describe"]


class Assembled(Struct, frozen=True):
    """A bundle that was written.

    Attributes:
        channel: The channel it is of.
        artifact: Digest of the model.
        name: What people call it.
        folder: Where it lies.
        single: The one page that holds all of it; empty where none was asked for.
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
    single: str
    plan: str
    plan_size: int
    release: str
    visible: str
    files: int
    size: int


class Wanted(NamedTuple):
    """How a bundle shall be written.

    Attributes:
        adapters: Names of registered, approved packages, in the order of the stack.
        single: A file to write the whole bundle into besides, as one page to open from disk; None for none.
        browser: Name or path of a Chromium that shall open the bundle before it is recorded; None for none.
    """

    adapters: Sequence[str] = ()
    single: Path | None = None
    browser: str | None = None


def assemble(desk: Desk, channel: str, folder: Path, wanted: Wanted) -> Assembled:
    """Write what a channel points at as a bundle: a page, and everything it verifies before it runs the model.

    Args:
        desk: The lab, opened for writing.
        channel: ``shadow`` or ``champion``.
        folder: A new folder, or an empty one.
        wanted: How it shall be written.

    Raises:
        UsageError: if the folder is not empty, a file is there already, or a name is no package's.
        OutOfOrder: if the channel or a package is not ready for it, or the browser refused the page.
        OutsideAllowlist: if an offline operator made the model.
        OverBudget: if model, packages or the one page have too many bytes.
        ParentsDoNotFit: if a package was made for another model.
    """
    require_new_places(desk, folder, wanted.single)
    require_in_force(desk)
    evidence = gather(desk, channel)
    model = _model(desk, evidence.artifact)
    base = _quantised_from(desk, evidence)
    sources = _packages(desk, wanted.adapters, base or evidence.artifact)
    parts = _parts(desk, channel, evidence, model, base, sources)
    require_key(desk, BundleRelease, *([BrowserSmoke] if wanted.browser else []))
    bundle, smoke = _checked(build(parts)), None
    if wanted.browser is not None:
        smoke = _smoke(desk, bundle, wanted.browser)
        evidence_with = {**parts.evidence, BROWSER: write_record(smoke)}
        bundle = _checked(build(parts._replace(evidence=evidence_with, unsmoked=smoke.plan)))
    release = written(folder, bundle, wanted.single, lambda: _record(desk, channel, evidence, parts, bundle, smoke))
    return Assembled(
        channel=channel,
        artifact=evidence.artifact,
        name=desk.name_of(evidence.artifact),
        folder=str(folder),
        single=str(wanted.single) if wanted.single else "",
        plan=digest(bundle.plan),
        plan_size=len(bundle.files["plan.json"]),
        release=release,
        visible=bundle.registry.routes[0].visible,
        files=len(bundle.files),
        size=sum(map(len, bundle.files.values())),
    )


def _smoke(desk: Desk, bundle: Bundle, program: str) -> BrowserSmoke:
    """Let a browser open the bundle; what it says is computed again before it is believed."""
    seen = look(bundle.files, program)
    outcome = verify(lambda path, _: bundle.files.get(path), inclusion)
    assert outcome.case is not None
    refusal = exported(lambda path, _: bundle.files.get(path), outcome.case, canonical(seen.diagnostics))
    if refusal is not None:
        advice = "Nothing was written. If another browser says otherwise, this one computes wrongly."
        raise DigestDiffers(refusal.detail, where=seen.browser, advice=advice, reason=refusal.reason)
    told = seen.diagnostics
    return BrowserSmoke(
        header=desk.header,
        plan=told["plan"],
        page_build=told["page_build"],
        browser=seen.browser,
        engine=told["engine"],
        model=told["model"],
        logits=LogitDigest(**told["logits"]),
        state_sha256=told["state_sha256"],
        requests=seen.requests,
        passed=True,
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
    return template.parents[0] if template.operator.get("operator") == Quantise.tag() else None


def _packages(desk: Desk, names: Sequence[str], base: str) -> list[tuple[str, SourceManifest, bytes]]:
    """Registration and bytes of every package."""
    if len(set(names)) < len(names):
        raise UsageError("a package is named twice", where="--adapter", advice="Name it once.", reason="usage.twice")
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
        data = desk.workspace.blob(source.adapter_sha256)
        for made_from in parse_adapter(data, name).meta.digests.values():
            require_offered(desk, made_from)
        found.append((*held, data))
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
    packages = [package for _, _, package in sources]
    measured = measure(data, packages, base, needs(model, ENGINE_SHA256), model.shape.smoke_positions)
    manifest = describe(desk, evidence, measured.logits)
    stack = [
        Applied(parse_adapter(package), source, registered, diagnostics)
        for (source, registered, package), diagnostics in zip(sources, measured.stack, strict=True)
    ]
    adapters = adapter_manifests(desk.header, manifest, stack)
    records = list(evidence.records.items())
    records += [(f"adapter-{k}-source", source) for k, (source, _, _) in enumerate(sources, 1)]
    ledger = ledger_evidence(desk, records)
    texts = {"ledger": write_record(ledger)}
    texts |= {role: _bytes(desk, record) for role, record in records}
    return Parts(
        header=desk.header,
        channel=channel,
        model=manifest,
        adapters=adapters,
        family=family_receipt(desk.header, manifest, adapters, measured.whole) if adapters else None,
        evidence=texts,
        checkpoint=ledger.checkpoint,
        eval_case=eval_case(desk.scorecard(evidence.records["evaluation"])),
        binaries={"engine": engine_bytes(), "model": data}
        | {f"adapter-{k}": package for k, package in enumerate(packages, 1)},
        page=page(),
        unsmoked=None,
    )


def describe(desk: Desk, evidence: Evidence, logits: LogitDigest) -> ModelManifest:
    """The manifest of the model that evidence is about.

    Args:
        desk: The lab.
        evidence: What its bundle rests on.
        logits: What the engine computes of it.

    Raises:
        DigestDiffers: if its bytes are gone.
        OverBudget: if they are too many for a page.
    """
    model = parse_slm(_model(desk, evidence.artifact), f"model {evidence.artifact[:16]}")
    base = _quantised_from(desk, evidence)
    get, records = desk.workspace.get, evidence.records
    candidate = get(records["candidate"], CandidateManifest)
    card = desk.scorecard(records["evaluation"])
    champion = desk.scorecard(evidence.champion_card) if evidence.champion_card else None
    return ModelManifest(
        header=desk.header,
        name=candidate.name,
        artifact=candidate.artifact,
        storage=_storage(model),
        parameters=model.shape.parameter_count,
        vocab_size=model.shape.vocab_size,
        max_context=model.shape.max_context,
        tokenizer_sha256=model.tokenizer_sha256,
        layout_sha256=model.layout_sha256,
        base=base,
        quantise_receipt=records["operator-receipt"] if base else None,
        licence=candidate.licence,
        claim=get(records["admission"], AdmissionRecord).claim,
        runtime=needs(model, ENGINE_SHA256),
        logits=logits,
        lineage=lineage(desk, evidence.artifact),
        role=card.role,
        scores=scores(card, champion),
        unsupported=candidate.unsupported,
        trade_offs=candidate.trade_offs,
        fallback=candidate.fallback,
    )


def _storage(model: Slm) -> Literal["f32", "q8_0", "q4_0", "mixed"]:
    labels: tuple[Literal["f32", "q8_0", "q4_0", "mixed"], ...] = ("f32", "q8_0", "q4_0")
    return next((label for label in labels if label == model.label), "mixed")


def _bytes(desk: Desk, record: str) -> bytes:
    entry = desk.workspace.entry(record)
    assert entry is not None
    return write_record(desk.workspace.get(record, KINDS[entry.record_kind]))


def _checked(bundle: Bundle) -> Bundle:
    """The bundle, after going through it as a page will; before anything of it is recorded or written."""
    refusal = verify(lambda path, _: bundle.files.get(path), inclusion).refusal
    if refusal is not None:
        advice = "Nothing was written. Run `studbook verify`; if the lab holds, this is a defect: please report it."
        text = f"the bundle would be refused at {refusal.step}: {refusal.detail}"
        raise DigestDiffers(text, where=refusal.module or "plan", advice=advice, reason=refusal.reason)
    return bundle


def _record(
    desk: Desk, channel: str, evidence: Evidence, parts: Parts, bundle: Bundle, smoke: BrowserSmoke | None
) -> str:
    """Enter everything the bundle is made of, its plan, and last that it was assembled; digest of that."""
    release = BundleRelease(
        header=desk.header,
        channel=channel,  # type: ignore[arg-type]
        artifact=evidence.artifact,
        move=evidence.records["move"],
        plan=digest(bundle.plan),
        registry=digest(bundle.registry),
        assembly_receipt=digest(bundle.receipt),
        page_build=bundle.plan.page.build,
        browser_smoke=bundle.receipt.browser_smoke,
    )
    family = (parts.family,) if parts.family else ()
    ledger = read_struct(parts.evidence["ledger"], LedgerEvidence)
    seen = (smoke,) if smoke else ()
    texts = (parts.model, *parts.adapters, *family, bundle.registry, ledger, *seen)
    made = (*texts, bundle.receipt, bundle.plan, release)
    return desk.workspace.commit_all([Accession(record) for record in made])[-1]
