"""The documents that leave with a model: which are asked for, what they are called, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from studbook.exchange.card import write_card
from studbook.exchange.cyclonedx import write_bom
from studbook.exchange.dossier import Dossier
from studbook.exchange.minimodel import write_minimodel
from studbook.exchange.slsa import write_provenance
from studbook.lab.converting import as_gguf
from studbook.lab.desk import Desk
from studbook.lab.dossiers import collect
from studbook.records import AdmissionRecord, Zone
from studbook.seal import SigningKey

__all__ = ["RECORDS", "Papers", "free_name", "write_papers"]

RECORDS = "studbook.json"
"""The records of a model's making, which every export holds."""


class Papers(NamedTuple):
    """Which documents to write beside a model.

    Attributes:
        card: A model card, ``README.md``.
        cyclonedx: A CycloneDX bill of materials, ``bom.cdx.json``.
        slsa: Sealed SLSA provenance, ``provenance.dsse.json``; only of a model bred here.
        minimodel: A MiniModel manifest, ``minimodel.manifest``; only of an SLM1 model.
        gguf: The model once more, as GGUF, ``model.gguf``; only of an SLM1 model.
        oms: Elliptic-curve key file (PEM) that signs the whole folder into ``model.sig``; None for no signature.
    """

    card: bool = False
    cyclonedx: bool = False
    slsa: bool = False
    minimodel: bool = False
    gguf: bool = False
    oms: Path | None = None


def write_papers(desk: Desk, artifact: str, files: Mapping[str, Path], papers: Papers) -> dict[str, bytes]:
    """The documents asked for, but the folder's signature: relative path -> bytes.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        files: Relative path -> where the file lies in the store.
        papers: Which documents.

    Raises:
        ClaimRefused: if the model claims more than its evidence shows.
        UsageError: if a document cannot be written of this model, or the extra that writes one is not installed.
        NotAuthorised: if the release key that signs is not at hand.
    """
    if not any(papers[:5]):
        return {}
    dossier = collect(desk, artifact, files)
    described = free_name("README.md", files) if papers.card else RECORDS
    makers: tuple[tuple[bool, str, Callable[[], bytes]], ...] = (
        (papers.card, "README.md", lambda: write_card(dossier)),
        (papers.cyclonedx, "bom.cdx.json", lambda: write_bom(dossier)),
        (papers.slsa, "provenance.dsse.json", lambda: write_provenance(dossier, _key(desk))),
        (papers.minimodel, "minimodel.manifest", lambda: _minimodel(desk, dossier, described)),
        (papers.gguf, "model.gguf", lambda: as_gguf(desk, dossier)),
    )
    return {free_name(name, files): make() for wanted, name, make in makers if wanted}


def free_name(name: str, files: Mapping[str, object]) -> str:
    """A document's name, with ``studbook-`` before it if the model has a file of that name already."""
    taken = {path.casefold() for path in files}
    while name.casefold() in taken:
        name = f"studbook-{name}"
    return name


def _minimodel(desk: Desk, dossier: Dossier, described: str) -> bytes:
    data = desk.workspace.blob(dossier.artifact) if dossier.form == "slm" else b""
    return write_minimodel(dossier, data, _key(desk), described)


def _key(desk: Desk) -> SigningKey:
    """The release key that signs admissions: it speaks for what may leave the lab, and may be online."""
    return desk.workspace.keys.find(desk.workspace.root, Zone.RELEASE, AdmissionRecord.kind())
