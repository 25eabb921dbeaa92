"""The same bytes again, from parents and receipt alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from studbook.breeding.produce import CHUNK, run_template
from studbook.environment import training_environment
from studbook.errors import DigestDiffers, OutOfOrder
from studbook.records import LineageTemplate, OperatorReceipt, digest

__all__ = ["check_environment", "check_receipt", "recompute"]


def check_receipt(template: LineageTemplate, receipt: OperatorReceipt) -> None:
    """A receipt must speak of its template's inputs, operator and contract, in order.

    Raises:
        DigestDiffers: naming the first field that differs.
    """
    named = tuple(i.before for i in receipt.inputs)
    pairs = (
        ("template", receipt.template, digest(template)),
        ("operator", receipt.operator, template.operator),
        ("numeric_contract", receipt.numeric_contract, template.numeric_contract),
        ("inputs", named, (template.base, *template.parents)),
        ("inputs", tuple(i.after for i in receipt.inputs), named),
    )
    for field, found, expected in pairs:
        if found != expected:
            raise DigestDiffers("the receipt differs from its template", where=f"receipt: {field}")


def check_environment(receipt: OperatorReceipt) -> None:
    """Refuse to recompute where other bytes are to be expected, and would prove nothing.

    Raises:
        OutOfOrder: if the receipt is bound to another environment than this; ``training.environment``.
    """
    bound, here = receipt.header.environment, training_environment()
    if receipt.reproducibility == "environment-bound" and bound != here:
        raise OutOfOrder(
            f"was trained in {bound}; here, in {here}, training gives other bytes, so nothing was recomputed",
            where="receipt: reproducibility",
            advice="Reproduce it on a machine of its environment class, with that version of torch.",
            reason="training.environment",
        )


def recompute(
    template: LineageTemplate,
    receipt: OperatorReceipt,
    paths: Mapping[str, Path],
    folder: Path,
    *,
    threads: int = 1,
    chunk: int = CHUNK,
) -> str:
    """Breed the candidate again in another process and folder.

    Args:
        template: Its template.
        receipt: Its receipt.
        paths: Digest -> file, for base, parents and training slices; the candidate itself is not needed.
        folder: An empty folder.
        threads: Threads of the worker.
        chunk: Elements computed at a time.

    Returns:
        The digest, equal to the receipt's.

    Raises:
        DigestDiffers: if receipt and template disagree, or other bytes came out.
        OutOfOrder: if the receipt is bound to another environment than this; ``training.environment``.
    """
    check_receipt(template, receipt)
    check_environment(receipt)
    answer = run_template(template, paths, folder, threads=threads, chunk=chunk).value
    if answer["sha256"] != receipt.output.sha256:
        raise DigestDiffers(
            f"recomputing gave {answer['sha256'][:16]}..., the receipt says {receipt.output.sha256[:16]}...",
            advice="The receipt does not describe this artifact. Do not release it.",
            reason="digest.recompute",
        )
    return receipt.output.sha256
