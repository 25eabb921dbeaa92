"""Checkpoints in the lab: names become digests, approved models become a child, and a child leaves as a folder."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from studbook.breeding.checkpoint_produce import (
    Grown,
    bytes_of,
    check_checkpoint,
    draft_checkpoint,
    produce_checkpoint,
    recipe_of,
    recompute_checkpoint,
)
from studbook.breeding.checkpoint_recipe import CheckpointRecipe, decode_recipe
from studbook.breeding.checkpoint_sources import Files
from studbook.breeding.checkpoint_worker import PROGRESS
from studbook.breeding.produce import Bred, describe
from studbook.breeding.recipes import expand, wants_one_parent
from studbook.breeding.sources import SlmTensors
from studbook.breeding.template import operator_fields
from studbook.errors import OutOfOrder, ParentsDoNotFit, RecordRefused, UsageError
from studbook.exchange.mergekit import translate_mergekit
from studbook.lab.desk import Desk
from studbook.lab.sources import licence_of
from studbook.models.checkpoint import open_checkpoint, parse_listing
from studbook.models.safetensors_writer import JOURNAL
from studbook.policy import check_operator, inherited_licence
from studbook.records import (
    CandidateManifest,
    CheckpointSource,
    JsonObject,
    LineageTemplate,
    LoraSource,
    OperatorReceipt,
    ParentApproval,
    digest,
)
from studbook.registry.approval import select_approved_parents
from studbook.tensors.sources import TensorSource

__all__ = [
    "breed",
    "breed_checkpoint",
    "bytes_of",
    "is_checkpoint",
    "recipe_of",
    "reproduce_checkpoint",
    "resolve",
    "simple_recipe",
    "stored",
    "tensors",
]

_SHARD_BYTES = 5_000_000_000
_TICK = 0.2
_WHO = "any cluster"


def is_checkpoint(desk: Desk, artifact: str) -> bool:
    """Whether an artifact is a list of files, registered or bred, and not an SLM1 container."""
    registered = desk.registered().get(artifact)
    if registered is not None:
        return isinstance(registered[1].source, CheckpointSource | LoraSource)
    return any(
        c.artifact.sha256 == artifact and recipe_of(desk.workspace.get(c.template, LineageTemplate)) is not None
        for _, c in desk.candidates()
    )


def stored(desk: Desk, artifact: str) -> Files:
    """The files of a checkpoint or LoRA folder: relative path -> where it lies in the store.

    Raises:
        OutOfOrder: if their bytes are gone.
    """
    listing = parse_listing(desk.workspace.blob(artifact), f"files of {desk.name_of(artifact)}")
    found = {entry.path: desk.workspace.blob_path(entry.sha256) for entry in listing}
    for path in found.values():
        if not path.is_file():
            raise OutOfOrder(
                f"bytes of {desk.name_of(artifact)} are not in the lab",
                where=path,
                advice=f"If it was bred here: studbook reproduce {artifact[:12]} --restore",
            )
    return found


def tensors(desk: Desk, artifact: str) -> TensorSource:
    """The tensors of any model of the lab."""
    if is_checkpoint(desk, artifact):
        return open_checkpoint(stored(desk, artifact), artifact)
    return SlmTensors(desk.model(artifact))


def breed(desk: Desk, recipe: Mapping[str, Any], parents: Sequence[str], base: str | None, threads: int | None) -> str:
    """Breed a checkpoint from an operator record, a whole recipe with names, or the text of a mergekit file.

    Raises:
        UsageError: if parents are missing, or named twice.
        StudbookError: any of its kinds.
    """
    plain: Mapping[str, Any] = recipe
    if "mergekit" in recipe:
        if not (isinstance(recipe["mergekit"], str) and isinstance(recipe.get("where"), str)):
            raise RecordRefused("mergekit is the text of a YAML file", where="recipe", advice="Use --mergekit FILE.")
        plain = _translated(desk, recipe["mergekit"], recipe["where"], recipe.get("seed"))
    elif "parents" not in recipe:
        if not parents:
            raise UsageError("no parent is named", where="--parent", advice="Name the checkpoints: --parent NAME ...")
        plain = simple_recipe(desk, recipe, parents, base)
    elif parents or base:
        raise UsageError(
            "the recipe names its parents itself", where="--parent", advice="Leave --parent and --base out."
        )
    return breed_checkpoint(desk, resolve(desk, plain), threads)


def _draws(operator: Mapping[str, Any]) -> bool:
    """Whether an operator, or one it holds, has a seed."""
    return "seed" in operator or any(_draws(part) for part in operator.values() if isinstance(part, dict))


def _translated(desk: Desk, text: str, where: str, seed: int | None) -> Mapping[str, Any]:
    """A mergekit file as a recipe; what its reader may not expect is said."""
    found = translate_mergekit(text, where, lambda name: tensors(desk, _find(desk, name)[0]).names, seed=seed or 0)
    if seed is not None and not _draws(found.recipe["operator"]):
        raise UsageError("this merge draws nothing at random", where="--seed", advice="Leave --seed out.")
    for note in found.notes:
        desk.progress.say(f"{where}: {note}")
    return found.recipe


def _find(desk: Desk, name: str) -> tuple[str, str]:
    """A model by its name, or by the last part of a path or of a hub's ``owner/name``; and the name it was found by."""
    try:
        return desk.find_model(name), name
    except UsageError:
        last = name.rstrip("/").rpartition("/")[2]
        if not last or last == name:
            raise
        return desk.find_model(last), last


