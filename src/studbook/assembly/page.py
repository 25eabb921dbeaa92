"""The page's own files, as they are shipped."""

from __future__ import annotations

from importlib.resources import files

from studbook.assembly.building import BUNDLE_JS

__all__ = ["page"]


def page() -> dict[str, bytes]:
    """Name -> bytes of every file of the page, without the one that is generated for a bundle."""
    folder = files("studbook.assembly") / "web"
    found = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
    found.pop(BUNDLE_JS, None)
    return dict(sorted(found.items()))
