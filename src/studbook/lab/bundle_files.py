"""A bundle's files on disk: all of them with their record, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from studbook.assembly import rules
from studbook.assembly.building import Bundle
from studbook.assembly.single import single_page
from studbook.errors import UsageError
from studbook.files import make_folder, place, write_new
from studbook.lab.desk import Desk

__all__ = ["require_new_places", "written"]


def require_new_places(desk: Desk, folder: Path, path: Path | None) -> None:
    """Refuse, before any work, places that a bundle cannot be written to.

    Args:
        desk: The lab, in which it may not lie.
        folder: The bundle's folder.
        path: The one-page file; None without one.

    Raises:
        UsageError: if the folder is not empty, or the file is there, would be a stray in folder or lab, or has no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("is not empty", where=folder, advice="Name an empty or new folder.", reason="usage.folder")
    if path is None:
        return
    if path.exists() or path.is_symlink():
        raise UsageError("exists already", where=path, advice="Name a new file.", reason="usage.exists")
    own = Path(os.path.realpath(path))
    for name, above in {"bundle's folder": folder, "lab": desk.workspace.path}.items():
        if own.is_relative_to(os.path.realpath(above)):
            advice = f"Name a file outside the {name}, which holds nothing but its own files."
            raise UsageError(f"lies in the {name}", where=path, advice=advice, reason="usage.folder")
    if not own.parent.is_dir():
        raise UsageError("its folder does not exist", where=path, advice="Make it first.", reason="usage.folder")


def written(folder: Path, bundle: Bundle, single: Path | None, record: Callable[[], str]) -> str:
    """Write a bundle and record it; what the record is called.

    Until the last file there is nothing that a page would take for a bundle, and no record is without its files.

    Args:
        folder: A new or empty folder.
        bundle: The bundle.
        single: Where it goes as one page; None without one.
        record: Enters it in the ledger, once its files lie there but for the last.
    """
    laid = {folder / path: data for path, data in bundle.files.items() if path != rules.BUNDLE_JS}
    if single is not None:
        laid[_partial(single)] = single_page(bundle.files)
    with _laid_out(laid):
        release = record()
    write_new(folder / rules.BUNDLE_JS, bundle.files[rules.BUNDLE_JS], 0o644)
    if single is not None:
        place(_partial(single), single)
    return release


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


@contextmanager
def _laid_out(files: Mapping[Path, bytes]) -> Iterator[None]:
    """Files on disk, which are taken away again if they cannot all be written, or what comes next fails."""
    folders = sorted({path.parent for path in files}, key=lambda folder: -len(folder.parts))
    new, made = [folder for folder in folders if not folder.exists()], []
    try:
        for path, data in files.items():
            make_folder(path.parent)
            write_new(path, data, 0o644)
            made.append(path)
        yield
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
        raise
