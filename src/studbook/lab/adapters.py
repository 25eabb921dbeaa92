"""Adapter packages in the lab: made from two of its models or a LoRA folder, and fused into the model they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal, NamedTuple

from studbook.adapters.changes import LowRank
from studbook.adapters.make import adjacent_pairs, dense_delta, from_peft, random_delta, top_delta
from studbook.adapters.reader import Adapter, parse_adapter
from studbook.breeding.operators.adapter_fuse import AdapterFuse
from studbook.breeding.operators.quantise import Quantise
from studbook.breeding.recompute import check_receipt
from studbook.breeding.template import draft, operator_fields
from studbook.errors import OutOfOrder, ParentsDoNotFit, UsageError
from studbook.files import write_new
from studbook.lab import breeding, checkpoints, clock, judging
from studbook.lab.approvals import require_approved
from studbook.lab.desk import Desk
from studbook.lab.generations import require_depth
from studbook.lab.sources import licence_of
from studbook.lab.words import plain_name
from studbook.models.keyvalue import format_manifest
from studbook.models.peft import read_peft
from studbook.models.slm import Slm
from studbook.policy import check_operator, inherited_licence
from studbook.records import AdapterSource, LineageTemplate, OperatorReceipt, SourceManifest

__all__ = ["FUSE", "Adapters", "Made", "breed_fused", "builds"]

FUSE = AdapterFuse.tag()
MANIFEST = "source.manifest"
Kind = Literal["dense", "top", "random"]
_PARTS = {
    "self_attn.q_proj": "wq",
    "self_attn.k_proj": "wk",
    "self_attn.v_proj": "wv",
    "self_attn.o_proj": "wo",
    "mlp.gate_proj": "w1",
    "mlp.down_proj": "w2",
    "mlp.up_proj": "w3",
}
_LLAMA = re.compile(rf"(?:model\.)?layers\.(\d+)\.({'|'.join(map(re.escape, _PARTS))})\.weight")


class Made(NamedTuple):
    """A package that was written.

    Attributes:
        folder: Where it lies, with the manifest that lets it be registered.
        package: ADP1, ASP1 or ALR1.
        sha256: Digest of the package.
        size: Its bytes.
    """

    folder: Path
    package: str
    sha256: str
    size: int


class Adapters:
    """The lab's adapter packages."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def make(
        self,
        base: str,
        tuned: str,
        folder: Path,
        kind: Kind | None = None,
        share: float | None = None,
        seed: int | None = None,
    ) -> Made:
        """Write what was tuned as a package over its base.

        Args:
            base: Name of the f32 base.
            tuned: Name of the tuned model, or of a registered LoRA folder whose tensors are named as in the container.
            folder: A new folder for the package and its manifest.
            kind: ``dense``, which it is by default; ``top``: the largest differences; ``random``: drawn by the keyed
                stream. A LoRA folder becomes an ALR1 package, and takes none.
            share: Share of the elements that ``top`` and ``random`` keep; 0.1 by default.
            seed: Seed of ``random``; 1 by default.

        Raises:
            UsageError: if the folder exists, nothing is left to package, or something is asked for that nothing would
                read (``usage.ignored``).
            ParentsDoNotFit: if the two do not fit each other.
        """
        desk = self._desk
        if folder.exists():
            raise UsageError("exists already", where=folder, advice="Name a new folder.")
        found = desk.find_model(tuned)
        lora = checkpoints.is_checkpoint(desk, found)
        _check_read("kind", kind, "a LoRA folder keeps its factors", not lora)
        _check_read("share", share, "it is for --kind top or random", not lora and kind in ("top", "random"))
        _check_read("seed", seed, "it is for --kind random", not lora and kind == "random")
        model = desk.model(desk.find_model(base))
        known = {name: licence_of(desk, a) for name, a in ((base, model.sha256), (tuned, found))}
        for name, held in known.items():
            if held is None:
                raise OutOfOrder(f"{name} has no licence on record", advice="Register it with its licence.manifest.")
        licence = inherited_licence(desk.policy[1], [held for held in known.values() if held])
        kind, share = kind or "dense", 0.1 if share is None else share
        if lora:
            data = self._from_lora(model.sha256, found, licence)
        elif kind == "dense":
            data = dense_delta(model, desk.model(found), licence=licence)
        elif kind == "top":
            data = top_delta(model, desk.model(found), licence=licence, retention=share)
        else:
            drawn = 1 if seed is None else seed
            data = random_delta(model, desk.model(found), licence=licence, keep=share, seed=drawn)
        return _write(folder, plain_name(f"{tuned}-{kind}", "name"), parse_adapter(data), data)

    def _from_lora(self, base: str, lora: str, licence: str) -> bytes:
        """A LoRA whose tensors carry the container's names, or those of the Llama family."""
        desk = self._desk
        adapter = read_peft(checkpoints.stored(desk, lora), lora)
        model = desk.model(base)
        names = {name: own for name in adapter.names if (own := _own_name(name)) in model.tensors}
        factors = {}
        for name in adapter.names:
            left, right, scale = adapter.factors(name)
            factors[name] = LowRank(right, left, float(scale) * right.shape[0])
        heads = {"wq": model.shape.head_count, "wk": model.shape.kv_head_count}
        orders = {
            own: adjacent_pairs(heads[part], model.shape.head_dim)
            for name, own in names.items()
            if name != own and (part := own.split(".")[-2]) in heads
        }
        return from_peft(model, factors, names, licence=licence, digests={"lora_sha256": lora}, rows=orders)