def simple_recipe(desk: Desk, recipe: Mapping[str, Any], parents: Sequence[str], base: str | None) -> JsonObject:
    """A checkpoint recipe, with names, from an operator record and the names of its parents.

    Args:
        desk: The lab.
        recipe: An operator record; one number may stand for every parent.
        parents: Names, in order.
        base: Name of the shared base; a single parent is its own, and operators that only average need none.

    Raises:
        UsageError: if the operator needs a base and none is named.
    """
    operator = operator_fields(expand(recipe, len(parents)))
    if base is None and not wants_one_parent(recipe) and "weights" not in recipe:
        raise UsageError("these parents need a base", where="--base", advice="Name the model they were tuned from.")
    donor = base or parents[0]
    return {
        "operator": operator,
        "base": {"model": donor, "adapter": None, "layers": None},
        "parents": [{"model": p, "adapter": None, "layers": None} for p in parents],
        "config_from": donor,
        "tokenizer_from": donor,
        "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "base"},
        "dtype": "keep",
    }


def resolve(desk: Desk, plain: Mapping[str, Any]) -> CheckpointRecipe:
    """A recipe whose models are named as people name them, with digests in their place.

    Raises:
        UsageError: if a name is nobody's, or another kind of model's.
        StudbookError: any of its kinds, if the recipe is not valid.
    """
    named = _named(plain)
    told: set[str] = set()

    def found(name: str, kind: type) -> str:
        artifact, taken = _find(desk, name)
        if taken != name and name not in told:
            told.add(name)
            desk.progress.say(f"{name} is taken for {taken} of this lab, {artifact[:12]}")
        registered = desk.registered().get(artifact)
        fits = isinstance(registered[1].source, kind) if registered else kind is CheckpointSource
        if not (fits and is_checkpoint(desk, artifact)):
            what = "a checkpoint" if kind is CheckpointSource else "a LoRA folder"
            advice = (
                "Register the folder it lies in. An SLM1 model is bred for a cluster: studbook breed CLUSTER RECIPE"
            )
            raise UsageError(f"{name!r} is not {what}", where="recipe", advice=advice)
        return artifact

    def place(part: _NamedView | _NamedSegment) -> dict[str, Any]:
        adapter = None if part.adapter is None else found(part.adapter, LoraSource)
        return {"model": found(part.model, CheckpointSource), "adapter": adapter}

    def view(part: _NamedView) -> dict[str, Any]:
        layers = part.layers and [{**place(s), "first": s.first, "last": s.last} for s in part.layers]
        return {**place(part), "layers": layers}

    fields: dict[str, Any] = {"recipe": "checkpoint-recipe/1", **msgspec.to_builtins(named)}
    fields["base"] = view(named.base)
    fields["parents"] = [view(p) for p in named.parents]
    fields["config_from"] = found(named.config_from, CheckpointSource)
    fields["tokenizer_from"] = found(named.tokenizer_from, CheckpointSource)
    return decode_recipe(fields)


class _NamedSegment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    adapter: str | None
    first: int
    last: int


class _NamedView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    adapter: str | None
    layers: tuple[_NamedSegment, ...] | None


class _NamedRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operator: JsonObject
    base: _NamedView
    parents: tuple[_NamedView, ...]
    config_from: str
    tokenizer_from: str
    vocabulary: JsonObject
    dtype: str
    shard_bytes: int = _SHARD_BYTES


