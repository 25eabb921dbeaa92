"""What every facet of the lab works at: the opened workspace, the policy in force, names, and the state of channels."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from studbook.environment import environment_class
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError, UsageError
from studbook.lab.descent import forebears, made_from, revoked_digests
from studbook.lab.progress import Progress, Silent
from studbook.models.checkpoint import open_checkpoint, parse_listing
from studbook.models.slm import Slm, parse_slm
from studbook.records import (
    AdapterSource,
    CandidateManifest,
    ChampionPromotion,
    CheckpointSource,
    Header,
    LedgerEntry,
    LineageTemplate,
    LoraSource,
    ModelSource,
    Policy,
    Record,
    ReleaseRecord,
    Revocation,
    RollbackRecord,
    RollbackSet,
    Scorecard,
    SourceManifest,
    SuitesLock,
    Tombstone,
)
from studbook.release import ChannelState, MoveFault, channel_history, channel_state, move_faults, ways_back
from studbook.sandbox import Limits, run_worker
from studbook.seal import KeyRing, Passphrase
from studbook.workspace import Workspace

__all__ = [
    "Desk",
    "default_keys",
    "environment_class",
    "make_header",
]


R = TypeVar("R", bound=Record)
# Per-item results of the largest suites, as JSON.
_ANSWER_BYTES = 256 << 20


def make_header(owner: str) -> Header:
    """The header of every record this process writes."""
    return Header(source="studbook", version=version("studbook"), environment=environment_class(), owner=owner)


def default_keys(lab: Path) -> Path:
    """Where a lab's keys lie unless said otherwise: a folder beside it, never inside."""
    lab = lab.absolute()
    return lab.with_name(lab.name + ".keys")


