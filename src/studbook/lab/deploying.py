"""From a channel to a folder that a model is run from by what knows its format: its files, a check, and a link that moves.

Nothing enters the ledger: the move that is deployed is on record already, and what a host runs is for the host to say.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from studbook.errors import DigestDiffers, OutOfOrder, OutsideAllowlist, ParentsDoNotFit, StudbookError, UsageError
from studbook.lab.deployment_folder import LABEL, DeploymentFolder, Head, Label, Placed, opened
from studbook.lab.desk import Desk
from studbook.lab.export import model_files, provenance
from studbook.lab.hooks import Hook, check_hook, run_hook
from studbook.lab.papers import RECORDS, Papers, free_name, write_papers
from studbook.lab.rollbacks import hindrance
from studbook.lab.routing import kept_inside
from studbook.lab.sources import licence_of
from studbook.lab.trials import require_going
from studbook.policy import inherited_licence
from studbook.records import AdapterSource, RollbackRecord, SourceManifest
from studbook.release import ChannelState

__all__ = ["KEEP", "Deployed", "Wanted", "deploy", "follow"]

KEEP = 3


class Wanted(NamedTuple):
    """How a channel shall be deployed.

    Attributes:
        hook: The program that is shown a release before it is put in force; None for none.
        keep: How many releases stay in the folder, at least 1.
        gguf: Write the model as GGUF too.
        glance: Believe the release in force whole without reading it.
    """

    hook: Hook | None = None
    keep: int = KEEP
    gguf: bool = False
    glance: bool = False


class Deployed(Struct, frozen=True):
    """What a folder holds now.

    Attributes:
        channel: The channel.
        artifact: SHA-256 of the model.
        name: What people call it.
        folder: The folder.
        release: Name of the release in force.
        outcome: ``deployed``, or ``unchanged`` where it was in force already.
        said: The last lines of what the hook said.
        removed: Releases that were removed.
    """

    channel: str
    artifact: str
    name: str
    folder: str
    release: str
    outcome: str
    said: tuple[str, ...]
    removed: tuple[str, ...]


def deploy(desk: Desk, channel: str, folder: Path, wanted: Wanted) -> Deployed:
    """Bring a folder to what a channel points at: write the release, show it to the hook, move the link.

    A crash at any point leaves the link at a whole release, the old or the new one; the next run clears up.

    Args:
        desk: The lab; reading is enough.
        channel: The channel.
        folder: A new or empty folder outside the lab, or one that this channel was deployed to.
        wanted: How.

    Raises:
        UsageError: if there is no such channel, the hook is no program, or something else lies in the folder.
        OutOfOrder: if the channel is empty (``deploy.empty``) or may not stand where it does (``deploy.revoked``,
            ``deploy.admitted``), everything is stopped, or the hook said no (``deploy.hook``).
        OutsideAllowlist: if an offline operator made the model; ``deploy.offline``.
        ParentsDoNotFit: if no licence is on record, or the policy in force does not list it; ``parents.licence``.
        OverBudget: if the hook took too long; ``deploy.hook``.
        DigestDiffers: if bytes of the store are gone or changed (``deploy.missing``, ``deploy.damaged``), those of the
            release in force are (``deploy.changed``), or the folder knows a move that this lab does not
            (``deploy.fork``).
        Busy: if another process deploys to the folder.
    """
    if wanted.hook is not None:
        check_hook(wanted.hook)
    if wanted.keep < 1:
        raise UsageError("at least the release in force stays", where="--keep", advice="Give 1 or more.")
    state = _standing(desk, channel)
    label = _label(desk, channel, state, wanted)
    said: tuple[str, ...] = ()
    with opened(folder, desk.workspace.path) as place:
        _check_same(desk, label, place)
        name, before = label.release, place.current()
        if name != before or not wanted.glance:
            _lay(desk, place, label, fresh=name != before)
        if name != before:
            if wanted.hook is not None:
                said = _shown(place, name, wanted.hook)
            place.point(name)
        removed = place.prune(wanted.keep)
    outcome = "unchanged" if name == before else "deployed"
    return Deployed(channel, label.model, label.name, str(folder), name, outcome, said, removed)


def follow(
    look: Callable[[], Deployed],
    seconds: float,
    shown: Callable[[Deployed], None],
    told: Callable[[StudbookError], None],
) -> None:
    """Look at a channel again and again, and bring its folder after it on every move; never returns.

    What cannot be deployed now is told once and tried again at every look: what was in force still is.

    Args:
        look: Opens the lab, deploys, and closes it: nobody is kept out between two looks.
        seconds: How long to wait between them.
        shown: Told of every release that was put in force, and of what the first look found.
        told: Told of every error that is not the one before.

    Raises:
        UsageError: what `look` raises of that kind: no later look would mend it.
    """
    last: object = None
    while True:
        try:
            found = look()
        except UsageError:
            raise
        except StudbookError as error:
            if last != str(error):
                told(error)
            last = str(error)
        else:
            if found.outcome == "deployed" or last is None:
                shown(found)
            last = found.release
        time.sleep(seconds)


def _standing(desk: Desk, channel: str) -> ChannelState:
    """The state of a channel, if it may stand there and go outside."""
    channels = desk.channels()
    if channel not in channels:
        raise UsageError(f"no channel {channel!r}", advice=f"Channels: {', '.join(sorted(channels))}.")
    state = channels[channel]
    if state.artifact is None or state.record is None:
        advice = f"Release a model first: studbook release NAME --to {channel}"
        raise OutOfOrder("points at nothing", where=channel, advice=advice, reason="deploy.empty")
    name = desk.name_of(state.artifact)
    entry = desk.workspace.entry(state.record)
    if entry is None or entry.record_kind != RollbackRecord.kind():
        # A way back stays open while everything else is stopped.
        require_going(desk)
    if found := hindrance(desk, state.back):
        rule = found.reason.partition(".")[2]
        kind = DigestDiffers if rule in ("missing", "damaged") else OutOfOrder
        advice = f"Roll the channel back: studbook rollback {channel}. The deployment stays as it is until then."
        raise kind(f"{name} {found.words}", where=channel, advice=advice, reason=f"deploy.{rule}")
    if why := kept_inside(desk, state.artifact):
        raise OutsideAllowlist(f"{name} {why}", where=channel, reason="deploy.offline")
    _check_licences(desk, (state.artifact, *state.deployment.stack))
    return state


def _check_licences(desk: Desk, artifacts: tuple[str, ...]) -> None:
    """Every one is on record, and the policy's table lists them all and lets them go together."""
    licences = []
    for artifact in artifacts:
        if (licence := licence_of(desk, artifact)) is None:
            advice = "Register it again with its licence: studbook register PATH --licence SPDX"
            where = desk.name_of(artifact)
            raise ParentsDoNotFit("has no licence on record", where=where, advice=advice, reason="parents.licence")
        licences.append(licence)
    inherited_licence(desk.policy[1], licences)


