"""What was made from what, and what counts no longer: one definition, for what is refused and for what is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from studbook.records import (
    AdapterSource,
    CandidateManifest,
    LineageTemplate,
    ModelSource,
    Record,
    Revocation,
    SourceManifest,
    Tombstone,
)

__all__ = ["forebears", "made_from", "revoked_digests"]


def made_from(record: Record, template: Callable[[str], LineageTemplate]) -> tuple[str, ...]:
    """What the artifact of a manifest was made from, digests, each once.

    A candidate was made from its base and parents and the data they bring; a registered model was made from the data it
    was trained on and the model it was tuned from, an adapter from its base.

    Args:
        record: Any record; those that are no manifests say nothing.
        template: Finds a lineage template by its digest.
    """
    above: tuple[str, ...] = ()
    if isinstance(record, CandidateManifest):
        declared = template(record.template)
        above = (declared.base, *declared.parents, *record.data)
    elif isinstance(record, SourceManifest) and isinstance(record.source, ModelSource):
        above = (*((record.source.base,) if record.source.base else ()), *record.source.data)
    elif isinstance(record, SourceManifest) and isinstance(record.source, AdapterSource):
        above = (record.source.base,)
    own = record.artifact.sha256 if isinstance(record, SourceManifest | CandidateManifest) else ""
    return tuple(digest for digest in dict.fromkeys(above) if digest != own)


def revoked_digests(
    revocations: Iterable[Revocation],
    stones: Iterable[Tombstone],
    manifests: Iterable[tuple[str, SourceManifest | CandidateManifest]],
) -> dict[str, str]:
    """Digests of artifacts, data manifests and records that count no longer by themselves, each with the reason.

    A manifest and its artifact go together, whichever of them was named; so does every other manifest of that artifact.

    Args:
        revocations: Every revocation that counts; those of keys say nothing here.
        stones: Every tombstone that counts.
        manifests: Every manifest with its digest; walked only if there is a revocation or a tombstone.
    """
    found: dict[str, str] = {}
    for record in revocations:
        if record.subject.type != "key":
            found.setdefault(record.subject.digest, f"was revoked: {record.reason}")
    for stone in stones:
        why = f"was withdrawn by {stone.withdrawn_by}{': ' if stone.reason else ''}{stone.reason}"
        found.setdefault(stone.artifact, why)
        found.setdefault(stone.withdrawn, why)
    if not found:
        return found
    held = [(digest, manifest.artifact.sha256) for digest, manifest in manifests]
    for digest, artifact in held:
        if digest in found:
            found.setdefault(artifact, found[digest])
    return found | {d: found[artifact] for d, artifact in held if d not in found and artifact in found}


def forebears(artifact: str, above: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """An artifact and everything it was made from, at any depth, each once, nearest first.

    Args:
        artifact: Its digest.
        above: Says what a digest was made from.
    """
    seen, level = {artifact}, [artifact]
    while level:
        yield from level
        following = dict.fromkeys(p for current in level for p in above(current) if p not in seen)
        seen.update(following)
        level = list(following)