def _named(plain: Mapping[str, Any]) -> _NamedRecipe:
    """A recipe whose models are still named as people name them, each field of its type.

    Raises:
        RecordRefused: naming the field that is missing, unknown or of another type.
    """
    fields = {k: v for k, v in plain.items() if k != "recipe" or v != "checkpoint-recipe/1"}
    try:
        return msgspec.convert(fields, _NamedRecipe, strict=True)
    except msgspec.ValidationError as error:
        raise RecordRefused(
            str(error),
            where="checkpoint recipe",
            advice="Write every field of the recipe, each of its type: docs/checkpoints.md.",
            reason="recipe.record",
        ) from error


def breed_checkpoint(desk: Desk, recipe: CheckpointRecipe, threads: int | None = None) -> str:
    """Breed one checkpoint from approved models; one that the ledger holds already is not bred again.

    Returns:
        The artifact's digest.

    Raises:
        OutOfOrder: if a model is not approved as a parent.
        OutsideAllowlist: if the policy does not allow the operator.
        ParentsDoNotFit: if models do not fit, or the output differs from what was declared.
        StudbookError: any of its kinds, if the worker fails; finished shards are kept for the next attempt.
    """
    policy_digest, policy = desk.policy
    check_operator(policy, recipe.operator)
    _require_approved(desk, [f for d in recipe.sources() for f in desk.founders_of(d)])
    files = {d: stored(desk, d) for d in recipe.sources()}
    template = draft_checkpoint(desk.header, policy, policy_digest, recipe, files)
    for _, manifest in desk.candidates():
        if manifest.template == digest(template):
            return manifest.artifact.sha256
    desk.workspace.commit(template)
    folder = _resumable(desk.workspace.resume_folder(template.recipe_sha256[:16]))
    with _shown(desk, folder, "breeding", template):
        grown = produce_checkpoint(desk.header, template, files, folder, threads=threads)
    artifact = _accept(desk, template, recipe, grown)
    shutil.rmtree(folder, ignore_errors=True)
    return artifact


def reproduce_checkpoint(
    desk: Desk, manifest: CandidateManifest, folder: Path, *, threads: int | None = None, chunk: int | None = None
) -> str:
    """Breed a checkpoint again from its models and receipt; the digest, equal to the recorded one."""
    receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
    template = desk.workspace.get(manifest.template, LineageTemplate)
    files = {d: stored(desk, d) for d in dict.fromkeys((template.base, *template.parents))}
    options = {} if chunk is None else {"chunk": chunk}
    with _shown(desk, folder, "reproducing", template):
        return recompute_checkpoint(template, receipt, files, folder, threads=threads, **options)


def _require_approved(desk: Desk, artifacts: Sequence[str]) -> None:
    """Every registered model must be approved, and of what was bred here every one that it descends from."""
    registered = {a: found for a, found in desk.registered().items() if a in artifacts}
    approvals = [a for _, a in desk.all(ParentApproval)]
    for excluded in select_approved_parents(_WHO, registered, approvals, "", date.today()).excluded:
        raise OutOfOrder(
            f"{excluded.name} {excluded.reason}",
            advice=f"A person approves it: studbook approve {excluded.name} --as PERSON",
            reason="order.approval",
        )


def _resumable(folder: Path) -> Path:
    """A folder that an earlier run of this work left, or an empty one if anything in it is not as that run leaves it."""
    child = folder / "child"
    plain = child.is_dir() and not child.is_symlink()
    journal = child / JOURNAL
    if not (plain and journal.is_file() and not journal.is_symlink()):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def _accept(desk: Desk, template: LineageTemplate, recipe: CheckpointRecipe, grown: Grown) -> str:
    receipt = grown.receipt
    if receipt.output.sha256 in (template.base, *template.parents):
        raise ParentsDoNotFit(
            f"changed nothing: the output is {desk.name_of(receipt.output.sha256)} itself",
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
    """Show how far a worker is, in bytes of the child, by the share of its elements it writes down now and then."""
    ended, size = threading.Event(), template.expected.size_bytes
    with desk.progress.measure(what, size) as shown:

        def follow() -> None:
            told = 0
            while not ended.wait(_TICK):
                with suppress(OSError, ValueError):
                    done = size * min(int((folder / PROGRESS).read_text()), 1_000_000) // 1_000_000
                    shown(done - told)
                    told = done

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
