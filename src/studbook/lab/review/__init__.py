"""One folder that a person reads before signing a promotion: what is asked, what speaks for it, and what was not looked at.

`gather` reads the records into plain values (`facts`), `page` and `plot` write from them, and this module puts the
folder in its place in one step. It needs no key, signs nothing, and writes nothing into the lab.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from studbook.errors import UsageError, printable
from studbook.files import make_folder, place, read_file, sync_folder, write_new
from studbook.lab.desk import Desk
from studbook.lab.history import write_proof
from studbook.lab.review.facts import Review
from studbook.lab.review.gather import gather
from studbook.lab.review.page import write_page
from studbook.lab.review.plot import draw
from studbook.records import canonical

__all__ = ["Pack", "Review", "review_pack"]

_ENVELOPE_LIMIT = 64 << 20
_MODE = 0o644


class Pack(Struct, frozen=True):
    """A pack that was written.

    Attributes:
        folder: Where it lies.
        files: Relative path of every file, sorted.
        review: What it says.
    """

    folder: str
    files: tuple[str, ...]
    review: Review


def review_pack(desk: Desk, name: str, folder: Path | None = None) -> Pack:
    """Write what a person should read before a promotion.

    Args:
        desk: The lab; a reader is enough.
        name: Name, channel or digest of a candidate, or of a source to be installed as the first champion.
        folder: A new or empty folder outside the lab; ``review-DIGEST`` in the current one by default.

    Raises:
        UsageError: if nothing is called that, or the folder is not empty, is a link or lies in the lab.
        OutOfOrder: if there is nothing to review, as `gather` says.
        StudbookError: any of its kinds, if something cannot be read; nothing is left in the folder then.
    """
    artifact = desk.find_model(name)
    target = folder or Path(f"review-{artifact[:12]}")
    _check_target(desk, target)
    review = gather(desk, artifact)
    pictures = draw(review)
    review = replace(review, plots=tuple(pictures))
    documents = {"README.md": write_page(review), "review.json": canonical(review), **pictures}
    for cited in review.records:
        entry = desk.workspace.entry(cited.record)
        assert entry is not None
        # Verified before it is handed to anybody.
        desk.workspace.sealed(entry)
        documents[f"records/{cited.record}.json"] = read_file(desk.workspace.record_path(entry), _ENVELOPE_LIMIT)
    files = _write(desk, target, documents, review.proofs)
    return Pack(str(target), files, review)


def _check_target(desk: Desk, folder: Path) -> None:
    advice = "Name a new or empty folder outside the lab with -o."
    lab = os.path.realpath(desk.workspace.path)
    if Path(os.path.realpath(folder)).is_relative_to(lab):
        raise UsageError("lies in the lab", where=printable(folder), advice=advice, reason="usage.folder")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        text = "is not a new or empty folder"
        raise UsageError(text, where=printable(folder), advice=advice, reason="usage.folder")
    if not folder.absolute().parent.is_dir():
        text = "lies in a folder that does not exist"
        raise UsageError(text, where=printable(folder), advice=advice, reason="usage.folder")


def _write(
    desk: Desk, folder: Path, documents: dict[str, bytes], proofs: tuple[tuple[str, str], ...]
) -> tuple[str, ...]:
    """Write everything beside the place and move it there at once; whatever stops it leaves nothing behind."""
    partial = Path(tempfile.mkdtemp(prefix=".review-", suffix=".partial", dir=folder.absolute().parent))
    try:
        for relative, data in documents.items():
            path = partial / relative
            make_folder(path.parent)
            write_new(path, data, _MODE)
        make_folder(partial / "proof")
        for name, digest in proofs:
            entry = desk.workspace.entry(digest)
            assert entry is not None
            write_proof(desk, entry.sequence, partial / "proof" / f"{name}.proof")
        for inner in ("records", "proof"):
            sync_folder(partial / inner)
        sync_folder(partial)
        partial.chmod(0o755)
        files = tuple(sorted(p.relative_to(partial).as_posix() for p in partial.rglob("*") if p.is_file()))
        place(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return files
