"""Breed candidates in workers, and reproduce them from their receipts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from studbook.breeding.operators import AnyOperator, decode_operator
from studbook.breeding.produce import CHUNK, check_output, describe, produce
from studbook.breeding.recipes import expand, wants_one_parent
from studbook.breeding.recompute import recompute
from studbook.breeding.template import draft, operator_fields
from studbook.breeding.worker import OUTPUT
from studbook.errors import OutOfOrder, OverBudget, ParentsDoNotFit, UsageError
from studbook.executor import in_order
from studbook.files import read_file
from studbook.lab import checkpoints
from studbook.lab.absence import check_not_withdrawn
from studbook.lab.checkpoint_store import already_bred
from studbook.lab.desk import Desk
from studbook.lab.federated import write_federated
from studbook.lab.generations import require_depth
from studbook.lab.slices import check_apart, check_slices, data_of, offered, with_clients
from studbook.lab.sources import compare_parents, licence_of
from studbook.models.slm import Slm, parse_slm
from studbook.policy import check_operator, inherited_licence
from studbook.records import CandidateManifest, FailureCluster, LineageTemplate, OperatorReceipt, digest

__all__ = ["Herd", "Order", "breed_all", "manifest_of", "plan", "reproduce", "reproduce_manifest", "template_of"]

_LIMIT = 134_217_728


class Herd(NamedTuple):
    """What candidates are bred from.

    Attributes:
        cluster: Digest of the FailureCluster.
        champion: Digest of the champion; operators of one parent work on it.
        base: Digest of the parents' shared base.
        parents: Digests of the parents.
        compatibility: Digest of their passing CompatibilityReport.
    """

    cluster: str
    champion: str
    base: str
    parents: tuple[str, ...]
    compatibility: str


class Order(NamedTuple):
    """One candidate to be bred.

    Attributes:
        template: What is declared.
        operator: The operator.
    """

    template: LineageTemplate
    operator: AnyOperator


def plan(
    desk: Desk,
    herd: Herd,
    recipes: Sequence[Mapping[str, Any]],
    purpose: Literal["candidate", "ablation"] = "candidate",
) -> tuple[Order, ...]:
    """Declare every candidate before any is bred; equal recipes are declared once.

    Raises:
        OutsideAllowlist: if the policy does not allow an operator or a parameter.
        OverBudget: if there are more candidates than the policy allows, or one would break its budget, that of
            generations included.
        ParentsDoNotFit: if a recipe wants another number of parents.
    """
    policy_digest, policy = desk.policy
    if len(recipes) > policy.budget.candidates:
        raise OverBudget(f"{len(recipes)} recipes; the policy allows {policy.budget.candidates} candidates a round")
    models: dict[str, Slm] = {}
    orders: dict[str, Order] = {}
    for recipe in recipes:
        single = wants_one_parent(recipe)
        parents = (herd.champion,) if single else herd.parents
        base = herd.champion if single else herd.base
        operator = expand(with_clients(desk, recipe), len(parents), offered(desk, herd.cluster))
        check_operator(policy, operator_fields(operator))
        check_slices(desk, operator, herd.cluster, parents)
        check_apart(desk, operator)
        require_depth(desk, (base, *parents), operator.family)
        for needed in (base, *parents):
            models.setdefault(needed, desk.model(needed))
        template = draft(
            desk.header,
            policy,
            policy_digest,
            herd.cluster,
            None if single else herd.compatibility,
            operator,
            models[base],
            [models[p] for p in parents],
            purpose,
        )
        orders.setdefault(template.recipe_sha256, Order(template, operator))
    return tuple(orders.values())


def breed_all(desk: Desk, orders: Sequence[Order], title: str = "breeding") -> tuple[str, ...]:
    """Breed what is declared, a few at a time; what the ledger holds already is not bred again.

    Returns:
        Digests of the CandidateManifests, in the orders' order.

    Raises:
        ParentsDoNotFit: if an output differs from what was declared; the candidate is not accepted.
        StudbookError: any of its kinds, if a worker fails.
    """
    known = {m.template: d for d, m in desk.candidates()}
    for order in orders:
        desk.workspace.commit(order.template)
    missing = [o for o in orders if digest(o.template) not in known]
    if missing:
        desk.require_isolation()
    for order in orders:
        if order not in missing:
            desk.progress.say(already_bred(desk, known[digest(order.template)]))
    bred = desk.progress.count(title, _breed_missing(desk, missing), len(missing))
    for template_digest, manifest in bred:
        known[template_digest] = manifest
    return tuple(known[digest(o.template)] for o in orders)


def _breed_missing(desk: Desk, orders: Sequence[Order]) -> Iterator[tuple[str, str]]:
    def work(numbered: tuple[int, Order]) -> tuple[Order, Any]:
        number, order = numbered
        template = order.template
        paths = _paths(desk, template)
        folder = desk.workspace.work_folder(f"breed-{number}")
        return order, produce(desk.header, template, paths, folder)

    for order, bred in in_order(work, list(enumerate(orders))):
        yield digest(order.template), _accept(desk, order, bred)


def _accept(desk: Desk, order: Order, bred: Any) -> str:
    template, receipt = order.template, bred.receipt
    if receipt.output.sha256 in (template.base, *template.parents):
        raise ParentsDoNotFit(
            f"{order.operator.family} changed nothing: its output is {desk.name_of(receipt.output.sha256)} itself",
            where="recipe",
            advice="Give the recipe parameters that do something.",
            reason="parents.unchanged",
        )
    data = read_file(bred.path, _LIMIT)
    checks = check_output(template, receipt, parse_slm(data, str(bred.path)))
    if failed := [c for c in checks if not c.passed]:
        raise ParentsDoNotFit(
            f"{order.operator.family}: {failed[0].name} differs from what was declared: {failed[0].detail}",
            advice="The operator broke its declaration; nothing was accepted. Please report it.",
            reason="parents.undeclared",
        )
    _, policy = desk.policy
    licences = [found for p in template.parents if (found := licence_of(desk, p))]
    manifest = describe(
        desk.header,
        template,
        bred,
        checks,
        order.operator.family,
        inherited_licence(policy, licences) if licences else "NOASSERTION",
        data_of(desk, template, order.operator),
        (_trade_off(template, receipt), *bred.notes),
        template.base,
    )
    if bred.sent:
        write_federated(desk, template, bred.sent, receipt.output.sha256)
    desk.workspace.commit(receipt, {receipt.output.sha256: data})
    accepted = desk.workspace.commit(manifest)
    if template.cluster and template.expected.tokenizer_sha256 != desk.model(template.parents[0]).tokenizer_sha256:
        # The child has another vocabulary: what that changes is put on record against both tokenizers.
        rows = desk.workspace.get(template.cluster, FailureCluster).training_slice
        compare_parents(desk, template.parents[0], [receipt.output.sha256], rows)
    return accepted


def _trade_off(template: LineageTemplate, receipt: OperatorReceipt) -> str:
    expected = template.expected
    stored = "" if expected.label == "f32" else f"; its weights are stored in {expected.label}"
    bound = "; exact on the recorded environment only" if receipt.reproducibility != "exact" else ""
    moved = f"moved {receipt.delta_norm:.4g} away from its base, of at most {expected.delta_norm:.4g} declared (L2)"
    return f"{moved}{stored}{bound}"


def reproduce(
    desk: Desk, name: str, *, folder: Path | None = None, threads: int = 1, chunk: int = CHUNK, restore: bool = False
) -> str:
    """Breed a candidate again from parents and receipt alone, and compare digests.

    Args:
        desk: The lab.
        name: Name or digest of a candidate.
        folder: Where to work, empty or new, left as it is afterwards; below the lab's cache, and removed, by default.
        threads: Threads of the worker.
        chunk: Elements computed at a time.
        restore: Put the bytes back if they were deleted from the lab.

    Returns:
        The digest, equal to the recorded one.

    Raises:
        UsageError: if there is no such candidate.
        DigestDiffers: if other bytes came out.
    """
    artifact = desk.find_model(name)
    manifest = next((m for _, m in desk.candidates() if m.artifact.sha256 == artifact), None)
    if manifest is None:
        raise UsageError(f"{name!r} was registered, not bred here, so there is no receipt to reproduce it from")
    with _place(desk, folder, artifact) as place:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise UsageError("is not empty", where=place, advice="Name an empty or new folder.")
        found = reproduce_manifest(desk, manifest, place, threads=threads, chunk=chunk)
        if restore:
            _restore(desk, artifact, place)
    return found


@contextmanager
def _place(desk: Desk, folder: Path | None, name: str) -> Iterator[Path]:
    """The folder that the caller names, which stays; or one of the lab's own, which goes whatever comes out."""
    if folder is not None:
        yield folder
        return
    own = desk.workspace.work_folder(f"reproduce-{name[:16]}")
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _restore(desk: Desk, artifact: str, folder: Path) -> None:
    """Put back what is missing of an artifact that was bred again into a folder."""
    check_not_withdrawn(desk, artifact)
    if checkpoints.is_checkpoint(desk, artifact):
        checkpoints.restore(desk, artifact, folder)
    else:
        desk.workspace.mend_blob(artifact, read_file(folder / OUTPUT, _LIMIT))


