"""What a record says of bytes, held against the bytes: sources as their files are, candidates as they were declared.

Nothing here trusts a field that can be computed. A field that differs is refused by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from studbook.adapters.reader import parse_adapter
from studbook.breeding.checkpoint_produce import Grown, check_checkpoint
from studbook.breeding.checkpoint_recipe import CheckpointRecipe
from studbook.breeding.checkpoint_template import recipe_of
from studbook.breeding.operators import AnyOperator, FederatedRound, decode_operator
from studbook.breeding.operators.bounds import norm
from studbook.breeding.produce import check_output, delta_norm
from studbook.breeding.recipes import recipe_sha256
from studbook.breeding.recompute import check_receipt
from studbook.breeding.sources import SlmTensors, as_inputs, open_inputs
from studbook.errors import StudbookError
from studbook.lab.adapters import FUSE, builds
from studbook.lab.descendants import check_descendants
from studbook.lab.desk import Desk
from studbook.lab.facts import Facts, require
from studbook.lab.federated import federated_on_record
from studbook.lab.generations import require_depth
from studbook.lab.slices import check_compared, check_slices, data_of
from studbook.lab.sources import licence_of
from studbook.models.checkpoint import open_checkpoint, parse_listing
from studbook.models.peft import read_peft
from studbook.models.slm import Slm, parse_slm
from studbook.policy import check_operator, inherited_licence
from studbook.records import (
    AdapterSource,
    CandidateManifest,
    Check,
    CheckpointSource,
    CompatibilityReport,
    DataSource,
    LicenceSource,
    LineageTemplate,
    LoraSource,
    ModelSource,
    OperatorReceipt,
    ParentApproval,
    Policy,
    SourceManifest,
    decode_json,
    digest,
)
from studbook.registry.approval import require_approved

__all__ = ["check_candidate", "check_receipt_record", "check_source", "check_template"]


def check_source(desk: Desk, record: SourceManifest) -> None:
    """Every fact of a registered source that its stored bytes can tell.

    Args:
        desk: The lab as it was before the record.
        record: The registration.

    Raises:
        DigestDiffers: naming the field (``source.field``) that says something else than the bytes.
        StudbookError: any of its kinds, if the bytes are gone or break a rule of their format.
    """
    facts = _SOURCES[type(record.source)](desk, record)
    require(f"source {record.name}", {"artifact.size": _size(desk, record), **facts}, "source.field")


def check_template(desk: Desk, record: LineageTemplate) -> None:
    """A template's operator, identity of work, policy, report and approvals, as the lab was when it was declared.

    Args:
        desk: The lab as it was before the record.
        record: The template.

    Raises:
        DigestDiffers: naming the field that does not follow from the others.
        OutOfOrder: if a source it uses was approved by nobody, or a model bred here may have no children.
        OverBudget: if it is further from its founders than the policy allowed.
        StudbookError: any of its kinds, if its operator is unknown, has an unknown parameter, or was not allowed.
    """
    recipe = recipe_of(record)
    if recipe is None:
        operator = decode_operator(record.operator)
        work = recipe_sha256(record.base, record.parents, record.operator)
        models = (record.base, record.parents)
    else:
        operator, work = recipe.decoded(), digest(record.operator)
        base, *others = recipe.sources()
        models = (base, tuple(others) or (base,))
    in_force, policy = desk.policy
    facts = {
        "recipe_sha256": (record.recipe_sha256, work),
        "base": (record.base, models[0]),
        "parents": (record.parents, models[1]),
        "policy": (record.policy, in_force),
        "compatibility": (True, _covered(desk, record)),
        "parents: build": (True, _fits_packages(desk, record)),
    }
    require("template", facts, "template.field")
    check_operator(policy, _plain(operator))
    check_descendants(desk, record)
    check_slices(desk, operator, record.cluster, record.parents)
    check_compared(desk, operator)
    require_depth(desk, (record.base, *record.parents), operator.family)
    used = {f for artifact in (record.base, *record.parents) for f in desk.founders_of(artifact)}
    registered = {
        a: found
        for a, found in desk.registered().items()
        if a in used or getattr(found[1].source, "adapter_sha256", None) in used
    }
    # On which day and for which cluster was asked when it was declared; that a person approved it at all is on record.
    require_approved("", registered, [a for _, a in desk.unrevoked(ParentApproval)], deployed=registered)


def check_receipt_record(desk: Desk, record: OperatorReceipt) -> None:
    """A receipt must be of its template: the same inputs in the same order, the same operator, nothing else.

    Args:
        desk: The lab as it was before the record.
        record: The receipt.

    Raises:
        DigestDiffers: naming the field that differs.
    """
    template = desk.workspace.get(record.template, LineageTemplate)
    check_receipt(template, record)
    roles = ("base", *("parent" for _ in template.parents))
    recipe = recipe_of(template)
    operator = recipe.decoded() if recipe else decode_operator(template.operator)
    facts = {
        "reproducibility": (record.reproducibility, operator.reproducibility),
        "inputs.role": (tuple(i.role for i in record.inputs), roles),
        "output.size": (record.output.size <= template.limits.output_bytes, True),
    }
    require("receipt", facts, "receipt.field")


def check_candidate(desk: Desk, record: CandidateManifest) -> None:
    """A candidate as its template declared it, its receipt recorded it, and its bytes are.

    The change a checkpoint's receipt states is held against the declared bound; an SLM1 child's is measured again.

    Args:
        desk: The lab as it was before the record.
        record: The manifest.

    Raises:
        DigestDiffers: naming the field that differs.
        StudbookError: any of its kinds, if its bytes are gone or break a rule of their format.
    """
    receipt = desk.workspace.get(record.receipt, OperatorReceipt)
    template = desk.workspace.get(record.template, LineageTemplate)
    check_receipt_record(desk, receipt)
    recipe = recipe_of(template)
    operator = recipe.decoded() if recipe else decode_operator(template.operator)
    facts = {
        "template": (receipt.template, record.template),
        "artifact": (receipt.output, record.artifact),
        "family": (record.family, operator.family),
        "name": (record.name, f"{operator.family}-{record.artifact.sha256[:8]}"),
        "purpose": (record.purpose, template.purpose),
        "fallback": (record.fallback, template.base),
        "licence": (record.licence, _licence(desk, template, recipe)),
        "data": (record.data, () if recipe else data_of(desk, template, operator)),
        "round": (True, _told(desk, record, operator)),
    }
    require("candidate", facts, "candidate.field")
    checks = _checkpoint_checks(desk, template, receipt) if recipe else _model_checks(desk, template, receipt, operator)
    failed = [c.detail for c in checks if not c.passed]
    require("candidate", {"checks": (record.checks, checks), "checks.passed": (failed, [])}, "candidate.field")


def _told(desk: Desk, record: CandidateManifest, operator: AnyOperator) -> bool:
    """Whether a child of clients has the receipt of their round."""
    return not isinstance(operator, FederatedRound) or federated_on_record(
        desk, record.template, record.artifact.sha256
    )


def _plain(operator: AnyOperator) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(operator))
    return fields


def _size(desk: Desk, record: SourceManifest) -> tuple[object, object]:
    return record.artifact.size, len(desk.workspace.blob(record.artifact.sha256))


# -- sources -----------------------------------------------------------------------------------------------------


def _files(desk: Desk, record: SourceManifest) -> tuple[dict[str, Path], Facts]:
    """Where the files of a list lie, and that the record names exactly these."""
    listing = parse_listing(desk.workspace.blob(record.artifact.sha256), f"files of {record.name}")
    paths = {entry.path: desk.workspace.blob_path(entry.sha256) for entry in listing}
    listed = sorted({(entry.sha256, entry.size) for entry in listing})
    return paths, {"files": ([(b.sha256, b.size) for b in record.files], listed)}


def _checkpoint(desk: Desk, record: SourceManifest) -> Facts:
    source, (paths, facts) = record.source, _files(desk, record)
    assert isinstance(source, CheckpointSource)
    model = open_checkpoint(paths, record.artifact.sha256)
    try:
        return {
            **facts,
            "label": (source.label, model.label),
            "parameters": (source.parameters, model.parameters),
            "architecture": (source.architecture, next(iter(model.architectures), "unknown")),
            "vocab_size": (source.vocab_size, model.vocab_size or 0),
            "tokenizer_sha256": (source.tokenizer_sha256, model.tokenizer_sha256),
            "layout_sha256": (source.layout_sha256, model.layout_sha256),
            "weights_bytes": (source.weights_bytes, _weights(paths)),
        }
    finally:
        model.close()


def _weights(paths: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for name, path in paths.items() if name.endswith(".safetensors"))


def _lora(desk: Desk, record: SourceManifest) -> Facts:
    source, (paths, facts) = record.source, _files(desk, record)
    assert isinstance(source, LoraSource)
    adapter = read_peft(paths, record.artifact.sha256)
    return {
        **facts,
        "rank": (source.rank, max(adapter.ranks().values())),
        "tensors": (source.tensors, len(adapter.names)),
        "base_name": (source.base_name, adapter.base_name),
    }


def _model(desk: Desk, record: SourceManifest) -> Facts:
    source = record.source
    assert isinstance(source, ModelSource)
    model = parse_slm(desk.workspace.blob(record.artifact.sha256), f"model {record.name}")
    held = {b.sha256 for b in record.files}
    return {
        "label": (source.label, model.label),
        "parameters": (source.parameters, model.shape.parameter_count),
        "tokenizer_sha256": (source.tokenizer_sha256, model.tokenizer_sha256),
        "layout_sha256": (source.layout_sha256, model.layout_sha256),
        "trained_manifest": (source.trained_manifest is None or source.trained_manifest in held, True),
        "base": (source.base, _started_from(desk, record) if source.base else None),
    }


def _started_from(desk: Desk, record: SourceManifest) -> object:
    """The model that the training receipt among a source's files says it started from."""
    for blob in record.files:
        data = desk.workspace.blob(blob.sha256)
        fields = decode_json(data, f"files of {record.name}") if data[:1] == b"{" else None
        if isinstance(fields, dict) and fields.get("result_sha256") == record.artifact.sha256:
            return fields.get("start_sha256")
    return None


