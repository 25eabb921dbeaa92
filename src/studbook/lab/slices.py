"""What a training operator may learn from: the failure cluster's own slice, and the other slices of its data manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studbook.breeding.operators import AdapterTrain, AnyOperator, FederatedRound, Learned, Trained
from studbook.environment import has_torch
from studbook.errors import OutOfOrder, OutsideAllowlist, UsageError
from studbook.evaluation.contamination import compare_with_suites, parse_rows
from studbook.lab.desk import Desk
from studbook.lab.frozen import every
from studbook.lab.sources import inherited_data, licence_of
from studbook.policy import inherited_licence
from studbook.records import ContaminationReceipt, DataSource, FailureCluster, LineageTemplate, SourceManifest

__all__ = [
    "check_apart",
    "check_compared",
    "check_slices",
    "compare",
    "data_of",
    "offered",
    "receipts_of",
    "require_clean",
    "require_training",
    "taught",
    "with_clients",
]


# Digits of a digest that stand for all of it.
_SHORTEST = 8


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
    if not isinstance(operator, Learned):
        return
    if isinstance(operator, Trained):
        _check_named(desk, operator, cluster)
    elif isinstance(operator, FederatedRound):
        _check_clients(desk, operator)
    licences = [found for p in parents if (found := licence_of(desk, p))]
    due = inherited_licence(desk.policy[1], licences) if licences else "NOASSERTION"
    if isinstance(operator, AdapterTrain | FederatedRound) and operator.licence != due:
        raise OutsideAllowlist(
            f"states {operator.licence}; the package inherits {due}",
            where=f"{operator.tag()}: licence",
            advice=f"Write {due}.",
            reason="training.licence",
        )


def with_clients(desk: Desk, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe in which the clients of a federated round that are called by name are what their data manifests hold.

    Raises:
        UsageError: if a name is not that of one registered data manifest; ``usage.client``.
    """
    clients = recipe.get("clients")
    if recipe.get("operator") != FederatedRound.tag() or not isinstance(clients, list | tuple):
        return recipe
    return {**recipe, "clients": [_held_by(desk, c) if isinstance(c, str) else c for c in clients]}


def _data_manifests(desk: Desk) -> dict[str, tuple[str, DataSource]]:
    """Name and content of every data manifest that counts, by digest."""
    found = [(d, m.name, m.source) for d, m in desk.unrevoked(SourceManifest)]
    gone = desk.gone()
    return {d: (name, source) for d, name, source in found if isinstance(source, DataSource) and d not in gone}


def _held_by(desk: Desk, name: str) -> dict[str, Any]:
    held = _data_manifests(desk)
    found = [d for d, (called, _) in held.items() if called == name or (len(name) >= _SHORTEST and d.startswith(name))]
    if len(found) != 1:
        known = ", ".join(dict.fromkeys(called for called, _ in held.values())) or "none"
        raise UsageError(
            f"{name!r} is not the name of one data manifest here",
            where=f"{FederatedRound.tag()}: clients",
            advice=f"Registered: {known}. Register another: studbook register FOLDER/data.manifest",
            reason="usage.client",
        )
    files = held[found[0]][1].files
    return {"manifest": found[0], "data": [f.sha256 for f in files], "rows": sum(f.rows for f in files)}


def _check_clients(desk: Desk, operator: FederatedRound) -> None:
    held = _data_manifests(desk)
    for client in operator.clients:
        files = held[client.manifest][1].files if client.manifest in held else ()
        if not files or (client.data, client.rows) != (tuple(f.sha256 for f in files), sum(f.rows for f in files)):
            raise OutsideAllowlist(
                f"client {client.manifest[:12]}... does not hold what a registered data manifest lists",
                where=f"{operator.tag()}: clients",
                advice="Name the data manifests, and leave slices and rows to the lab: they follow from them.",
                reason="training.client",
            )


def _check_named(desk: Desk, operator: Trained, cluster: str | None) -> None:
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


def check_apart(desk: Desk, operator: AnyOperator) -> None:
    """Before anything is trained: torch must be here, and no slice may share anything with a frozen suite.

    Raises:
        UsageError: if torch is not installed; ``usage.extra``.
        OutOfOrder: if a slice shares a prompt or a run of words with a suite; ``order.contamination``.
    """
    if not isinstance(operator, Learned):
        return
    require_training(operator.family)
    for slice_, (_, receipt) in compare(desk, operator.slices()).items():
        require_clean(receipt, f"training slice {slice_[:12]}...")


