"""The generating worker: prompts in, token ids out. It never sees an answer; scoring happens in another process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studbook.errors import TokenizerRefused
from studbook.evaluation.score_worker import open_model
from studbook.models.checksum import warm
from studbook.models.forward import Forward
from studbook.models.slm import Slm
from studbook.models.tokenizers import EOS

__all__ = ["warm", "work"]


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Generate greedily from every prompt, once or twice.

    Args:
        job: ``model`` (path), ``sha256``, ``prompts``, ``max_new_tokens``, ``twice``.

    Returns:
        ``runs``: one or two lists of token ids per prompt, end marker included; ``finite``: every logit was.
    """
    model = open_model(job["model"], job["sha256"])
    forward = Forward(model)
    prompts = [model.tokenizer.encode(text, bos=True, eos=False) for text in job["prompts"]]
    runs = [forward.generate(prompts, job["max_new_tokens"]) for _ in range(2 if job["twice"] else 1)]
    pairs = [(p, o) for p, o in zip(prompts, runs[0], strict=True) if o]
    finite = bool(forward.score(pairs).finite.all()) if pairs else False
    texts = [_text(model, ids) for ids in runs[0]]
    return {"runs": [[list(map(int, ids)) for ids in run] for run in runs], "finite": finite, "texts": texts}


def _text(model: Slm, ids: list[int]) -> str | None:
    """The answer before the end marker, or None when it does not decode or never ended."""
    if EOS not in ids:
        return None
    try:
        return model.tokenizer.decode(ids[: ids.index(EOS)])
    except TokenizerRefused:
        return None
