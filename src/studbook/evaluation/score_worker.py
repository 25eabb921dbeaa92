"""The scoring worker: items with answers in, one number an item out. Only the lab's own engine runs weights here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from studbook.errors import DigestDiffers
from studbook.evaluation.items import Item, items_sha256, known_items
from studbook.evaluation.scoring import KINDS, Kind
from studbook.files import read_file
from studbook.models.checksum import warm
from studbook.models.forward import Forward, Scores
from studbook.models.joint import Joint
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
        job: ``model`` (path), ``sha256``, ``suites``: for each ``path`` of its items, ``scorer``, ``limit`` (most bytes of
            an answer) and, for a kind that reads what was written, ``said``: one answer an item; ``beside``,
            where several models answer as one: path and digest of each further one.

    Returns:
        ``suites``: for each, items digest before and after, ``correct``, ``exact`` (whether greedy decoding would write
        the expected answer), ``loglik`` (nats), ``brier``, ``calls`` (sequences that went through the model); and
        ``multiply_adds`` over all of them.
    """
    model = open_model(job["model"], job["sha256"])
    beside = [open_model(path, sha256) for path, sha256 in job.get("beside", ())]
    forward = Joint([model, *beside]) if beside else Forward(model)
    done = 0
    suites = []
    for suite in job["suites"]:
        path = Path(suite["path"])
        data = read_file(path, _ITEMS_LIMIT)
        items, kind = known_items(data, path), KINDS[suite["scorer"]]
        sequences = [kind.sequences(item) for item in items]
        scores = _scores(forward, items, sequences)
        done += _work(forward, scores)
        firsts = _firsts(sequences)
        exactly = [bool(scores.exact[i]) for i in firsts]
        suites.append(
            {
                "before": items_sha256(data),
                "after": hashlib.sha256(read_file(path, _ITEMS_LIMIT)).hexdigest(),
                "correct": _correct(kind, items, suite, scores, firsts, exactly),
                "exact": exactly,
                "loglik": [float(scores.loglik[i]) for i in firsts],
                "brier": [float(scores.brier[i]) for i in firsts],
                "calls": int(scores.calls.sum()),
            }
        )
    return {"suites": suites, "multiply_adds": done}


def _work(forward: Forward, scores: Scores) -> int:
    """Multiply-adds of what went through the model, sequence by sequence: attention grows with the square of one."""
    rows = zip(scores.fed.tolist(), scores.tokens.tolist(), scores.calls.tolist(), strict=True)
    return sum(forward.slm.shape.multiply_adds(fed, tokens) * calls for fed, tokens, calls in rows)


def _scores(forward: Forward, items: Sequence[Item], sequences: Sequence[Sequence[str]]) -> Scores:
    encode = forward.slm.tokenizer.encode
    pairs = []
    for item, texts in zip(items, sequences, strict=True):
        prompt = encode(item.prompt, bos=True, eos=False)
        pairs += [(prompt, encode(text, bos=False, eos=True)) for text in texts]
    return forward.score(pairs, batch=BATCH)


def _firsts(sequences: Sequence[Sequence[str]]) -> list[int]:
    """Where each item's expected answer stands among all sequences."""
    return list(accumulate((len(texts) for texts in sequences[:-1]), initial=0))


def _correct(
    kind: Kind,
    items: Sequence[Item],
    suite: dict[str, Any],
    scores: Scores,
    firsts: Sequence[int],
    exactly: Sequence[bool],
) -> list[bool]:
    if kind.reads == "text":
        return [kind.right(item, said, suite["limit"]) for item, said in zip(items, suite["said"], strict=True)]
    loglik, lengths = scores.loglik.tolist(), scores.tokens.tolist()
    ends = [*firsts[1:], len(loglik)]
    return [
        kind.chosen(item, loglik[first:end], lengths[first:end], exactly=hit)
        for item, first, end, hit in zip(items, firsts, ends, exactly, strict=True)
    ]
