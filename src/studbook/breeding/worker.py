"""The breeding worker: parents read-only in, one file out. It is told of no suite, no key and no other folder."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from studbook.breeding.operators import decode_operator
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs, open_inputs
from studbook.errors import OutsideAllowlist, OverBudget
from studbook.files import sha256_file
from studbook.models.checksum import warm
from studbook.models.slm import Slm, parse_slm
from studbook.models.slm_writer import write_slm
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.reductions import sum_of_squares

__all__ = ["OUTPUT", "delta_norm", "parse_back", "warm", "work"]

OUTPUT = "candidate.slm"


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Breed one candidate into ``folder``.

    Args:
        job: ``base`` and ``parents`` as [path, digest], ``operator``, ``numeric_contract``, ``output_bytes``,
            ``threads``, ``chunk`` (elements).
        folder: Where the output is written.

    Returns:
        ``sha256`` and ``size`` of the output, ``delta_norm``, and the digest of every input after the run.

    Raises:
        OutsideAllowlist: if the receipt asks for another numeric contract than this version's.
        OverBudget: if the output is larger than allowed; nothing is left behind then.
        StudbookError: what the operator raised.
    """
    if job["numeric_contract"] != CONTRACT_SHA256:
        raise OutsideAllowlist("asks for a numeric contract that this version does not have", reason="contract")
    operator = decode_operator(job["operator"])
    files = [tuple(job["base"]), *(tuple(p) for p in job["parents"])]
    base, parents = open_inputs(files[0], files[1:])
    tensors = compute(operator, as_inputs(base, parents), chunk=job["chunk"], threads=job["threads"])
    shaped = {spec.name: tensors[spec.name].reshape(spec.dims) for spec in base.shape.tensors()}
    data = write_slm(base.shape, base.tokenizer, shaped, dtype=operator.storage or "f32")
    if len(data) > job["output_bytes"]:
        raise OverBudget(f"the output has {len(data)} bytes; {job['output_bytes']} are allowed")
    (folder / OUTPUT).write_bytes(data)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "delta_norm": delta_norm(base, shaped, operator.storage, data),
        "after": [sha256_file(Path(path)) for path, _ in files],
    }


def delta_norm(base: Slm, tensors: dict[str, np.ndarray], storage: str | None, data: bytes) -> float:
    """||child - base|| over all tensors (f64), measured on what a reader of the file will decode."""
    child = parse_back(data) if storage else tensors
    return math.sqrt(math.fsum(sum_of_squares(_difference(child[n], base.dense(n))) for n in tensors))


def parse_back(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a written container as its readers see them."""
    model = parse_slm(data, OUTPUT)
    return {spec.name: model.dense(spec.name) for spec in model.shape.tensors()}


def _difference(child: np.ndarray, base: np.ndarray) -> np.ndarray:
    return (child.astype(np.float64) - base.astype(np.float64)).reshape(-1)
