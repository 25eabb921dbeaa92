"""How far candidates are from their founders, and how far the policy lets them be."""

from __future__ import annotations

from collections.abc import Sequence

from studbook.lab.desk import Desk
from studbook.policy import check_generation
from studbook.records import CandidateManifest, LineageTemplate

__all__ = ["generation_after", "require_depth"]


def generation_after(desk: Desk, used: Sequence[str]) -> int:
    """The generation of a child of some artifacts: one more than the highest of theirs.

    An artifact's own generation is settled by the first manifest with its bytes. If that is a registration, it is a
    founder, generation 0, even if recipes lead back to the same bytes later; if it was bred, everything it was bred from
    was there already, so this ends, and it keeps its generation when somebody registers it too.

    Args:
        desk: The lab.
        used: Digests of base and parents.
    """
    found: dict[str, int] = {}
    for _, manifest in desk.manifests():
        own = 0
        if isinstance(manifest, CandidateManifest):
            template = desk.workspace.get(manifest.template, LineageTemplate)
            own = 1 + max(found.get(a, 0) for a in (template.base, *template.parents))
        found.setdefault(manifest.artifact.sha256, own)
    return 1 + max(found.get(a, 0) for a in used)


def require_depth(desk: Desk, used: Sequence[str], what: str) -> None:
    """Refuse to breed what would be further from its founders than the policy in force allows.

    Args:
        desk: The lab.
        used: Digests of base and parents.
        what: What is bred, for the message.

    Raises:
        OverBudget: ``budget.depth``.
    """
    check_generation(desk.policy[1], generation_after(desk, used), what)
