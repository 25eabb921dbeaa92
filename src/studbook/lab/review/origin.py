"""Where a candidate comes from: everything above it with digests, operators, licences and revocations."""

from __future__ import annotations

from studbook.lab.checkpoints import recipe_of
from studbook.lab.desk import Desk
from studbook.lab.review.facts import Forebear
from studbook.lab.sources import licence_of
from studbook.records import CandidateManifest, LineageTemplate, ModelSource, ParentApproval, Policy

__all__ = ["forebears", "papers_of"]


def forebears(desk: Desk, artifact: str) -> tuple[Forebear, ...]:
    """A model and everything it descends from, each once, nearest first."""
    bred = _bred(desk)
    found: dict[str, Forebear] = {}
    level, depth = [artifact], 0
    while level:
        for current in level:
            found[current] = _forebear(desk, current, bred.get(current), depth)
        above = [a for c in level if c in bred for a in _above(desk, bred[c][1])]
        level, depth = [a for a in dict.fromkeys(above) if a not in found], depth + 1
    return tuple(found.values())


def papers_of(desk: Desk, artifact: str) -> tuple[str, ...]:
    """Digests of the records that say how a model and its ancestors came to be, and who approved the sources."""
    bred, registered = _bred(desk), desk.registered()
    approvals = {a.artifact: d for d, a in desk.all(ParentApproval)}
    found: list[str] = []
    for current in desk.ancestry(artifact):
        if current in bred:
            digest, manifest = bred[current]
            found += [digest, manifest.template, manifest.receipt, *manifest.data]
        elif current in registered:
            digest, source = registered[current]
            found.append(digest)
            if isinstance(source.source, ModelSource):
                found += [*source.source.data, *([source.source.licence] if source.source.licence else [])]
            found += [approvals[current]] if current in approvals else []
    return tuple(dict.fromkeys(found))


def _bred(desk: Desk) -> dict[str, tuple[str, CandidateManifest]]:
    return {m.artifact.sha256: (d, m) for d, m in reversed(desk.candidates())}


def _above(desk: Desk, manifest: CandidateManifest) -> tuple[str, ...]:
    template = desk.workspace.get(manifest.template, LineageTemplate)
    return tuple(dict.fromkeys((template.base, *template.parents)))


def _forebear(desk: Desk, artifact: str, made: tuple[str, CandidateManifest] | None, depth: int) -> Forebear:
    why, how = "stated by whoever registered it", ""
    parents: tuple[str, ...] = ()
    record = desk.registered()[artifact][0] if made is None and artifact in desk.registered() else ""
    if made is not None:
        record, manifest = made
        template = desk.workspace.get(manifest.template, LineageTemplate)
        recipe = recipe_of(template)
        how = str(recipe or template.operator.get("operator", "unknown"))
        parents = tuple(desk.name_of(a) for a in _above(desk, manifest))
        why = _inherited(desk, manifest, template)
    elif licence_of(desk, artifact) is None:
        why = "nobody stated one"
    gone = desk.revoked(artifact)
    return Forebear(
        depth=depth,
        artifact=artifact,
        name=desk.name_of(artifact),
        how=how,
        parents=parents,
        licence=licence_of(desk, artifact),
        why=why,
        record=record,
        revoked=gone,
    )


def _inherited(desk: Desk, manifest: CandidateManifest, template: LineageTemplate) -> str:
    """The rule by which a child got its licence, with what it was applied to."""
    policy = desk.workspace.get(template.policy, Policy)
    ranks = {rule.spdx: rule.strictness for rule in policy.licences}
    held = {name or "none": ranks.get(name or "") for name in (licence_of(desk, p) for p in template.parents)}
    told = ", ".join(f"{name} ({'not in the table' if rank is None else rank})" for name, rank in sorted(held.items()))
    if manifest.licence == "NOASSERTION":
        return f"unknown, because not every parent states one: {told}"
    return f"the strictest of its parents' by the table of policy {policy.name} v{policy.policy_version}: {told}"
