"""What a worker of any kind has to read: the interpreter, the installed packages, the system's libraries. Nothing else.

All of it is read only, the cache of compiled kernels included: what one worker left there another one would run.
"""

from __future__ import annotations

import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

__all__ = ["DEVICES", "FILES", "library_trees"]

DEVICES = (Path("/dev/null"),)
# Where the loader looks first; chance; what the machine is; and the worker's own process, by whatever number.
FILES = tuple(
    map(
        Path,
        ("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/proc/version"),
    )
)
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/sys/devices/system/cpu",
)
_OF_ITSELF = "/proc/self"
_LAYOUT = ("stdlib", "platstdlib", "purelib", "platlib")


def library_trees() -> tuple[Path, ...]:
    """Folders that hold code and libraries, none inside another, and whatever process opens it: its own below ``/proc``.

    A place that would let a whole home folder be read is left out: a worker that needs it fails, and says where.
    """
    return _library_trees(len(sys.modules), tuple(sys.path))


@lru_cache(maxsize=8)
def _library_trees(_modules: int, _path: tuple[str, ...]) -> tuple[Path, ...]:
    """Looked up again when a module was loaded, for it may have brought libraries."""
    named = [
        *_SYSTEM,
        *(path for path in sys.path if path),
        *(path for name in _LAYOUT if (path := sysconfig.get_paths().get(name))),
        str(sysconfig.get_config_var("LIBDIR") or ""),
        os.environ.get("NUMBA_CACHE_DIR", ""),
        *_mapped(),
    ]
    found = {path for path in map(Path, named) if path.is_absolute() and not _too_wide(path)}
    outer = sorted(path for path in found if found.isdisjoint(path.parents))
    return (*outer, Path(_OF_ITSELF))


def _mapped() -> Iterator[str]:
    """Folders of the libraries that are loaded now, wherever this system keeps them."""
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        paths = {line.split(maxsplit=5)[-1] for line in lines if line.count(" ") > 4}
        yield from sorted({str(Path(p).parent) for p in paths if p.startswith("/") and ".so" in Path(p).name})


def _too_wide(path: Path) -> bool:
    """Whether it is a home folder, or lies above one or above the root of all."""
    return any(home.is_relative_to(path) for home in _homes())


def _homes() -> Iterable[Path]:
    with suppress(KeyError):
        yield Path(pwd.getpwuid(os.getuid()).pw_dir)
    yield Path("/home")
    yield Path("/tmp")
