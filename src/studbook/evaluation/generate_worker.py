"""The generating worker: prompts in, token ids out. It never sees an answer; scoring happens in another process.

It runs the engine, the very one that runs in a page; the scoring worker runs batches in numpy. Both must agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studbook.errors import DigestDiffers, TokenizerRefused
from studbook.files import read_file
from studbook.models.engine import Engine, warm
from studbook.models.slm import MAX_FILE_BYTES
from studbook.models.tokenizers import EOS

__all__ = ["open_engine", "warm", "work"]


def open_engine(job: dict[str, Any]) -> Engine:
    """Load the model of a job into a metered engine; its digest must be the one that was asked for.

    Args:
        job: ``model`` (path), ``sha256``, ``memory`` (most bytes of the engine's memory).

    Raises:
        DigestDiffers: if it is another.
        OverBudget: if it does not fit into the memory.
    """
    path = Path(job["model"])
    engine = Engine(read_file(path, MAX_FILE_BYTES), memory_limit=job["memory"], fuel=True, where=path)
    if engine.sha256 != job["sha256"]:
        engine.close()
        raise DigestDiffers("is not the artifact that was to be evaluated", where=path)
    return engine


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Generate greedily from every prompt.

    Args:
        job: As for `open_engine`, with ``prompts`` and ``max_new_tokens``.

    Returns:
        ``ids``: new token ids a prompt, end marker included; ``texts``: each before its end marker, or None; ``fuel``:
        what the engine counted for it, encoding and decoding included.
    """
    with open_engine(job) as engine:
        before = engine.fuel_used
        prompts = [engine.encode(text, bos=True, eos=False) for text in job["prompts"]]
        ids = engine.decode(prompts, job["max_new_tokens"]).ids
        return {"ids": ids, "texts": [_text(engine, found) for found in ids], "fuel": engine.fuel_used - before}


def _text(engine: Engine, ids: list[int]) -> str | None:
    """The answer before the end marker, or None when it does not decode or never ended."""
    if EOS not in ids:
        return None
    try:
        return engine.decode_text(ids[: ids.index(EOS)])
    except TokenizerRefused:
        return None
