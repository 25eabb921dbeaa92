"""Reading Hugging Face checkpoints and PEFT LoRA folders: copied first, then parsed from the copies that are kept.

What was hashed while it was copied is what is parsed and what enters the store, so nobody can swap a file in between.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from studbook.errors import ParentsDoNotFit, StudbookError, UsageError
from studbook.files import copy_new, read_file
from studbook.models.checkpoint import Checkpoint, list_folder, open_checkpoint
from studbook.models.checkpoint_checks import check_carried
from studbook.models.peft import LoraAdapter, read_peft
from studbook.records import (
    Blob,
    CheckpointSource,
    Header,
    LicenceSource,
    LoraSource,
    Rung,
    SourceManifest,
    digest,
)

__all__ = ["FileDraft", "is_checkpoint", "read_checkpoint"]

_CARD_LIMIT = 1 << 20
# What model cards call licences, where it is not the SPDX identifier in lower case.
_CARD_NAMES = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc0-1.0": "CC0-1.0"}
_LICENCE_LINE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9.+-]{1,64})[\"']?[ \t]*$", re.MULTILINE)


class FileDraft(NamedTuple):
    """A source that may be registered, its bytes lying in files.

    Attributes:
        manifest: Its record.
        blobs: SHA-256 -> bytes, or the copy that may be moved into the store.
    """

    manifest: SourceManifest
    blobs: dict[str, bytes | Path]


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a Hugging Face checkpoint or a PEFT folder, and not like a founder's."""
    return any((path / name).exists() for name in ("config.json", "adapter_config.json"))


def read_checkpoint(
    header: Header,
    folder: Path,
    staging: Path,
    name: str | None = None,
    licence: str | None = None,
    shown: Callable[[int], None] = lambda _: None,
) -> tuple[FileDraft, ...]:
    """Copy a checkpoint's files and read the copies.

    Args:
        header: Record header.
        folder: config.json, safetensors weights and tokenizer files; or a PEFT LoRA folder.
        staging: An empty folder on the store's disk.
        name: What to call it; the folder's name by default.
        licence: SPDX identifier, where the model card states none.
        shown: Called with the number of bytes of every step of copying.

    Returns:
        Drafts in the order they must be registered: the licence first, if one is known.

    Raises:
        BytesLie: if a file breaks a rule of its format, weights, config, tokenizer and generation config alike.
        OverBudget: if a small file is larger than a child could carry.
        ParentsDoNotFit: if a weight is not finite.
        UsageError: if the folder holds no checkpoint.
    """
    listed = list_folder(folder)
    copies, digests = {}, {}
    for relative, path in sorted(listed.items()):
        copies[relative] = staging / relative
        copies[relative].parent.mkdir(exist_ok=True)
        digests[relative] = copy_new(path, copies[relative], shown)[0]
    try:
        return _drafts(header, name or folder.resolve().name, copies, digests, licence)
    except StudbookError as error:
        # The copies are what was read; the folder is what its owner knows.
        error.where = error.where.replace(str(staging), str(folder))
        raise


def _drafts(
    header: Header, title: str, copies: Mapping[str, Path], digests: Mapping[str, str], licence: str | None
) -> tuple[FileDraft, ...]:
    drafts = [d] if (d := _licence(header, copies, licence)) else []
    declared = digest(drafts[0].manifest) if drafts else None
    if "adapter_config.json" in copies and "config.json" not in copies:
        drafts.append(_lora(header, title, read_peft(copies), copies, digests, declared))
    else:
        # The small files first: their faults are found before gigabytes are hashed.
        check_carried(copies)
        drafts.append(_checkpoint(header, title, open_checkpoint(copies), copies, digests, declared))
    return tuple(drafts)


def _checkpoint(
    header: Header,
    name: str,
    model: Checkpoint,
    copies: Mapping[str, Path],
    digests: Mapping[str, str],
    licence: str | None,
) -> FileDraft:
    bad = {tensor: count for tensor, count in model.count_non_finite().items() if count}
    if bad:
        first = next(iter(bad))
        raise ParentsDoNotFit(
            f"{sum(bad.values())} elements of {len(bad)} tensors are NaN or infinite, first in {first}",
            where=name,
            advice="A model with such weights cannot be combined; register one that was not damaged.",
            reason="parents.non-finite",
        )
    source = CheckpointSource(
        label=model.label,
        parameters=model.parameters,
        architecture=next(iter(model.architectures), "unknown"),
        vocab_size=model.vocab_size or 0,
        tokenizer_sha256=model.tokenizer_sha256,
        layout_sha256=model.layout_sha256,
        weights_bytes=sum(copies[f].stat().st_size for f in copies if f.endswith(".safetensors")),
        licence=licence,
        claim=Rung.STRUCTURAL,
    )
    return _draft(header, name, model.manifest, copies, digests, source)


def _lora(
    header: Header,
    name: str,
    adapter: LoraAdapter,
    copies: Mapping[str, Path],
    digests: Mapping[str, str],
    licence: str | None,
) -> FileDraft:
    source = LoraSource(
        rank=max(adapter.ranks().values()),
        tensors=len(adapter.names),
        base_name=adapter.base_name,
        licence=licence,
    )
    return _draft(header, name, adapter.manifest, copies, digests, source)


def _draft(
    header: Header,
    name: str,
    listing: bytes,
    copies: Mapping[str, Path],
    digests: Mapping[str, str],
    source: CheckpointSource | LoraSource,
) -> FileDraft:
    sizes = {digests[relative]: path.stat().st_size for relative, path in copies.items()}
    artifact = hashlib.sha256(listing).hexdigest()
    manifest = SourceManifest(
        header=header,
        name=name,
        artifact=Blob(sha256=artifact, size=len(listing)),
        files=tuple(Blob(sha256=d, size=size) for d, size in sorted(sizes.items())),
        source=source,
        unsupported=(),
    )
    return FileDraft(manifest, {artifact: listing, **{digests[r]: path for r, path in copies.items()}})


def _licence(header: Header, copies: Mapping[str, Path], stated: str | None) -> FileDraft | None:
    """The licence somebody states, or the one the model card's front matter does; the card is kept as its text."""
    card = read_file(copies["README.md"], _CARD_LIMIT) if "README.md" in copies else b""
    found = _LICENCE_LINE.search(card.decode(errors="replace").split("\n---", 1)[0]) if card[:3] == b"---" else None
    if stated is None and found is None:
        return None
    text = card if found else f"{stated}\n".encode()
    spdx = stated or _CARD_NAMES.get(found[1].lower(), found[1]) if found else stated
    if not spdx or not re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", spdx):
        raise UsageError(f"{spdx!r} is not an SPDX identifier such as Apache-2.0", where="--licence")
    source = LicenceSource(
        spdx=spdx,
        text_sha256=hashlib.sha256(text).hexdigest(),
        declared_in="README.md of the checkpoint" if found and not stated else "stated at registration",
    )
    manifest = SourceManifest(
        header=header,
        name=spdx,
        artifact=Blob(sha256=source.text_sha256, size=len(text)),
        files=(),
        source=source,
        unsupported=(),
    )
    return FileDraft(manifest, {source.text_sha256: text})
