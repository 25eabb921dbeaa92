"""An interpreter that every user of this machine can run, for what has to hold as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

USERS = ("root", "nobody") if os.geteuid() == 0 else ("myself",)
NOBODY = 65534
_LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
)


def copied_python(base: Path, beside: Iterable[Path]) -> Path:
    """The program of an interpreter below a folder, with packages and modules beside its standard library.

    Args:
        base: An empty folder.
        beside: Packages, modules and folders of metadata.
    """
    base.chmod(0o755)
    stdlib = Path(sysconfig.get_path("stdlib"))
    # Beside the standard library: where else packages are looked for differs from system to system.
    site = base / "lib" / stdlib.name
    _copy(stdlib, site, "config-*")
    for source in beside:
        if source.is_dir():
            _copy(source, site / source.name)
        else:
            shutil.copy(source, site)
    for library in Path(str(sysconfig.get_config_var("LIBDIR"))).glob("libpython*.so*"):
        _link_or_copy(str(library), str(base / "lib" / library.name))
    (base / "bin").mkdir()
    program = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(Path(sys.executable).resolve(), program)
    _open_to_all(base)
    return program


def _copy(source: Path, target: Path, *ignored: str) -> None:
    left_out = shutil.ignore_patterns(*_LEFT_OUT, *ignored)
    shutil.copytree(source, target, ignore=left_out, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """A second name costs nothing; another file system has to copy."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy(source, target)


def _open_to_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        elif path.stat().st_nlink == 1:
            path.chmod(path.stat().st_mode | 0o444)
