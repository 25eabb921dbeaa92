"""Sealed items are known nowhere else: in no suite of another role, and in no training slice that is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from studbook.errors import OutOfOrder
from studbook.evaluation.contamination import folded, overlaps, parse_rows
from studbook.evaluation.items import Item, known_items
from studbook.evaluation.suites import SuiteFolder
from studbook.lab.absence import absent
from studbook.lab.desk import Desk
from studbook.records import DataSource, SourceManifest, SuiteManifest

__all__ = ["require_sealed"]

_Suite = tuple[str, str, tuple[Item, ...]]


def require_sealed(desk: Desk, locked: Mapping[str, SuiteManifest], fresh: Sequence[SuiteFolder]) -> None:
    """Refuse suites that would freeze what is sealed together with what is shown.

    Two sealed suites may share an item: it is sealed all the same.

    Args:
        desk: The lab.
        locked: The suites in force.
        fresh: Those that shall be frozen beside them.

    Raises:
        OutOfOrder: naming suite and item, and where that is known; ``suite.sealed``.
        StudbookError: any of its kinds, if the bytes of a slice are gone without leave, or are no rows.
    """
    held = [(m.name, m.role, known_items(desk.workspace.blob(m.items.sha256), m.name)) for m in locked.values()]
    made = [(s.settings["name"], s.settings["role"], s.items) for s in fresh]
    for sealed, others in ((made, (*held, *made)), (held, made)):
        shown = _shown(others)
        for name, items in _sealed(sealed):
            if seen := next((item for item in items if folded(item.prompt) in shown), None):
                raise _known(name, f"item {seen.id}", f"suite {shown[folded(seen.prompt)]}")
    _require_untaught(desk, list(_sealed(made)))


def _sealed(suites: Iterable[_Suite]) -> Iterable[tuple[str, tuple[Item, ...]]]:
    return ((name, items) for name, role, items in suites if role == "sealed")


def _shown(suites: Iterable[_Suite]) -> dict[str, str]:
    """Prompt, case and white space folded -> a suite that is not sealed and asks it."""
    return {folded(item.prompt): name for name, role, items in suites if role != "sealed" for item in items}


def _require_untaught(desk: Desk, sealed: Sequence[tuple[str, tuple[Item, ...]]]) -> None:
    gone, every = absent(desk), [item for _, items in sealed for item in items]
    for _, manifest in desk.all(SourceManifest) if sealed else ():
        files = manifest.source.files if isinstance(manifest.source, DataSource) else ()
        for file in (f for f in files if f.sha256 not in gone):
            rows = parse_rows(desk.workspace.blob(file.sha256), f"data {manifest.name}")
            if not overlaps(rows, every).clean:
                name = next(name for name, items in sealed if not overlaps(rows, items).clean)
                raise _known(name, "one of its items", f"data {manifest.name}")


def _known(suite: str, item: str, where: str) -> OutOfOrder:
    return OutOfOrder(
        f"{item} is known already: it stands in {where}",
        where=f"sealed suite {suite}",
        advice="Take the shared items out: what was seen elsewhere is sealed from nobody.",
        reason="suite.sealed",
    )