class Desk:
    """An opened lab with the look-ups that every step needs.

    Args:
        path: The lab's folder.
        keys: Folder of private keys; beside the lab by default.
        writer: Take the lock and repair what a crash left.
        still: As a reader, hold a shared lock, so that nothing moves while everything is looked at.
        progress: Where long steps are shown.
        passphrase: Asked for the passphrase of an encrypted key file.
        witness: Folder of the lab's witness; beside the lab by default.
        older: Let a writer open a lab of an older format, to upgrade it.

    Raises:
        StudbookError: any of its kinds, if the lab does not open.
    """

    def __init__(
        self,
        path: Path,
        keys: Path | None = None,
        *,
        writer: bool = True,
        still: bool = False,
        progress: Progress | None = None,
        passphrase: Passphrase | None = None,
        witness: Path | None = None,
        older: bool = False,
    ) -> None:
        self.progress: Progress = progress or Silent()
        ring = KeyRing(keys or default_keys(path), passphrase)
        self.workspace = Workspace(path, ring, writer=writer, still=still, witness=witness, older=older)
        self.position: int | None = None

    @property
    def header(self) -> Header:
        """The header of what is written now.

        It counts the keys that were revoked, for what a revocation voided stays in the ledger, and the same work done
        again has to be another record.
        """
        made = make_header(self.workspace.root.header.owner)
        revoked = {r.subject.digest for r in self.workspace.authority().revocations if r.subject.type == "key"}
        if not revoked:
            return made
        return replace(made, environment=f"{made.environment} revoked-keys-{len(revoked)}")

    def at(self, position: int) -> Desk:
        """The same lab as it was before the ledger entry with this sequence number; only for reading."""
        earlier = copy(self)
        earlier.position = position
        return earlier

    def as_seen(self, position: int) -> Desk:
        """The same lab for somebody who knows of no key revocation that entered at or after a position; only for reading."""
        earlier = copy(self)
        earlier.workspace = self.workspace.as_seen(position)
        return earlier

    def entries(self) -> list[LedgerEntry]:
        """The ledger's entries, oldest first."""
        return self.workspace.ledger.entries[: self.position]

    def all(self, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Digest and record of every record of a kind, oldest first; what only a stolen key signed is left out."""
        wanted = kind.kind()
        for entry in self.entries():
            if entry.record_kind == wanted and not self.workspace.void(entry):
                yield entry.record, self.workspace.get(entry.record, kind)

    @property
    def policy(self) -> tuple[str, Policy]:
        """Digest and record of the policy in force.

        Raises:
            OutOfOrder: if the lab has none.
        """
        found = list(self.all(Policy))
        if not found:
            raise OutOfOrder(
                "this lab has no policy in force",
                where="policy",
                advice="Every one was signed with a key that was revoked since. Sign the next: studbook policy sign FILE",
                reason="order.policy",
            )
        return found[-1]

    @property
    def suites_lock(self) -> tuple[str, SuitesLock]:
        """Digest and record of the suites in force.

        Raises:
            OutOfOrder: if no suite is frozen.
        """
        found = list(self.all(SuitesLock))
        if not found:
            raise OutOfOrder("no suite is frozen", advice="Freeze suites first: studbook suite freeze FOLDER ...")
        return found[-1]

    def sources(self) -> dict[str, tuple[str, SourceManifest]]:
        """Every registered SLM1 model by artifact digest: digest of its newest manifest, and the manifest."""
        return {a: found for a, found in self.registered().items() if isinstance(found[1].source, ModelSource)}

    def registered(self) -> dict[str, tuple[str, SourceManifest]]:
        """The same for everything that can be bred from: models, checkpoints, LoRA folders and adapter packages."""
        kinds = (ModelSource, CheckpointSource, LoraSource, AdapterSource)
        return {m.artifact.sha256: (d, m) for d, m in self.all(SourceManifest) if isinstance(m.source, kinds)}

    def candidates(self) -> list[tuple[str, CandidateManifest]]:
        """Every candidate manifest with its digest, oldest first."""
        return list(self.all(CandidateManifest))

    def manifests(self) -> Iterator[tuple[str, SourceManifest | CandidateManifest]]:
        """Every manifest of a source or a candidate with its digest, oldest first."""
        kinds = {SourceManifest.kind(), CandidateManifest.kind()}
        for entry in self.entries():
            if entry.record_kind in kinds and not self.workspace.void(entry):
                source = entry.record_kind == SourceManifest.kind()
                get, digest = self.workspace.get, entry.record
                yield digest, get(digest, SourceManifest) if source else get(digest, CandidateManifest)

    def channels(self) -> dict[str, ChannelState]:
        """What every channel points at, replayed from the ledger."""
        return channel_state(self._moves())

    def history(self, channel: str) -> list[ChannelState]:
        """Every state a channel was in, oldest first."""
        return channel_history(self._moves(), channel)

    def ways_back(self, channel: str) -> tuple[RollbackSet, ...]:
        """Every state of a channel that a rollback may restore, newest first; see `studbook.release.ways_back`."""
        return ways_back(self._moves(), channel)

    def champion(self) -> str:
        """Digest of the champion.

        Raises:
            OutOfOrder: if there is none.
        """
        artifact = self.channels()["champion"].artifact
        if artifact is None:
            raise OutOfOrder(
                "there is no champion yet",
                advice="Install the deployed model: studbook release MODEL --to champion --as NAME",
            )
        return artifact

    def model(self, artifact: str) -> Slm:
        """A model of the store, parsed from bytes that were hashed as they were read.

        Raises:
            DigestDiffers: if its bytes are gone or not those that were stored.
            UsageError: if it is an adapter package, a checkpoint or a LoRA folder.
        """
        held = self.registered().get(artifact)
        if held is not None and isinstance(held[1].source, AdapterSource):
            raise UsageError(
                "is an adapter package, not a model",
                where=held[1].name,
                advice="Fuse it into its base first: studbook breed CLUSTER with the operator adapter-fuse/1.",
                reason="usage.adapter",
            )
        path = self.workspace.blob_path(artifact)
        if not path.exists():
            raise DigestDiffers(
                f"the bytes of {self.name_of(artifact)} are gone",
                where=path,
                advice=f"Bred here: studbook reproduce {artifact[:12]} --restore. A source: register its file again.",
                reason="digest.missing",
            )
        data = self.workspace.blob(artifact)
        if data[:1] == b"{":
            raise UsageError(
                f"{self.name_of(artifact)} is a checkpoint or LoRA folder, and this needs an SLM1 model",
                advice="Checkpoints are bred, shown, compared with `diff`, and exported.",
                reason="usage.checkpoint",
            )
        return parse_slm(data, where=f"model {artifact[:16]}")

    def name_of(self, artifact: str) -> str:
        """What people call an artifact: its registered or candidate name, or the start of its digest."""
        for found, (_, manifest) in self.registered().items():
            if found == artifact or getattr(manifest.source, "adapter_sha256", None) == artifact:
                return manifest.name
        for _, candidate in self.candidates():
            if candidate.artifact.sha256 == artifact:
                return candidate.name
        return artifact[:12]

    def find_model(self, name: str) -> str:
        """The artifact digest of a model by name, channel, digest or unique start of a digest.

        Raises:
            UsageError: if nothing, or more than one thing, is called that.
        """
        channels = self.channels()
        if name in channels and (held := channels[name].artifact):
            return held
        named = {a for a, (_, m) in self.registered().items() if m.name == name}
        named |= {c.artifact.sha256 for _, c in self.candidates() if name in (c.name, c.artifact.sha256)}
        if not named and re.fullmatch(r"[0-9a-f]{8,64}", name):
            known = {*self.registered(), *(c.artifact.sha256 for _, c in self.candidates())}
            named = {a for a in known if a.startswith(name)}
        if len(named) == 1:
            return named.pop()
        what = "is not unique; give more of its digest" if named else "is not the name of a model here"
        raise UsageError(f"{name!r} {what}", reason="usage.name")

    def scorecard(self, digest: str) -> Scorecard:
        """A scorecard by its digest."""
        return self.workspace.get(digest, Scorecard)

    def revoked(self, artifact: str) -> str:
        """Why an artifact counts no longer, itself or one it was made from, data included; empty where it does."""
        gone = self.gone()
        held: dict[str, list[Record]] = {}
        for _, manifest in self.manifests() if gone else ():
            held.setdefault(manifest.artifact.sha256, []).append(manifest)

        def above(digest: str) -> list[str]:
            made = (made_from(m, lambda d: self.workspace.get(d, LineageTemplate)) for m in held.get(digest, ()))
            return [parent for parents in made for parent in parents]

        bad = next((d for d in forebears(artifact, above) if d in gone), None) if gone else None
        if bad is None or bad == artifact:
            return gone[bad] if bad else ""
        return f"descends from {self.called(bad)}, which {gone[bad]}"

    def gone(self) -> dict[str, str]:
        """Artifacts, data manifests and records that were revoked or withdrawn themselves: digest -> why."""
        revocations, stones = (r for _, r in self.all(Revocation)), (s for _, s in self.all(Tombstone))
        return revoked_digests(revocations, stones, self.manifests())

    def called(self, digest: str) -> str:
        """What people call a model or a data manifest."""
        entry = self.workspace.entry(digest)
        if entry is not None and entry.record_kind == SourceManifest.kind() and not self.workspace.void(entry):
            return self.workspace.get(digest, SourceManifest).name
        return self.name_of(digest)

    def taken_back(self) -> frozenset[str]:
        """Digests of the records, data manifests included, that a person revoked one by one."""
        types = ("record", "data")
        return frozenset(r.subject.digest for _, r in self.all(Revocation) if r.subject.type in types)

    def unrevoked(self, kind: type[R]) -> list[tuple[str, R]]:
        """The same as `all` without what was revoked one by one."""
        gone = self.taken_back()
        return [(digest, record) for digest, record in self.all(kind) if digest not in gone]

    def founders_of(self, artifact: str) -> tuple[str, ...]:
        """Digests of every source an artifact descends from, itself where it is one: it was here before it was bred."""
        bred: dict[str, bool] = {}
        for _, manifest in self.manifests():
            bred.setdefault(manifest.artifact.sha256, isinstance(manifest, CandidateManifest))
        return tuple(sorted(a for a in self.ancestry(artifact) if not bred.get(a)))

    def ancestry(self, artifact: str) -> tuple[str, ...]:
        """Digests of an artifact and everything it descends from, each once, itself first."""
        bred = {c.artifact.sha256: c for _, c in self.candidates()}
        found: dict[str, None] = {}
        pending = [artifact]
        while pending:
            current = pending.pop()
            if current in found:
                continue
            found[current] = None
            if current in bred:
                template = self.workspace.get(bred[current].template, LineageTemplate)
                pending += [template.base, *template.parents]
        return tuple(found)

    def trained(self, artifact: str) -> bool:
        """Whether a trained-source manifest names every tensor of a registered source."""
        found = self.sources().get(artifact)
        source = found[1].source if found else None
        return isinstance(source, ModelSource) and source.trained_manifest is not None

    def sound(self, artifact: str) -> bool:
        """Whether the lab's own reader accepts an artifact's bytes: a container's, or every file of a checkpoint."""
        try:
            data = self.workspace.blob(artifact)
            if data[:4] == b"SLM1":
                parse_slm(data, where=f"model {artifact[:16]}")
                return True
            listed = parse_listing(data, f"files of {artifact[:16]}")
            open_checkpoint({entry.path: self.workspace.blob_path(entry.sha256) for entry in listed}, artifact).close()
        except (StudbookError, OSError):
            return False
        return True

    def move_faults(self) -> dict[str, MoveFault]:
        """The moves of channels that moved nothing because they do not follow; see `studbook.release.move_faults`."""
        return move_faults(self._moves())

    def void_moves(self) -> frozenset[str]:
        """Digests of the moves of channels that moved nothing: void, or not following from the moves before them."""
        moves = self._moves()
        return frozenset((*(digest for digest, move in moves if move is None), *move_faults(moves)))

    def _moves(self) -> list[tuple[str, Record | None]]:
        kinds: dict[str, type[Record]] = {k.kind(): k for k in (ReleaseRecord, ChampionPromotion, RollbackRecord)}
        moves = [e for e in self.entries() if e.record_kind in kinds]
        get, void = self.workspace.get, self.workspace.void
        return [(e.record, None if void(e) else get(e.record, kinds[e.record_kind])) for e in moves]

    def worker_limits(self) -> Limits:
        """What a worker that measures may use, from the policy's budget."""
        policy = self.policy[1]
        return Limits(
            seconds=policy.budget.worker_seconds,
            memory_bytes=policy.budget.worker_bytes,
            file_bytes=_ANSWER_BYTES,
            demands=policy.minimum_isolation,
        )

    def require_isolation(self) -> None:
        """Start a worker that does nothing, before others open anything foreign.

        Raises:
            OutsideAllowlist: if this machine does not offer a measure that the policy demands.
        """
        with tempfile.TemporaryDirectory() as folder:
            run_worker("studbook.lab.doctor_worker", {}, Path(folder), self.worker_limits())

    def close(self) -> None:
        """Release the lab."""
        self.workspace.close()
