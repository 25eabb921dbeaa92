"""A process that serves labs in children of its own, breaks what they serve, and lets them die where it is told to.

It reads one job a line, ``LAB KEYS HOW WHEN``, separated by tabs. HOW is ``whole``; ``broken``, where every model but
the champion writes what is no number; or ``torn``, where it does not load. WHEN is the boundary of the file layer to die
at, counted from 0 when the first signed record comes in, or ``-1`` for never. A child says ``address URL`` when it
answers and ``passes STEP`` at every boundary; a line ``ended STATUS`` closes every job.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab_fixtures import Place
from studbook import files
from studbook.lab import commands, ways
from studbook.lab.desk import Desk
from studbook.lab.serving import Serving
from studbook.models.slm import parse_slm
from studbook.models.slm_writer import write_slm
from studbook.records import Deployment
from studbook.runtime.serve import Address, Limits, Model
from walk.kill_driver import Reaper, say


def unsound(how: str, data: bytes) -> bytes:
    """The same model as bad memory might hold it."""
    if how == "torn":
        return data[:-64]
    model = parse_slm(data)
    values = {spec.name: model.dense(spec.name) for spec in model.shape.tensors()}
    # Finite as they lie there, and their product is not.
    values["norm.weight"] = values["norm.weight"] * 0 + 3e38
    values["tok_embeddings.weight"] = values["tok_embeddings.weight"] * 1e6
    return write_slm(dataclasses.replace(model.shape), model.tokenizer, values)


def spoil(how: str) -> None:
    """Have every model but the champion served unsound."""
    plain = ways._own

    def own(desk: Desk, artifact: str, deployment: Deployment) -> Model:
        found = plain(desk, artifact, deployment)
        return found if artifact == desk.champion() else found._replace(data=unsound(how, found.data))

    ways._own = own


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
        if how != "whole":
            spoil(how)
        arm(int(when))
        limits = Limits(workers=1, waiting=256, grace_seconds=60.0)
        with Place(Path(lab), Path(keys)).open() as opened:
            opened.serve(Serving(Address(port=0), None, limits), lambda url: say("address", url))
    except BaseException as error:
        say("failed", type(error).__name__, error)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        say("ended", child(line.rstrip("\n")))
