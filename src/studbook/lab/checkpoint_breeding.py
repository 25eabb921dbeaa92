"""Breeding checkpoints in the lab: what was bred already is found, what was interrupted goes on, what is gone comes back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from studbook.breeding.checkpoint_produce import (
    Grown,
    bytes_of,
    check_checkpoint,
    produce_checkpoint,
    recompute_checkpoint,
    unchanged,
)
from studbook.breeding.checkpoint_recipe import CheckpointRecipe
from studbook.breeding.checkpoint_sources import Files
from studbook.breeding.checkpoint_template import child_files, draft_checkpoint, recipe_digest, recipe_of
from studbook.breeding.checkpoint_worker import MILLION, PROGRESS, RESUMED
from studbook.breeding.produce import Bred, describe
from studbook.errors import BytesLie, DigestDiffers, ParentsDoNotFit, StudbookError
from studbook.files import read_file
from studbook.lab import clock
from studbook.lab.approvals import require_approved
from studbook.lab.checkpoint_store import already_bred, intact, stored
from studbook.lab.desk import Desk
from studbook.lab.generations import require_depth
from studbook.lab.resume import resumable
from studbook.lab.sources import licence_of
from studbook.policy import check_operator, inherited_licence
from studbook.records import CandidateManifest, LineageTemplate, OperatorReceipt
from studbook.tensors.contract import CONTRACT_SHA256

__all__ = ["breed_checkpoint", "reproduce_checkpoint", "restore"]

_TICK = 0.2
_NOTE_BYTES = 256
_WHO = "any cluster"


def breed_checkpoint(desk: Desk, recipe: CheckpointRecipe, threads: int | None = None) -> str:
    """Breed one checkpoint from approved models; one that the ledger holds already is not bred again.

    Where the bytes of one it holds are gone or changed, it is bred anew from its models alone and put back.

    Returns:
        The artifact's digest.

    Raises:
        OutOfOrder: if a model is not approved as a parent.
        OutsideAllowlist: if the policy does not allow the operator.
        OverBudget: if it would break the policy's budget, that of generations included.
        ParentsDoNotFit: if models do not fit, or the output differs from what was declared.
        DigestDiffers: if a recorded child whose bytes are gone comes out as another one.
        StudbookError: any of its kinds, if the worker fails; finished shards are kept for the next attempt.
    """
    policy_digest, policy = desk.policy
    check_operator(policy, recipe.operator)
    require_approved(desk, _WHO, recipe.sources(), clock.today())
    require_depth(desk, recipe.sources(), recipe.decoded().family)
    # The bound is dear: what was declared before is looked for first.
    declared = _declared(desk, recipe, policy_digest)
    for found, manifest in desk.candidates():
        if manifest.template in declared:
            return _again(desk, found, manifest, threads)
    files = {d: stored(desk, d) for d in recipe.sources()}
    template = next(reversed(declared.values()), None)
    if template is None:
        template = draft_checkpoint(desk.header, policy, policy_digest, recipe, files)
        desk.workspace.commit(template)
    return _grow(desk, template, recipe, files, threads)


def reproduce_checkpoint(
    desk: Desk, manifest: CandidateManifest, folder: Path, *, threads: int | None = None, chunk: int | None = None
) -> str:
    """Breed a checkpoint again from its models and receipt; the digest, equal to the recorded one.

    Raises:
        DigestDiffers: if other bytes came out.
    """
    receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
    template = desk.workspace.get(manifest.template, LineageTemplate)
    files = {d: stored(desk, d) for d in dict.fromkeys((template.base, *template.parents))}
    options = {} if chunk is None else {"chunk": chunk}
    with _shown(desk, folder, "reproducing", template):
        return recompute_checkpoint(template, receipt, files, folder, threads=threads, **options)


def restore(desk: Desk, artifact: str, folder: Path) -> None:
    """Put back what is missing of a checkpoint that was bred again into a folder.

    Raises:
        DigestDiffers: if the bytes are not the ones that were stored.
    """
    listing, files = bytes_of(folder)
    desk.workspace.mend_blob(artifact, listing)
    for digest_, path in files.items():
        desk.workspace.mend_blob(digest_, path)


def _declared(desk: Desk, recipe: CheckpointRecipe, policy: str) -> dict[str, LineageTemplate]:
    """Templates that declare this very work, by their digests, oldest first; one a version of the lab at most."""
    wanted = (recipe_digest(recipe), policy, CONTRACT_SHA256, desk.header.owner)
    return {
        d: t
        for d, t in desk.all(LineageTemplate)
        if (t.recipe_sha256, t.policy, t.numeric_contract, t.header.owner) == wanted and recipe_of(t) is not None
    }


def _again(desk: Desk, found: str, manifest: CandidateManifest, threads: int | None) -> str:
    """A child that the ledger holds; bred anew first if its bytes are not what they were."""
    artifact = manifest.artifact.sha256
    if intact(desk, artifact):
        desk.progress.say(already_bred(desk, found))
        return artifact
    desk.progress.say(f"the bytes of {manifest.name} are gone or changed: it is bred anew")
    folder = desk.workspace.work_folder(f"restore-{manifest.receipt[:16]}")
    try:
        reproduce_checkpoint(desk, manifest, folder, threads=threads)
        restore(desk, artifact, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return artifact


def _grow(
    desk: Desk, template: LineageTemplate, recipe: CheckpointRecipe, files: dict[str, Files], threads: int | None
) -> str:
    """Breed what a template declares, in the folder that an interrupted run of it may have left."""
    desk.require_isolation()
    folder = resumable(desk, template.recipe_sha256[:16], child_files(recipe, files))
    try:
        with _shown(desk, folder, "breeding", template):
            cuts = desk.workspace.path / "cache" / "thresholds"
            grown = produce_checkpoint(desk.header, template, files, folder, threads=threads, thresholds=cuts)
        artifact = _accept(desk, template, recipe, grown, files)
    except (BytesLie, DigestDiffers, ParentsDoNotFit):
        # What was refused is not gone on with.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return artifact


def _accept(
    desk: Desk, template: LineageTemplate, recipe: CheckpointRecipe, grown: Grown, files: dict[str, Files]
) -> str:
    receipt = grown.receipt
    if same := unchanged(recipe, grown.child, files):
        raise ParentsDoNotFit(
            f"changed nothing: the output has the weights of {desk.name_of(same)} itself",
            where="recipe",
            advice="Give the recipe parameters that do something.",
            reason="parents.unchanged",
        )
    checks = check_checkpoint(template, grown)
    if failed := [c for c in checks if not c.passed]:
        raise ParentsDoNotFit(
            f"{failed[0].name} differs from what was declared: {failed[0].detail}",
            advice="The operator broke its declaration; nothing was accepted. Please report it.",
            reason="parents.undeclared",
        )
    known = [licence_of(desk, d) for d in recipe.sources()]
    licences = [found for found in known if found]
    manifest = describe(
        desk.header,
        template,
        Bred(receipt, grown.folder),
        checks,
        recipe.decoded().family,
        # One parent of unknown licence leaves the child's unknown.
        inherited_licence(desk.policy[1], licences) if all(known) else "NOASSERTION",
        (),
        (
            f"moved {receipt.delta_norm:.4g} away from its base, of at most {template.expected.delta_norm:.4g} (L2)",
            *grown.notes,
        ),
        template.base,
    )
    desk.workspace.commit(receipt, {receipt.output.sha256: grown.listing, **grown.files})
    desk.workspace.commit(manifest)
    return receipt.output.sha256


@contextmanager
def _shown(desk: Desk, folder: Path, what: str, template: LineageTemplate) -> Iterator[None]:
    """Show how far a worker is, in bytes of the child, and where it goes on, by what it writes down now and then."""
    ended, size = threading.Event(), template.expected.size_bytes
    with desk.progress.measure(what, size) as shown:

        def follow() -> None:
            told, silent, last = 0, True, False
            while not last:
                last = ended.wait(_TICK)
                if silent and (found := _numbers(folder / RESUMED, 3)):
                    silent = False
                    desk.progress.say(_going_on(*found))
                if share := _numbers(folder / PROGRESS, 1):
                    done = size * min(share[0], MILLION) // MILLION
                    shown(done - told)
                    told = done

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


def _numbers(path: Path, count: int) -> list[int]:
    """What a worker wrote down in one of its notes; nothing if it is not so many whole numbers."""
    with suppress(StudbookError, OSError, ValueError):
        found = [int(word) for word in read_file(path, _NOTE_BYTES).split()]
        if len(found) == count:
            return found
    return []


def _going_on(first: int, kept: int, shards: int) -> str:
    """Where an interrupted run is gone on with."""
    if first == kept:
        return f"going on after shard {kept} of {shards}"
    return f"going on with {kept} of {shards} shards; the others of the earlier run are made again"