def reproduce_manifest(
    desk: Desk, manifest: CandidateManifest, folder: Path | None = None, *, threads: int = 1, chunk: int = CHUNK
) -> str:
    """The same for one manifest; an artifact that two recipes gave has two.

    Raises:
        DigestDiffers: if other bytes came out.
    """
    receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
    template = desk.workspace.get(manifest.template, LineageTemplate)
    desk.require_isolation()
    with _place(desk, folder, manifest.receipt) as place:
        if checkpoints.recipe_of(template) is not None:
            return checkpoints.reproduce_checkpoint(desk, manifest, place, threads=threads, chunk=chunk)
        return recompute(template, receipt, _paths(desk, template), place, threads=threads, chunk=chunk)


def _paths(desk: Desk, template: LineageTemplate) -> dict[str, Path]:
    slices = () if checkpoints.recipe_of(template) else decode_operator(template.operator).slices()
    paths = {d: desk.workspace.blob_path(d) for d in (template.base, *template.parents, *slices)}
    for digest_, path in paths.items():
        if not path.is_file():
            raise OutOfOrder(
                f"the bytes of {desk.name_of(digest_)} are not in the lab",
                where=path,
                advice=f"If it was bred here: studbook reproduce {digest_[:12]} --restore",
            )
    return paths


def manifest_of(desk: Desk, digest_: str) -> CandidateManifest:
    """A candidate's manifest by its own digest."""
    return desk.workspace.get(digest_, CandidateManifest)


def template_of(desk: Desk, manifest: str) -> LineageTemplate:
    """The lineage template of a candidate, by its manifest's digest."""
    return desk.workspace.get(manifest_of(desk, manifest).template, LineageTemplate)
