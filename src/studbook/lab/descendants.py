"""Which models bred here may have children: none of them, unless the policy says so.

A founder is a parent because a person approved it. A descendant is one because the policy, which people sign, lets
descendants in, its founders are all approved, and the ledger shows what became of it: a round released it to shadow, or
the newest population review keeps it for diversity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studbook.errors import OutOfOrder
from studbook.lab.adapters import FUSE
from studbook.lab.admissions import admitted_to_channels
from studbook.lab.desk import Desk
from studbook.records import CandidateManifest, LineageTemplate, PopulationReview

__all__ = ["bred_parents", "check_descendants", "descendants"]


def descendants(desk: Desk) -> tuple[str, ...]:
    """Digests of the models bred here that may be parents now, in the order they were let in."""
    rule = desk.policy[1].population.descendants
    if rule == "none":
        return ()
    found = [a.artifact for _, a in admitted_to_channels(desk)]
    if rule == "diverse" and (reviews := desk.unrevoked(PopulationReview)):
        found += [r.artifact for r in reviews[-1][1].residents if r.population == "diverse"]
    registered = desk.registered()
    bred = {c.artifact.sha256 for _, c in desk.candidates() if c.purpose == "candidate"}
    return tuple(a for a in dict.fromkeys(found) if a in bred and a not in registered and not desk.revoked(a))


def check_descendants(desk: Desk, template: LineageTemplate) -> None:
    """Refuse a template that merges a model bred here which may not have children; the champion always may.

    Args:
        desk: The lab as it was before the template.
        template: What is to be bred, for a cluster.

    Raises:
        OutOfOrder: naming the parent; ``order.descendant``.
    """
    for artifact in _merged(desk, template):
        if artifact not in descendants(desk):
            raise OutOfOrder(
                f"{desk.name_of(artifact)} was bred here and may not be a parent",
                where="template: parents",
                advice="The policy's population.descendants says which may; people sign it: studbook policy sign FILE",
                reason="order.descendant",
            )


def bred_parents(desk: Desk, manifests: Iterable[str]) -> tuple[str, ...]:
    """The parents of some candidates that are no founders and not the champion, sorted: they stand as baselines too.

    Args:
        desk: The lab.
        manifests: Digests of CandidateManifests.
    """
    found: set[str] = set()
    for manifest in manifests:
        candidate = desk.workspace.get(manifest, CandidateManifest)
        found |= set(_merged(desk, desk.workspace.get(candidate.template, LineageTemplate)))
    return tuple(sorted(found))


def _merged(desk: Desk, template: LineageTemplate) -> Sequence[str]:
    """Parents of a merge for a cluster that were bred here and never registered, the champion left out."""
    if template.cluster is None or template.compatibility is None or template.operator.get("operator") == FUSE:
        return ()
    known = {*desk.registered(), desk.channels()["champion"].artifact}
    return [p for p in template.parents if p not in known]
