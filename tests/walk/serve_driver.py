"""A process that serves labs in children of its own, breaks what they serve, and lets them die where it is told to.

It reads one job a line, ``LAB KEYS HOW WHEN``, separated by tabs. HOW is ``whole``; ``broken``, where the memory of
every model but the champion goes bad; or ``torn``, where its file does. WHEN is the boundary of the file layer to die
at, counted from 0 when the first signed record comes in, or ``-1`` for never. A child says ``address URL`` when it
answers and ``passes STEP`` at every boundary; a line ``ended STATUS`` closes every job.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab_fixtures import Place
from studbook import files
from studbook.lab import commands, ways
from studbook.lab.desk import Desk
from studbook.lab.serving import Serving
from studbook.models.slm import read_slm
from studbook.records import Deployment
from studbook.runtime import resident
from studbook.runtime.arenas import Arena
from studbook.runtime.handles import Artifacts, Module
from studbook.runtime.residents import Installed
from studbook.runtime.serve import Address, Limits, Model
from walk.kill_driver import Reaper, say


def tear() -> None:
    """Have every model but the champion served from a file that somebody cut."""
    plain = ways._own

    def own(desk: Desk, artifact: str, deployment: Deployment) -> Model:
        found = plain(desk, artifact, deployment)
        if artifact == desk.champion():
            return found
        path = desk.workspace.path.with_name("torn.slm")
        path.write_bytes(found.artifact.path.read_bytes()[:-64])
        return found._replace(artifact=found.artifact._replace(path=path))

    ways._own = own


def corrupt(champion: str) -> None:
    """Have the memory of every model but the champion go bad once it was staged and smoked."""
    plain = resident.stage

    def stage(installed: Installed, arena: Arena, artifacts: Artifacts) -> list[Module]:
        modules = plain(installed, arena, artifacts)
        if installed.artifact.sha256 != champion:
            weights = read_slm(installed.artifact.path).dense("norm.weight")
            for module in modules:
                instance = module._engine._instance
                held = bytes(instance._memory.read(instance.store, 0, instance.memory_bytes))
                places = [found.start() for found in re.finditer(re.escape(weights.tobytes()), held)]
                assert places
                for place in places:
                    instance._memory.write(instance.store, (weights * float("nan")).tobytes(), place)
        return modules

    resident.stage = stage


def arm(at: int) -> None:
    """Count boundaries from the first signed record on, and die at one of them."""
    plain = commands.accept_signed

    def accept_signed(*how: Any) -> Any:
        files.boundary = Reaper(at)
        return plain(*how)

    commands.accept_signed = accept_signed


def child(job: str) -> int:
    """The process that serves."""
    lab, keys, how, when = job.split("\t")
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        logging.basicConfig()
        place = Place(Path(lab), Path(keys))
        if how == "torn":
            tear()
        elif how == "broken":
            with place.open(writer=False) as opened:
                corrupt(opened.desk.champion())
        arm(int(when))
        limits = Limits(workers=1, waiting=256, grace_seconds=60.0)
        with place.open() as opened:
            opened.serve(Serving(Address(port=0), None, limits), lambda url: say("address", url))
    except BaseException as error:
        say("failed", type(error).__name__, error)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        say("ended", child(line.rstrip("\n")))