def _label(desk: Desk, channel: str, state: ChannelState, wanted: Wanted) -> Label:
    """What the release of a state is; its files are not gathered yet."""
    assert state.artifact is not None
    assert state.record is not None
    if wanted.gguf and state.deployment.stack:
        text = "has adapter packages on its model, and GGUF of the model alone would be another one"
        raise UsageError(text, where=channel, advice="Leave --gguf out.", reason="deploy.stack")
    ledger, position = desk.workspace.ledger, len(desk.entries())
    return Label(
        lab=desk.workspace.root.lab,
        channel=channel,
        model=state.artifact,
        name=desk.name_of(state.artifact),
        licence=licence_of(desk, state.artifact),
        deployment=state.deployment,
        gguf=wanted.gguf,
        record=state.record,
        ledger=Head(entries=position, root=ledger.tree.root(position).hex()),
        files=(),
    )


def _files(desk: Desk, label: Label) -> dict[str, Path | bytes]:
    """What lies in a release: path -> its bytes, or a file of the store."""
    model = model_files(desk, label.model)
    if LABEL.casefold() in {path.casefold() for path in model}:
        advice = "Register it again without that file."
        raise UsageError(f"has a file {LABEL} of its own", where=label.name, advice=advice, reason="usage.name")
    files: dict[str, Path | bytes] = {**model, **_stack(desk, label.deployment.stack)}
    documents = write_papers(desk, label.model, model, Papers(gguf=label.gguf))
    return files | {free_name(RECORDS, files): provenance(desk, label.model)} | documents


def _placed(path: str, content: Path | bytes) -> Placed:
    if isinstance(content, bytes):
        return Placed(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return Placed(path=path, sha256=content.name, size=content.stat().st_size)


def _stack(desk: Desk, stack: tuple[str, ...]) -> dict[str, Path | bytes]:
    """The adapter packages on a model, numbered in their order."""
    kinds = {
        m.source.adapter_sha256: m.source.package.lower()
        for _, m in desk.all(SourceManifest)
        if isinstance(m.source, AdapterSource)
    }
    named = [(f"{n}-{desk.name_of(d).replace('/', '-')}.{kinds.get(d, 'adp')}", d) for n, d in enumerate(stack, 1)]
    return {f"adapters/{name}": desk.workspace.blob_path(digest) for name, digest in named}


def _check_same(desk: Desk, label: Label, place: DeploymentFolder) -> None:
    """Refuse a folder that another channel or lab deploys to, or this lab before it was put back to an older copy."""
    for held in filter(None, place.releases().values()):
        if (held.lab, held.channel) != (label.lab, label.channel):
            other = f"{held.channel} of {'this' if held.lab == label.lab else 'another'} lab is deployed to it"
            advice = "Every channel has a folder of its own. Name another one."
            raise UsageError(other, where=place.path, advice=advice, reason="usage.folder")
        if held.record not in desk.workspace:
            text = f"holds release {held.release} of move {held.record[:16]}..., which this lab never entered"
            advice = "The lab was put back to an older copy, or went on twice. Restore the newest copy of the lab."
            raise DigestDiffers(text, where=place.path, advice=advice, reason="deploy.fork")


def _lay(desk: Desk, place: DeploymentFolder, label: Label, *, fresh: bool) -> None:
    """See to it that a release lies there whole."""
    if place.whole(label.release):
        return
    if not fresh:
        advice = f"Find out who changed it. To have it written anew, remove {place.path / 'current'} and deploy again."
        text = "is in force, and is not what was deployed"
        raise DigestDiffers(text, where=place.folder(label.release), advice=advice, reason="deploy.changed")
    files = _files(desk, label)
    placed = tuple(_placed(path, files[path]) for path in sorted(files))
    place.write(replace(label, files=placed), files, desk.progress)


def _shown(place: DeploymentFolder, name: str, hook: Hook) -> tuple[str, ...]:
    """Show a release to the hook; what it said."""
    said = run_hook(hook, place.folder(name))
    if not place.whole(name):
        advice = "A release is read only: have the hook write elsewhere."
        raise DigestDiffers("was changed by the hook", where=place.folder(name), advice=advice, reason="deploy.changed")
    return said
