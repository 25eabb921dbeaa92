"""The breeding worker: parents read-only in, one file out. It is told of no suite, no key and no other folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studbook.adapters.reader import Adapter
from studbook.breeding.operators import AnyOperator, Inputs, decode_operator
from studbook.breeding.operators.run import compute
from studbook.breeding.operators.warm import prepare
from studbook.breeding.sources import as_inputs, open_inputs
from studbook.errors import OutsideAllowlist, OverBudget
from studbook.models.checksum import warm
from studbook.models.slm import Slm
from studbook.models.slm_writer import write_slm
from studbook.tensors.contract import CONTRACT_SHA256

__all__ = ["OUTPUT", "Opener", "breed", "prepare", "warm", "work"]

OUTPUT = "candidate.slm"
# What an operator is given of the models that a worker opened.
Opener = Callable[[AnyOperator, Slm, Sequence[Slm | Adapter]], Inputs]


def work(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Breed one candidate into ``folder``.

    Args:
        job: ``base`` and ``parents`` as [path, digest], ``operator``, ``numeric_contract``, ``output_bytes``,
            ``threads``, ``chunk`` (elements).
        folder: Where the output is written.

    Returns:
        ``sha256`` and ``size`` of the output, for the lab to hold against the file.

    Raises:
        OutsideAllowlist: if the receipt asks for another numeric contract than this version's.
        OverBudget: if the output is larger than allowed; nothing is left behind then.
        StudbookError: what the operator raised.
    """
    return breed(job, folder, lambda _operator, base, parents: as_inputs(base, parents))


def breed(job: dict[str, Any], folder: Path, opener: Opener) -> dict[str, Any]:
    """As `work`, with another way from models to an operator's inputs.

    Raises:
        StudbookError: as `work`.
    """
    if job["numeric_contract"] != CONTRACT_SHA256:
        raise OutsideAllowlist("asks for a numeric contract that this version does not have", reason="contract")
    operator = decode_operator(job["operator"])
    files = [tuple(job["base"]), *(tuple(p) for p in job["parents"])]
    base, parents = open_inputs(files[0], files[1:])
    shape, tokenizer = operator.remake(base.shape, base.tokenizer)
    tensors = compute(operator, opener(operator, base, parents), chunk=job["chunk"], threads=job["threads"])
    shaped = {spec.name: tensors[spec.name].reshape(spec.dims) for spec in shape.tensors()}
    data = write_slm(shape, tokenizer, shaped, dtype=operator.storage or "f32")
    if len(data) > job["output_bytes"]:
        raise OverBudget(f"the output has {len(data)} bytes; {job['output_bytes']} are allowed")
    (folder / OUTPUT).write_bytes(data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
