"""The scoring worker: items with answers in, one number an item out. Only the lab's own engine runs weights here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from studbook.errors import DigestDiffers
from studbook.evaluation.suites import items_sha256, known_items
from studbook.files import read_file
from studbook.models.checksum import warm
from studbook.models.forward import Forward
from studbook.models.slm import Slm, read_slm

__all__ = ["BATCH", "open_model", "warm", "work"]

# Part of the evaluator's identity: another batch layout may round differently.
BATCH = 256
_ITEMS_LIMIT = 64 << 20


def open_model(path: str, sha256: str) -> Slm:
    """Read a model whose digest must be the one that was asked for.

    Raises:
        DigestDiffers: if it is another.
    """
    model = read_slm(Path(path))
    if model.sha256 != sha256:
        raise DigestDiffers("is not the artifact that was to be evaluated", where=path)
    return model


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Score one model on some suites.

    Args:
        job: ``model`` (path), ``sha256``, ``suites``: list of items paths.

    Returns:
        ``suites``: for each, items digest before and after, ``correct``, ``loglik`` (nats), ``brier``, ``calls``
        (sequences that went through the model); and ``tokens`` and ``logit_positions`` over all of them.
    """
    model = open_model(job["model"], job["sha256"])
    forward = Forward(model)
    tokens = positions = 0
    suites = []
    for path in job["suites"]:
        data = read_file(Path(path), _ITEMS_LIMIT)
        pairs = []
        for item in known_items(data, path):
            prompt = model.tokenizer.encode(item.prompt, bos=True, eos=False)
            pairs.append((prompt, model.tokenizer.encode(item.expected, bos=False, eos=True)))
        scores = forward.score(pairs, batch=BATCH)
        tokens += int((scores.fed * scores.calls).sum())
        positions += int((scores.tokens * scores.calls).sum())
        suites.append(
            {
                "before": items_sha256(data),
                "after": hashlib.sha256(read_file(Path(path), _ITEMS_LIMIT)).hexdigest(),
                "correct": [bool(v) for v in scores.exact],
                "loglik": [float(v) for v in scores.loglik],
                "brier": [float(v) for v in scores.brier],
                "calls": int(scores.calls.sum()),
            }
        )
    return {"suites": suites, "tokens": tokens, "logit_positions": positions}