def _check_read(option: str, value: object, why: str, fits: bool) -> None:
    """Refuse what was asked for where nothing would read it."""
    if value is not None and not fits:
        raise UsageError(why, where=f"--{option}", advice="Leave it out.", reason="usage.ignored")


def _own_name(name: str) -> str:
    """The container's name of a tensor; names of the Llama family are translated, others kept."""
    found = _LLAMA.fullmatch(name)
    return f"layers.{found[1]}.{_PARTS[found[2]]}.weight" if found else name


def breed_fused(desk: Desk, label: str, names: Sequence[str], today: date | None = None) -> str:
    """Breed the model an adapter was made for, or a quantised build of it, with one or several packages built in.

    Args:
        desk: The lab.
        label: The failure cluster it is bred for.
        names: Registered, approved packages, in the order of fusion; all made for one base. Before them may stand the
            model to fuse them into: the base itself, which it is by default, or a build that this lab quantised from it.
        today: The day approvals must cover.

    Returns:
        The artifact's digest.

    Raises:
        OutOfOrder: if a package is not approved.
        ParentsDoNotFit: if the packages name different bases, one that is not here, or another model than the one named.
        AdapterRefused: if a package does not fit its base.
    """
    if not names:
        raise UsageError("no package is named", where="--parent", advice="Name registered adapters: --parent NAME ...")
    onto = _model_named(desk, names[0]) if len(names) > 1 else None
    sources = [_registered(desk, name) for name in (names[1:] if onto else names)]
    base = _base_of(desk, sources)
    used = (base, *(s.artifact.sha256 for s in sources))
    require_approved(desk, label, used, today or clock.today())
    if onto not in (None, base) and onto not in builds(desk, base):
        raise ParentsDoNotFit(
            f"is not the packages' base {desk.name_of(base)}, and no receipt of this lab says that it was quantised from it",
            where=names[0],
            advice=f"Leave it out to fuse into {desk.name_of(base)}, or quantise that here: studbook breed CLUSTER "
            f"with the operator {Quantise.tag()}.",
            reason="parents.adapter",
        )
    operator = AdapterFuse()
    policy_digest, policy = desk.policy
    check_operator(policy, operator_fields(operator))
    require_depth(desk, (base, *([onto] if onto else ()), *used[1:]), operator.family)
    parents: list[Slm | Adapter] = [desk.model(onto or base), *(_package(desk, s) for s in sources)]
    cluster, _ = judging.declare_cluster(desk, label, base)
    # The base stays the f32 model the packages name, so the receipt's change is measured from what was trained.
    template = draft(
        desk.header, policy, policy_digest, cluster, None, operator, desk.model(base), parents, "candidate"
    )
    manifest = breeding.breed_all(desk, (breeding.Order(template, operator),))[0]
    return breeding.manifest_of(desk, manifest).artifact.sha256


def _model_named(desk: Desk, name: str) -> str | None:
    """Digest of the SLM1 model of this name; None if it is a registered package, or a folder of files."""
    artifact = desk.find_model(name)
    found = desk.registered().get(artifact)
    if found is not None:
        return artifact if artifact in desk.sources() else None
    return None if checkpoints.is_checkpoint(desk, artifact) else artifact


def _base_of(desk: Desk, packages: Sequence[SourceManifest]) -> str:
    """Digest of the one registered model that packages were made for."""
    bases = {s.source.base for s in packages if isinstance(s.source, AdapterSource)}
    if len(bases) != 1:
        raise ParentsDoNotFit("the packages were made for different bases", where="--parent", reason="parents.adapter")
    base = bases.pop()
    if base not in desk.sources():
        raise ParentsDoNotFit(f"their base {base[:12]}... is not registered", advice="Register its base model too.")
    return base


def builds(desk: Desk, base: str) -> frozenset[str]:
    """Digests of the quantised builds of a model, as receipts of this lab say; each is held against its template."""
    found = set()
    for _, manifest in desk.candidates():
        template = desk.workspace.get(manifest.template, LineageTemplate)
        if template.operator.get("operator") == Quantise.tag() and template.parents == (base,):
            receipt = desk.workspace.get(manifest.receipt, OperatorReceipt)
            check_receipt(template, receipt)
            found.add(receipt.output.sha256)
    return frozenset(found)


def _registered(desk: Desk, name: str) -> SourceManifest:
    found = desk.registered().get(desk.find_model(name))
    if found is None or not isinstance(found[1].source, AdapterSource):
        raise UsageError(f"{name!r} is not an adapter", where="--parent", advice="Register its source.manifest.")
    return found[1]


def _package(desk: Desk, manifest: SourceManifest) -> Adapter:
    assert isinstance(manifest.source, AdapterSource)
    return parse_adapter(desk.workspace.blob(manifest.source.adapter_sha256), manifest.name)


def _write(folder: Path, name: str, adapter: Adapter, data: bytes) -> Made:
    package = adapter.head.magic
    file = f"{name}.{package.lower()}"
    fields = {
        "kind": "adapter",
        "name": name,
        "path": file,
        "sha256": adapter.sha256,
        "package": package,
        "base_sha256": adapter.meta.base_sha256,
        "tokenizer_sha256": adapter.head.tokenizer_sha256,
    }
    folder.mkdir(parents=True)
    write_new(folder / file, data, 0o644)
    write_new(folder / MANIFEST, format_manifest(fields), 0o644)
    return Made(folder, package, adapter.sha256, adapter.size)
