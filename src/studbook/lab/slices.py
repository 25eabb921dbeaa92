"""What a training operator may learn from: the failure cluster's own slice, and the other slices of its data manifest."""

from __future__ import annotations

from collections.abc import Iterable

from studbook.breeding.operators import AdapterTrain, AnyOperator, Trained
from studbook.environment import has_torch
from studbook.errors import OutOfOrder, OutsideAllowlist, UsageError
from studbook.evaluation.contamination import compare_with_suites, parse_rows
from studbook.lab.desk import Desk
from studbook.lab.frozen import of_role
from studbook.lab.sources import inherited_data, licence_of
from studbook.policy import inherited_licence
from studbook.records import DataSource, FailureCluster, LineageTemplate, SourceManifest

__all__ = ["check_apart", "check_slices", "data_of", "offered"]


def offered(desk: Desk, cluster: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The slices a cluster lets be trained on, and those that may be rehearsed beside them.

    Args:
        desk: The lab.
        cluster: Digest of the FailureCluster.
    """
    record = desk.workspace.get(cluster, FailureCluster)
    source = desk.workspace.get(record.data, SourceManifest).source
    assert isinstance(source, DataSource)
    others = dict.fromkeys(f.sha256 for f in source.files if f.sha256 != record.training_slice)
    return (record.training_slice,), tuple(others)


def check_slices(desk: Desk, operator: AnyOperator, cluster: str | None, parents: Iterable[str]) -> None:
    """Refuse a training operator that names rows its cluster does not give, or a package licence that is not the parents'.

    Args:
        desk: The lab.
        operator: The operator; one that does not train passes.
        cluster: Digest of the FailureCluster, if there is one.
        parents: Digests of the parents.

    Raises:
        OutsideAllowlist: naming the slice or the licence; ``training.slice``, ``training.licence``.
    """
    if not isinstance(operator, Trained):
        return
    own, others = offered(desk, cluster) if cluster else ((), ())
    for field, named, allowed in (("data", operator.data, own), ("rehearsed", operator.rehearsed, others)):
        for slice_ in named:
            if slice_ not in allowed:
                raise OutsideAllowlist(
                    f"slice {slice_[:12]}... is not one the failure cluster gives for this",
                    where=f"{operator.tag()}: {field}",
                    advice='Write data "cluster" and rehearsed "others", or choose among these slices.',
                    reason="training.slice",
                )
    licences = [found for p in parents if (found := licence_of(desk, p))]
    due = inherited_licence(desk.policy[1], licences) if licences else "NOASSERTION"
    if isinstance(operator, AdapterTrain) and operator.licence != due:
        raise OutsideAllowlist(
            f"states {operator.licence}; the package inherits {due}",
            where=f"{operator.tag()}: licence",
            advice=f"Write {due}.",
            reason="training.licence",
        )


def check_apart(desk: Desk, operator: AnyOperator) -> None:
    """Before anything is trained: torch must be here, and no slice may share a prompt with any frozen suite.

    Raises:
        UsageError: if torch is not installed; ``usage.extra``.
        OutOfOrder: if a slice shares a prompt with a suite; ``order.contamination``.
    """
    if not isinstance(operator, Trained):
        return
    if not has_torch():
        raise UsageError(
            f"{operator.family} trains with torch, which is not installed",
            where="recipe",
            advice="Install the extra: pip install 'studbook[train]'",
            reason="usage.extra",
        )
    suites = [s for role in ("development", "selection", "sealed") for s in of_role(desk, role)]
    for slice_ in operator.slices():
        rows = parse_rows(desk.workspace.blob(slice_), f"slice {slice_[:12]}")
        if shared := compare_with_suites(desk.header, slice_, rows, suites).shared_prompts:
            raise OutOfOrder(
                f"{shared} suite prompts stand in training slice {slice_[:12]}...",
                advice="Take the shared rows out of the slice, or use other suites.",
                reason="order.contamination",
            )


def data_of(desk: Desk, template: LineageTemplate, operator: AnyOperator) -> tuple[str, ...]:
    """Digests of the data manifests a child inherits: its parents', and the one it was trained on."""
    found = dict.fromkeys(inherited_data(desk, template.parents))
    if isinstance(operator, Trained) and template.cluster:
        found[desk.workspace.get(template.cluster, FailureCluster).data] = None
    return tuple(found)
