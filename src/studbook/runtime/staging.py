"""From a file to modules that were smoked, beside whatever is in memory; or nothing."""

from __future__ import annotations

from functools import partial

from studbook.runtime.arenas import Arena
from studbook.runtime.handles import Artifacts, Module
from studbook.runtime.residents import Installed

__all__ = ["stage"]


def stage(installed: Installed, arena: Arena, artifacts: Artifacts) -> list[Module]:
    """All copies of a package, each in a memory that holds what was planned for it and no more.

    Args:
        installed: The package.
        arena: Where its copies shall lie.
        artifacts: Where its files come from.

    Raises:
        DigestDiffers: if a file, or what the engine computes of it, is not what was promised.
        OverBudget: if the arena has less left, or the plan was too small.
        BytesLie: if the engine refuses a file.
    """
    modules: list[Module] = []
    try:
        while len(modules) < installed.copies:
            modules.append(_staged(installed, arena, artifacts))
    except BaseException:
        for module in modules:
            module.free()
        raise
    return modules


def _staged(installed: Installed, arena: Arena, artifacts: Artifacts) -> Module:
    engine = arena.open(artifacts.read(installed.artifact), installed.sizes.total, installed.id)
    try:
        if installed.stack:
            engine.accept(installed.base or installed.artifact.sha256)
            engine.apply(*(artifacts.read(package) for package in installed.stack))
        return Module(engine, installed.use, installed.smoke, where=installed.id, free=partial(arena.close, engine))
    except BaseException:
        arena.close(engine)
        raise