def _adapter(desk: Desk, record: SourceManifest) -> Facts:
    source = record.source
    assert isinstance(source, AdapterSource)
    found = parse_adapter(desk.workspace.blob(source.adapter_sha256), record.name)
    return {
        "package": (source.package, found.head.magic),
        "base": (source.base, found.meta.base_sha256),
        "tokenizer_sha256": (source.tokenizer_sha256, found.head.tokenizer_sha256),
    }


def _data(desk: Desk, record: SourceManifest) -> Facts:
    source = record.source
    assert isinstance(source, DataSource)
    rows = tuple(desk.workspace.blob(f.sha256).count(b"\n") for f in source.files)
    return {"files.rows": (tuple(f.rows for f in source.files), rows)}


def _licence_text(_desk: Desk, record: SourceManifest) -> Facts:
    source = record.source
    assert isinstance(source, LicenceSource)
    return {"text_sha256": (source.text_sha256, record.artifact.sha256)}


_SOURCES: dict[type, Any] = {
    AdapterSource: _adapter,
    CheckpointSource: _checkpoint,
    DataSource: _data,
    LicenceSource: _licence_text,
    LoraSource: _lora,
    ModelSource: _model,
}


# -- candidates --------------------------------------------------------------------------------------------------


def _covered(desk: Desk, template: LineageTemplate) -> bool:
    """Whether the report a template cites is of its base and parents, and passed; a round leaves parents out of it."""
    if template.compatibility is None:
        return True
    report = desk.workspace.get(template.compatibility, CompatibilityReport)
    return report.passed and report.base == template.base and set(template.parents) <= set(report.parents)


