"""One artifact under audit: exactly what it is, what made and judged it, what could change that, and what must be kept."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from studbook.environment import environment_class, training_environment
from studbook.errors import StudbookError
from studbook.lab.checkpoints import is_checkpoint, recipe_of
from studbook.lab.desk import Desk
from studbook.lab.producers import signatures
from studbook.lab.sources import licence_of
from studbook.models.checkpoint import parse_listing
from studbook.records import (
    CandidateManifest,
    LineageTemplate,
    OperatorReceipt,
    Scorecard,
    SourceManifest,
    SuiteManifest,
)

__all__ = ["ArtifactAudit", "Judged", "Kept", "Made", "Vouched", "audit_artifact", "needed_blobs"]


class Made(Struct, frozen=True):
    """What made an artifact.

    Attributes:
        receipt: Digest of the OperatorReceipt.
        template: Digest of the LineageTemplate.
        operator: The operator's tag, or that of the recipe which holds it.
        recipe_sha256: Identity of the work: base, parents and operator.
        revision: Version of the program that ran it.
        backend: The numeric contract its kernels keep, by digest.
        environment: Environment class of the machine.
        isolation: Measures the worker had in force.
        reproducibility: ``exact`` on any machine, or ``environment-bound``.
    """

    receipt: str
    template: str
    operator: str
    recipe_sha256: str
    revision: str
    backend: str
    environment: str
    isolation: tuple[str, ...]
    reproducibility: str


class Vouched(Struct, frozen=True):
    """A producer's signature that was checked when a source was registered.

    Attributes:
        record: Its digest.
        form: ``oms`` or ``in-toto-link``.
        key_sha256: SHA-256 of the producer's public key (DER).
        name: What the producer calls it.
        covered: How many files of it were signed.
    """

    record: str
    form: str
    key_sha256: str
    name: str
    covered: int


class Judged(Struct, frozen=True):
    """One scorecard.

    Attributes:
        record: Its digest.
        role: development, selection or sealed.
        evaluator: Identity of what scored: code and environment.
        revision: Version of the program that ran it.
        environment: Environment class of the machine.
        suites: Names of the frozen suites.
    """

    record: str
    role: str
    evaluator: str
    revision: str
    environment: str
    suites: tuple[str, ...]


class Kept(Struct, frozen=True):
    """One file that is needed to reproduce the artifact or its scores.

    Attributes:
        sha256: Digest of its bytes.
        size: Bytes.
        why: What it is needed for.
        here: Whether it lies in the lab.
        recomputable: Whether a receipt here can make it again, so that it may be missing.
    """

    sha256: str
    size: int
    why: str
    here: bool
    recomputable: bool


class ArtifactAudit(Struct, frozen=True):
    """What an auditor asks about one artifact.

    Attributes:
        artifact: Digest of its bytes.
        name: What people call it.
        size: Bytes.
        manifest: Digest of the record that speaks for it.
        entered: When that record entered the ledger, UTC.
        licence: SPDX identifier, or None.
        made: What made it; None for a registered source.
        vouched: Producers' signatures over it, oldest first.
        judged: Its scorecards, oldest first.
        assumptions: What could change the result, in words.
        keep: What must be kept.
    """

    artifact: str
    name: str
    size: int
    manifest: str
    entered: str
    licence: str | None
    made: Made | None
    vouched: tuple[Vouched, ...]
    judged: tuple[Judged, ...]
    assumptions: tuple[str, ...]
    keep: tuple[Kept, ...]


def audit_artifact(desk: Desk, name: str) -> ArtifactAudit:
    """Everything on record about how one artifact came to be and what its results rest on.

    Raises:
        UsageError: if nothing, or more than one thing, is called that.
    """
    artifact = desk.find_model(name)
    digest, manifest = _manifest(desk, artifact)
    entry = desk.workspace.entry(digest)
    judged = tuple(_judged(desk, d, c) for d, c in desk.all(Scorecard) if c.artifact == artifact)
    made = _made(desk, manifest) if isinstance(manifest, CandidateManifest) else None
    signed = signatures(desk, artifact)
    vouched = tuple(Vouched(d, s.form, s.key_sha256, s.name, len(s.covered)) for d, s in signed)
    return ArtifactAudit(
        artifact=artifact,
        name=desk.name_of(artifact),
        size=manifest.artifact.size,
        manifest=digest,
        entered=entry.time if entry else "",
        licence=licence_of(desk, artifact),
        made=made,
        vouched=vouched,
        judged=judged,
        assumptions=tuple(_assumptions(desk, artifact, manifest, made, vouched, judged)),
        keep=_keep(desk, artifact),
    )


def needed_blobs(desk: Desk, artifact: str) -> dict[str, str]:
    """Files without which a bred artifact cannot be made again, or a source is lost: digest -> why.

    Base and parents at every depth; of what was bred here the artifact itself is not among them.
    """
    bred = {m.artifact.sha256: m for _, m in reversed(desk.candidates())}
    found: dict[str, str] = {}
    pending, seen = [artifact], {artifact}
    while pending:
        current = pending.pop()
        if current in bred:
            template = desk.workspace.get(bred[current].template, LineageTemplate)
            above = [a for a in dict.fromkeys((template.base, *template.parents)) if a not in seen]
            seen.update(above)
            pending += above
            continue
        called = desk.name_of(current)
        found |= dict.fromkeys(_files_of(desk, current), f"bytes of {called}, a source")
    return found


def _manifest(desk: Desk, artifact: str) -> tuple[str, CandidateManifest | SourceManifest]:
    for digest, candidate in desk.candidates():
        if candidate.artifact.sha256 == artifact:
            return digest, candidate
    return desk.registered()[artifact]


def _made(desk: Desk, manifest: CandidateManifest) -> Made:
    template = desk.workspace.get(manifest.template, LineageTemplate)
    receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
    fields = receipt.operator.get("operator", "")
    recipe = recipe_of(template)
    return Made(
        receipt=manifest.receipt,
        template=manifest.template,
        operator=str(fields if isinstance(fields, str) else fields.get("operator", recipe)),
        recipe_sha256=template.recipe_sha256,
        revision=f"{receipt.header.source} {receipt.header.version}",
        backend=receipt.numeric_contract,
        environment=receipt.header.environment,
        isolation=receipt.isolation,
        reproducibility=receipt.reproducibility,
    )


def _judged(desk: Desk, digest: str, card: Scorecard) -> Judged:
    suites = tuple(desk.workspace.get(r.suite, SuiteManifest).name for r in card.results)
    revision = f"{card.header.source} {card.header.version}"
    return Judged(digest, card.role, card.evaluator, revision, card.header.environment, suites)


def _assumptions(
    desk: Desk,
    artifact: str,
    manifest: CandidateManifest | SourceManifest,
    made: Made | None,
    vouched: tuple[Vouched, ...],
    judged: tuple[Judged, ...],
) -> Iterator[str]:
    if made is None:
        yield "how it was trained is its producer's word; this lab checked its form, not its making"
        if not vouched:
            yield "who its producer is was not checked: no signature over its files is on record"
        for signature in vouched:
            yield f"that the key {signature.key_sha256[:16]} is its producer's is the word of whoever registered it"
    elif made.reproducibility == "exact":
        yield f"its bytes come out the same on any machine whose kernels keep the numeric contract {made.backend[:16]}"
    else:
        yield f"its bytes come out the same in the environment {made.environment} only"
    here = training_environment() if made and made.reproducibility != "exact" else environment_class()
    if made is not None and made.environment != here:
        yield f"it was bred in another environment than this machine's, {here}"
    for evaluator in dict.fromkeys(j.evaluator for j in judged):
        where = next(j for j in judged if j.evaluator == evaluator).environment
        yield f"its scores hold for the evaluator {evaluator[:16]} in {where}; another may score otherwise"
    if judged:
        suites = len({s for j in judged for s in j.suites})
        yield f"its scores say what {suites} frozen suites ask; other items, or another lock, may say otherwise"
    else:
        yield "no suite has scored it"
    if licence_of(desk, artifact) in (None, "NOASSERTION"):
        yield "its licence is not stated"
    elif made is not None:
        yield "its licence is the strictest of what its sources declare; whether they may declare it was not examined"
    for text in manifest.unsupported:
        yield f"it does not support: {text}"
    if why := desk.revoked(artifact):
        yield f"it counts no longer: it {why}"


def _keep(desk: Desk, artifact: str) -> tuple[Kept, ...]:
    workspace = desk.workspace
    bred = {m.artifact.sha256 for _, m in desk.candidates()}
    wanted = dict.fromkeys(_files_of(desk, artifact), "bytes of the artifact itself") if artifact in bred else {}
    wanted |= {d: why for d, why in needed_blobs(desk, artifact).items() if d not in wanted}
    for _, card in desk.all(Scorecard):
        for result in card.results if card.artifact == artifact else ():
            suite = workspace.get(result.suite, SuiteManifest)
            wanted.setdefault(suite.items.sha256, f"items of the suite {suite.name}, which scored it")
    own = _files_of(desk, artifact) if artifact in bred else ()
    return tuple(_kept(desk, d, why, recomputable=d in own) for d, why in wanted.items())


def _kept(desk: Desk, digest: str, why: str, *, recomputable: bool) -> Kept:
    path = desk.workspace.blob_path(digest)
    return Kept(digest, desk.workspace.blob_size(digest), why, path.is_file(), recomputable)


def _files_of(desk: Desk, artifact: str) -> tuple[str, ...]:
    """Digests of the files of an artifact: itself, and for a checkpoint every file that its list names."""
    if not is_checkpoint(desk, artifact):
        return (artifact,)
    try:
        listed = parse_listing(desk.workspace.blob(artifact), desk.name_of(artifact))
    except StudbookError:
        return (artifact,)
    return (artifact, *dict.fromkeys(entry.sha256 for entry in listed))
