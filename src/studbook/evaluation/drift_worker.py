"""The drift worker: how far one model's next-token distribution and inner states lie from another's on anchors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studbook.evaluation.items import items_sha256, known_items
from studbook.evaluation.score_worker import open_model
from studbook.files import read_file
from studbook.models.checksum import warm
from studbook.models.decoder import Decoder
from studbook.models.slm import Slm

__all__ = ["alignment", "divergence", "warm", "work"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_ITEMS_LIMIT = 64 << 20


def work(job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Feed the anchors to both models and compare.

    Args:
        job: ``model`` and ``champion`` (paths), ``sha256`` and ``champion_sha256``, ``suites``: paths of items files.

    Returns:
        ``suites``: for each, items digest before and after, ``kl``: mean over the positions of prompt and answer of
        KL(champion || model) in nats, one an anchor, ``cka``: one a layer, empty where the numbers of layers differ, and
        ``refused``: why the two cannot be compared, or empty.
    """
    model = open_model(job["model"], job["sha256"])
    champion = open_model(job["champion"], job["champion_sha256"])
    same = model.tokenizer_sha256 == champion.tokenizer_sha256
    decoders = Decoder(champion), Decoder(model)
    return {"suites": [_compare(decoders, Path(path), comparable=same) for path in job["suites"]]}


def divergence(first: F64, second: F64) -> F64:
    """KL(first || second) of rows of logits, f64 (rows, vocabulary) -> (rows,), nats: sum_k p_k (log p_k - log q_k).

    Source: Kullback and Leibler 1951 (Ann. Math. Statist. 22).
    """
    with np.errstate(all="ignore"):
        p, q = _log_softmax(first), _log_softmax(second)
        found: F64 = (np.exp(p) * (p - q)).sum(axis=1)
    return found


def alignment(x: F64, y: F64) -> float:
    """Linear CKA of two sets of features, f64 (rows, features): |Yc'Xc|^2 / (|Xc'Xc| |Yc'Yc|), Frobenius, 0..1.

    It does not change with rotation or scale of either. Source: Kornblith et al. 2019, 1905.00414, equation 4.
    """
    with np.errstate(all="ignore"):
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        norms = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        return float(np.linalg.norm(y.T @ x) ** 2 / norms) if norms > 0.0 else 0.0


def _log_softmax(logits: F64) -> F64:
    shifted: F64 = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _compare(decoders: tuple[Decoder, Decoder], path: Path, *, comparable: bool) -> dict[str, Any]:
    data = read_file(path, _ITEMS_LIMIT)
    found: dict[str, Any] = {"before": items_sha256(data), "kl": [], "cka": [], "refused": ""}
    if comparable:
        tokens = [_tokens(decoders[0].slm, item.prompt, item.expected) for item in known_items(data, path)]
        found |= _measured(decoders, tokens)
    else:
        found["refused"] = "its tokenizer is not the champion's, so their next tokens are not the same"
    return {**found, "after": hashlib.sha256(read_file(path, _ITEMS_LIMIT)).hexdigest()}


def _tokens(slm: Slm, prompt: str, expected: str) -> list[int]:
    encode = slm.tokenizer.encode
    return [*encode(prompt, bos=True, eos=False), *encode(expected, bos=False, eos=False)]


def _measured(decoders: tuple[Decoder, Decoder], tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    kl: list[float] = []
    states: tuple[list[list[F32]], list[list[F32]]] = ([], [])
    for sequence in tokens:
        ids = np.array([sequence], dtype=np.int64)
        logits: list[F64] = []
        for decoder, kept in zip(decoders, states, strict=True):
            taps: list[F32] = []
            logits.append(decoder.logits(decoder.run(ids, taps=taps)).astype(np.float64))
            kept.append(taps)
        kl.append(float(divergence(*logits).mean()))
    return {"kl": kl, "cka": list(_layers(*states))}


def _layers(first: Sequence[Sequence[F32]], second: Sequence[Sequence[F32]]) -> Iterator[float]:
    """CKA of each layer over the positions of all anchors, where both models have as many layers."""
    if first and len(first[0]) == len(second[0]):
        for layer in range(len(first[0])):
            rows = [np.concatenate([taps[layer] for taps in states]) for states in (first, second)]
            yield alignment(*(stacked.astype(np.float64) for stacked in rows))