def _fits_packages(desk: Desk, template: LineageTemplate) -> bool:
    """Whether what packages are fused into is their base itself, or was quantised from it by a receipt of this lab."""
    if template.operator.get("operator") != FUSE or template.parents[0] == template.base:
        return True
    return template.parents[0] in builds(desk, template.base)


def _licence(desk: Desk, template: LineageTemplate, recipe: CheckpointRecipe | None) -> str:
    """The licence a child inherits; of a checkpoint one parent of unknown licence leaves the child's unknown."""
    policy = desk.workspace.get(template.policy, Policy)
    known = [licence_of(desk, d) for d in (recipe.sources() if recipe else template.parents)]
    held = [found for found in known if found]
    unknown = not held or (recipe is not None and len(held) < len(known))
    return "NOASSERTION" if unknown else inherited_licence(policy, held)


def _model_checks(
    desk: Desk, template: LineageTemplate, receipt: OperatorReceipt, operator: AnyOperator
) -> tuple[Check, ...]:
    child = parse_slm(desk.workspace.blob(receipt.output.sha256), f"candidate {receipt.output.sha256[:16]}")
    named = [(str(desk.workspace.blob_path(d)), d) for d in (template.base, *template.parents)]
    base, parents = open_inputs(named[0], named[1:])
    inputs = as_inputs(base, parents)
    reference = operator.reference(inputs)
    expected = template.expected
    facts = {
        "output.size": (receipt.output.size, child.size),
        "delta_norm": (receipt.delta_norm, delta_norm(reference, SlmTensors(child))),
        "expected.relative_delta": (
            expected.relative_delta,
            expected.delta_norm / max(norm(reference, reference.names), 1e-30),
        ),
        "changed": (_same_as(child, (base, *(p for p in parents if isinstance(p, Slm)))), False),
    }
    require("receipt", facts, "receipt.field")
    return check_output(template, receipt, child)


def _same_as(child: Slm, models: Iterable[Slm]) -> bool:
    return any(child.sha256 == model.sha256 for model in models)


def _checkpoint_checks(desk: Desk, template: LineageTemplate, receipt: OperatorReceipt) -> tuple[Check, ...]:
    listing = desk.workspace.blob(receipt.output.sha256)
    if hashlib.sha256(listing).hexdigest() != receipt.output.sha256 or len(listing) != receipt.output.size:
        raise StudbookError("is not the list of files that was recorded", where="receipt: output", reason="digest")
    entries = parse_listing(listing, f"files of candidate {receipt.output.sha256[:16]}")
    paths = {entry.path: desk.workspace.blob_path(entry.sha256) for entry in entries}
    child = open_checkpoint(paths, receipt.output.sha256)
    try:
        files = {entry.sha256: paths[entry.path] for entry in entries}
        return check_checkpoint(template, Grown(receipt, child, Path(), listing, files, ()))
    finally:
        child.close()
