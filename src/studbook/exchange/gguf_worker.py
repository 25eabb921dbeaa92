"""Writing GGUF in a worker: the library that does it never runs beside the lab's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studbook.exchange.gguf import keeps_text, write_gguf
from studbook.models.checksum import warm
from studbook.models.slm import read_slm

__all__ = ["warm", "work"]


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write one model.

    Args:
        job: ``model`` (path of the container), ``file`` (name of what is written), ``name`` and ``licence`` to say in it.
        folder: Where it goes.

    Returns:
        ``text``: whether readers of the file give every text the ids that the model's tokenizer does.

    Raises:
        UsageError: if the library is not installed.
        SlmRefused: if the file is no container.
    """
    model = read_slm(Path(job["model"]))
    write_gguf(folder / job["file"], model, job["name"], job["licence"])
    return {"text": keeps_text(model.tokenizer)}