def check_compared(desk: Desk, operator: AnyOperator) -> None:
    """Of a training operator that was declared: each of its slices was compared with the suites of then, and is clean.

    Args:
        desk: The lab as it was before the template.
        operator: The operator; one that does not train passes.

    Raises:
        OutOfOrder: naming the slice; ``order.contamination``.
    """
    slices = operator.slices() if isinstance(operator, Learned) else ()
    known = {r.training: r for r in receipts_of(desk, slices)}
    for slice_ in slices:
        if slice_ not in known:
            raise OutOfOrder(
                f"training slice {slice_[:12]}... was not compared with the frozen suites",
                where=f"{operator.tag()}: data, rehearsed",
                advice="Do not use what was trained on it; breed it again.",
                reason="order.contamination",
            )
        require_clean(known[slice_], f"training slice {slice_[:12]}...")


def compare(desk: Desk, slices: Iterable[str]) -> dict[str, tuple[str, ContaminationReceipt]]:
    """Each slice beside every suite in force: put on record whatever comes out, once a lock of suites.

    Args:
        desk: The lab.
        slices: Digests of training slices.

    Returns:
        Slice -> digest of its receipt, and the receipt.

    Raises:
        StudbookError: any of its kinds, if the bytes of a slice are gone, or are no rows.
    """
    wanted = dict.fromkeys(slices)
    known = _compared(desk) if wanted else {}
    missing = [s for s in wanted if s not in known]
    suites = every(desk) if missing else ()
    for slice_ in missing:
        rows = parse_rows(desk.workspace.blob(slice_), f"slice {slice_[:12]}")
        receipt = compare_with_suites(desk.header, slice_, rows, suites)
        known[slice_] = desk.workspace.commit(receipt), receipt
    return {s: known[s] for s in wanted}


def require_clean(receipt: ContaminationReceipt, what: str) -> None:
    """Refuse a slice that shares anything with a suite.

    Args:
        receipt: Its receipt.
        what: What to call the slice.

    Raises:
        OutOfOrder: with what is shared; ``order.contamination``.
    """
    if not receipt.clean:
        raise OutOfOrder(
            f"{what} shares {receipt.shared} with the {len(receipt.suites)} frozen suites",
            where="training data",
            advice="Take the shared rows out of the slice, or use other suites.",
            reason="order.contamination",
        )


def taught(desk: Desk, data: Iterable[str]) -> tuple[str, ...]:
    """Digests of the slices of some data manifests, each once.

    Args:
        desk: The lab.
        data: Digests of data manifests.
    """
    sources = (desk.workspace.get(manifest, SourceManifest).source for manifest in data)
    return tuple(dict.fromkeys(f.sha256 for source in sources if isinstance(source, DataSource) for f in source.files))


def receipts_of(desk: Desk, slices: Sequence[str]) -> tuple[ContaminationReceipt, ...]:
    """The comparisons of slices with exactly the suites in force, as far as there are any.

    Args:
        desk: The lab.
        slices: Digests of training slices.
    """
    known = _compared(desk) if slices else {}
    return tuple(known[s][1] for s in slices if s in known)


def _compared(desk: Desk) -> dict[str, tuple[str, ContaminationReceipt]]:
    locked = desk.suites_lock[1].suites
    return {r.training: (d, r) for d, r in desk.unrevoked(ContaminationReceipt) if r.suites == locked}


def require_training(what: str, where: str = "recipe") -> None:
    """Refuse to train where torch is missing.

    Raises:
        UsageError: if it is not installed; ``usage.extra``.
    """
    if not has_torch():
        raise UsageError(
            f"{what} trains with torch, which is not installed",
            where=where,
            advice="Install the extra: pip install 'studbook[train]'",
            reason="usage.extra",
        )


def data_of(desk: Desk, template: LineageTemplate, operator: AnyOperator) -> tuple[str, ...]:
    """Digests of the data manifests a child inherits: its parents', and the one it was trained on."""
    found = dict.fromkeys(inherited_data(desk, template.parents))
    if isinstance(operator, Trained) and template.cluster:
        found[desk.workspace.get(template.cluster, FailureCluster).data] = None
    if isinstance(operator, FederatedRound):
        # Those of clients that were left out too: a round is not to be held against who was heard.
        found |= dict.fromkeys(client.manifest for client in operator.clients)
    return tuple(found)
