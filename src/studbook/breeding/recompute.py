"""The same bytes again, from parents and receipt alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from studbook.breeding.produce import CHUNK, run_template
from studbook.errors import DigestDiffers
from studbook.records import LineageTemplate, OperatorReceipt, digest

__all__ = ["check_receipt", "recompute"]


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
        paths: Digest -> file, for base and parents; the candidate itself is not needed.
        folder: An empty folder.
        threads: Threads of the worker.
        chunk: Elements computed at a time.

    Returns:
        The digest, equal to the receipt's.

    Raises:
        DigestDiffers: if receipt and template disagree, or other bytes came out.
    """
    check_receipt(template, receipt)
    answer = run_template(template, paths, folder, threads=threads, chunk=chunk).value
    if answer["sha256"] != receipt.output.sha256:
        raise DigestDiffers(
            f"recomputing gave {answer['sha256'][:16]}..., the receipt says {receipt.output.sha256[:16]}...",
            advice="The receipt does not describe this artifact. Do not release it.",
            reason="digest.recompute",
        )
    return receipt.output.sha256
