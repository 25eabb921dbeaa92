"""A model in another program's format, written by a worker: no library of another program runs beside the lab's keys."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msgspec.structs import replace

from studbook.errors import UsageError
from studbook.exchange.dossier import Dossier
from studbook.files import read_file
from studbook.lab.desk import Desk
from studbook.sandbox import run_worker

__all__ = ["as_gguf"]

_WORKER, _FILE = "studbook.exchange.gguf_worker", "model.gguf"
_BESIDE = 64 << 20


def as_gguf(desk: Desk, dossier: Dossier) -> bytes:
    """An SLM1 model as the bytes of a GGUF file.

    Args:
        desk: The lab.
        dossier: What is on record of the model.

    Raises:
        UsageError: if it is no SLM1 model (``export.not-slm``), or the extra is not installed (``usage.extra``).
        OverBudget: if the file would be larger than the model's values and 64 MiB.
    """
    if dossier.form != "slm":
        advice = "Leave --gguf out; the tools of who reads the format convert other models."
        raise UsageError("is no SLM1 model", where=dossier.name, advice=advice, reason="export.not-slm")
    path = desk.workspace.blob_path(dossier.artifact).absolute()
    # Four bits become 32; words and merges are short beside that.
    limits = replace(desk.worker_limits(), file_bytes=8 * path.stat().st_size + _BESIDE)
    job = {"model": str(path), "file": _FILE, "name": dossier.name, "licence": dossier.licence or ""}
    with tempfile.TemporaryDirectory() as folder:
        answer = run_worker(_WORKER, job, Path(folder), limits, [path])
        data = read_file(Path(folder) / _FILE, limits.file_bytes)
    if not answer.value["text"]:
        desk.progress.say(
            "what reads GGUF cuts some texts otherwise than this tokenizer: give it ids where that matters"
        )
    return data
