"""Whoever hands out a publication lies, or somebody stole a key of the lab: what a machine without the lab must refuse.

Each lie is told to somebody who knows nothing but the root, or who pulled before; what lay there before still lies there.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer_fixtures import (
    BACK,
    BASE,
    FRESH,
    PROMOTED,
    ROTATED,
    Shop,
    answering,
    copied,
    files_of,
    files_read,
    refused,
    serving,
)
from lab_fixtures import PARENTS, PERSON, Place, rewrite
from studbook.errors import OverBudget, StudbookError
from studbook.fetch import HttpMirror
from studbook.lab import Lab, publish, pull
from studbook.lab.desk import Desk
from studbook.lab.mirror import Reader
from studbook.lab.pull import Request
from studbook.records import (
    KINDS,
    AdmissionRecord,
    Blob,
    ChampionPromotion,
    LedgerEntry,
    ParentApproval,
    PromotionTemplate,
    PublishedChannel,
    Record,
    ReleaseRecord,
    RollbackSet,
    Rung,
    ViabilityDecision,
    canonical,
    digest,
    replace,
)
from studbook.release import ALONE, admit, enter
from studbook.seal import SigningKey, peek, seal


def in_days(days: int) -> str:
    """The moment some days from now, as records have it."""
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


UNTIL = in_days(300)
SNAPSHOT = "process/release/snapshot"


@pytest.fixture
def lie(shop: Shop, tmp_path: Path) -> Path:
    """A copy of the newest publication, to change."""
    return copied(shop.folders[FRESH], tmp_path / "lie")


@pytest.fixture
def thief(shop: Shop, tmp_path: Path) -> Place:
    """A copy of the lab with every key of it."""
    return shop.place.copy(tmp_path / "thief")


def key_of(desk: Desk, name: str) -> SigningKey:
    """A key of the ring by its path, whether it is listed or not."""
    public = desk.workspace.keys.public_of(name)
    assert public is not None
    return desk.workspace.keys.held({public})[0]


def slip_in(desk: Desk, record: Record, key: str, audit: str = "process/audit/audit", entered: str = "") -> str:
    """Enter a record signed by any key at all, as whoever stole the audit key can."""
    work, envelope = desk.workspace, seal(record, key_of(desk, key))
    ledger = work.ledger
    entry = LedgerEntry(
        header=desk.header,
        sequence=len(ledger.entries),
        previous=ledger.head,
        time=entered or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        host="elsewhere",
        record_zone=record.zone,
        record_kind=record.kind(),
        record=digest(record),
        envelope=Blob(sha256=sha256(envelope).hexdigest(), size=len(envelope)),
        blobs=(),
    )
    path = work.record_path(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(envelope)
    ledger.append(entry, key_of(desk, audit))
    ledger.acknowledge(key_of(desk, audit))
    work._index(entry)
    return digest(record)


def forged(
    desk: Desk,
    folder: Path,
    key: str = SNAPSHOT,
    evidence: tuple[str, ...] | None = None,
    entered: str = "",
    **fields: Any,
) -> Path:
    """A publication of a snapshot with some fields of the thief's, signed by a key, with evidence of the thief's."""
    record = replace(publish.draw(desk, UNTIL), **fields)
    slip_in(desk, record, key, entered=entered)
    with pytest.MonkeyPatch.context() as patch:
        if evidence is not None:
            patch.setattr(publish, "carried", lambda _held, _get: evidence)
        publish.write(folder, publish.gather(desk, record))
    return folder


def nothing_came(dest: Path) -> bool:
    """Whether no artifact, whole or half, lies in a folder under any name."""
    return not list(dest.rglob("*.slm")) and not list(dest.rglob("*.partial"))


def both_refuse(shop: Shop, folder: Path, dest: Path) -> list[StudbookError]:
    """Pull both channels from a lie into new folders; the refusals, of which there must be one."""
    errors = []
    for channel in ("champion", "shadow"):
        try:
            shop.pull(dest / channel, folder, channel)
        except StudbookError as error:
            assert error.advice and nothing_came(dest / channel)
            errors.append(error)
    assert errors
    return errors


# -- old, frozen, too new ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newer", "older"), [(PROMOTED, BASE), (ROTATED, PROMOTED), (BACK, ROTATED), (BACK, BASE), (FRESH, BACK)]
)
def test_rollback_to_an_older_snapshot(shop: Shop, tmp_path: Path, newer: int, older: int) -> None:
    shop.pull(tmp_path, newer)
    before = files_of(tmp_path)
    with refused("pull.rollback"):
        shop.pull(tmp_path, older)
    assert files_of(tmp_path) == before


def test_rollback_after_a_download_that_failed(shop: Shop, tmp_path: Path, lie: Path) -> None:
    next((lie / "artifacts").glob(shop.base)).unlink()
    with refused("fetch.missing"):
        shop.pull(tmp_path / "here", lie)
    with refused("pull.rollback"):
        shop.pull(tmp_path / "here", PROMOTED)


def later(monkeypatch: pytest.MonkeyPatch, **ahead: int) -> None:
    """Let time pass."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(**ahead)

    monkeypatch.setattr(pull, "datetime", Later)


def test_freeze_at_a_snapshot_that_ended(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pull(tmp_path, BACK)
    later(monkeypatch, days=publish.DAYS, seconds=5)
    for folder in (tmp_path, tmp_path / "new"):
        with refused("pull.expired"):
            shop.pull(folder, BACK)


@pytest.mark.parametrize(
    ("expires", "entered"),
    [
        ("2099-01-01T00:00:00Z", ""),
        (in_days(600), in_days(300).replace("Z", ".000000Z")),
        ("9999-99-99T00:00:00Z", ""),
        (UNTIL, f"{UNTIL[:8]}32T00:00:00.000000Z"),
    ],
    ids=["far", "far-entered-to-come", "no-day", "entered-on-no-day"],
)
def test_freeze_at_a_snapshot_that_stolen_keys_let_never_end(
    shop: Shop, thief: Place, tmp_path: Path, expires: str, entered: str
) -> None:
    with thief.open() as lab:
        folder = forged(lab.desk, tmp_path / "live", expires=expires, entered=entered)
    with refused("pull.expires"):
        shop.pull(tmp_path / "to", folder)


def test_freeze_at_a_root_that_ended(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, days=800)
    with refused("authority.expired"):
        shop.pull(tmp_path, BACK)


@pytest.mark.parametrize("version", [2**53 - 1, 1000])
def test_fast_forward_to_a_version_that_the_ledger_has_no_room_for(
    shop: Shop, thief: Place, tmp_path: Path, version: int
) -> None:
    with thief.open() as lab:
        folder = forged(lab.desk, tmp_path / "live", snapshot_version=version)
    with refused("pull.fast-forward"):
        shop.pull(tmp_path / "new", folder)


def test_fast_forward_by_more_than_happened_since(shop: Shop, thief: Place, tmp_path: Path) -> None:
    shop.pull(tmp_path / "here", FRESH)
    with thief.open() as lab:
        folder = forged(lab.desk, tmp_path / "live", snapshot_version=7)
    with refused("pull.fast-forward"):
        shop.pull(tmp_path / "here", folder)


def test_fast_forward_is_recovered_from_once_the_keys_are_replaced(shop: Shop, thief: Place, tmp_path: Path) -> None:
    honest, here = shop.place.copy(tmp_path / "honest"), tmp_path / "here"
    with thief.open() as lab:
        for number in range(6, 10):
            taken = forged(lab.desk, tmp_path / "taken", snapshot_version=number)
    assert shop.pull(here, taken).version == 9
    with honest.open() as lab:
        lab.publish(tmp_path / "live")
        with refused("pull.rollback"):
            shop.pull(here, tmp_path / "live")
        lab.keys.rotate(PERSON, SNAPSHOT)
        lab.publish(tmp_path / "live")
        with refused("pull.rollback"):
            shop.pull(here, tmp_path / "live")
        lab.keys.rotate(PERSON, "process/audit/audit")
        lab.publish(tmp_path / "live")
    found = shop.pull(here, tmp_path / "live")
    assert found.version == 8 and found.outcome == "refreshed"
    assert any("given up" in note for note in found.notes) and any("counted anew" in note for note in found.notes)
    with refused("pull.rollback"):
        shop.pull(here, taken)


# -- what does not belong together ---------------------------------------------------------------------------------


def test_mix_and_match_of_two_snapshots(shop: Shop, tmp_path: Path, lie: Path) -> None:
    old, new = (json.loads((shop.folders[s] / "snapshot.json").read_bytes()) for s in (BACK, FRESH))
    # Every file of both lies there.
    for name, data in files_of(shop.folders[BACK]).items():
        if not (lie / name).exists():
            (lie / name).parent.mkdir(parents=True, exist_ok=True)
            (lie / name).write_bytes(data)
    for chosen in itertools.product((0, 1), repeat=3):
        mixed = {field: (old, new)[pick][field] for field, pick in zip(sorted(new), chosen, strict=True)}
        (lie / "snapshot.json").write_bytes(canonical(mixed))
        dest = tmp_path / "".join(map(str, chosen))
        if len(set(chosen)) == 1:
            assert shop.pull(dest, lie).artifact == shop.base
        else:
            assert both_refuse(shop, lie, dest)[0].reason in ("pull.mixed", "ledger.origin", "pull.tree")


def test_mix_and_match_of_files_under_each_others_names(shop: Shop, tmp_path: Path) -> None:
    folder = shop.folders[FRESH]
    for part in ("records/*.json", "records/*.line", "roots/*.json", "roots/*.line", "artifacts/*"):
        names = sorted(p.relative_to(folder) for p in folder.glob(part))
        assert len(names) > 1
        for number, (one, other) in enumerate(itertools.pairwise([*names, names[0]])):
            lie = copied(folder, tmp_path / f"{part[:3]}{part[-1]}-{number}")
            (lie / one).write_bytes((folder / other).read_bytes())
            both_refuse(shop, lie, tmp_path / f"to-{lie.name}")


def test_a_promotion_of_another_artifact(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        true = publish.draw(lab.desk, UNTIL).channels
        champion = next(c for c in true if c.channel == "champion")
        shadow = next(c for c in true if c.channel == "shadow")
        evidence = (champion.record, shadow.record)
        for number, held in enumerate(
            (
                PublishedChannel(channel="champion", artifact=shadow.artifact, record=champion.record, lineage=()),
                PublishedChannel(channel="champion", artifact=shadow.artifact, record=shadow.record, lineage=()),
                PublishedChannel(channel="champion", artifact=champion.artifact, record=evidence[1], lineage=()),
            )
        ):
            folder = forged(lab.desk, tmp_path / f"live-{number}", evidence=evidence, channels=(held,))
            with refused("pull.evidence"):
                shop.pull(tmp_path / f"to-{number}", folder)
            assert nothing_came(tmp_path / f"to-{number}")


def test_papers_for_shadow_that_a_stolen_key_signed_without_a_decision(
    shop: Shop, thief: Place, tmp_path: Path
) -> None:
    with thief.open() as lab:
        desk = lab.desk
        true = {c.channel: c for c in publish.draw(desk, UNTIL).channels}
        decision, chosen = next(desk.all(ViabilityDecision))
        assert chosen.chosen == shop.child
        template = PromotionTemplate(
            header=desk.header,
            stage="shadow",
            artifact=shop.base,
            manifest=chosen.standings[0].manifest,
            decision=decision,
            gates=(),
        )
        named = desk.workspace.commit(template)
        admission = desk.workspace.commit(admit(desk.header, template, named, Rung.SMOKE))
        admitted = desk.workspace.get(admission, AdmissionRecord)
        release = enter(desk.header, "shadow", admitted, admission, ALONE, desk.channels()["shadow"])
        move = desk.workspace.commit(release)
        held = PublishedChannel(channel="shadow", artifact=true["champion"].artifact, record=move, lineage=())
        evidence = (move, admission, named, decision)
        # The lab itself could not draw the lineage of such a move.
        desk.channels = dict  # type: ignore[method-assign]
        folder = forged(desk, tmp_path / "live", evidence=evidence, channels=(held,))
    with refused("order.decision"):
        shop.pull(tmp_path / "to", folder, "shadow")


def test_an_admission_that_entered_before_its_template(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        desk, key = lab.desk, "process/release/shadow"
        shadow = next(c for c in publish.draw(desk, UNTIL).channels if c.channel == "shadow")
        first = desk.workspace.get(shadow.record, ReleaseRecord)
        true = desk.workspace.get(first.admission, AdmissionRecord)
        template = replace(desk.workspace.get(true.template, PromotionTemplate), gates=())
        admission = admit(desk.header, template, digest(template), true.claim)
        papers = publish.carried(shadow, lambda d: desk.workspace.get(d, KINDS[desk.workspace.entry(d).record_kind]))
        early = slip_in(desk, admission, key), slip_in(desk, template, key)
        move = enter(desk.header, "shadow", admission, early[0], ALONE, desk.channels()["shadow"])
        move = slip_in(desk, move, key)
        held = msgspec.structs.replace(shadow, record=move)
        evidence = (move, *early, *papers)
        folder = forged(desk, tmp_path / "live", evidence=evidence, channels=(held,))
    with refused("pull.evidence"):
        shop.pull(tmp_path / "to", folder, "shadow")


def test_an_admission_of_another_artifact(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        desk, key = lab.desk, "process/release/shadow"
        shadow = next(c for c in publish.draw(desk, UNTIL).channels if c.channel == "shadow")
        first = desk.workspace.get(shadow.record, ReleaseRecord)
        other = replace(desk.workspace.get(first.admission, AdmissionRecord), artifact=shop.base)
        admission = slip_in(desk, other, key)
        move = slip_in(desk, replace(first, admission=admission), key)
        # The lab itself could not replay such a move.
        desk.channels = dict  # type: ignore[method-assign]
        held = PublishedChannel(channel="shadow", artifact=shadow.artifact, record=move, lineage=())
        folder = forged(desk, tmp_path / "live", evidence=(move, admission), channels=(held,))
    with refused("pull.evidence"):
        shop.pull(tmp_path / "to", folder, "shadow")


def test_a_first_champion_on_the_approval_of_another_model(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        desk = lab.desk
        first = next(p for _, p in desk.all(ChampionPromotion) if p.basis == "first")
        approval, other = next((d, a) for d, a in desk.all(ParentApproval) if a.artifact != first.artifact)
        true = next(c for c in publish.draw(desk, UNTIL).channels if c.channel == "champion")
        move = slip_in(desk, replace(first, evidence=approval), "people/release/promotion")
        desk.channels = dict  # type: ignore[method-assign]
        held = PublishedChannel(channel="champion", artifact=true.artifact, record=move, lineage=())
        folder = forged(desk, tmp_path / "live", evidence=(move, approval, other.source), channels=(held,))
    with refused("pull.evidence"):
        shop.pull(tmp_path / "to", folder)


def test_a_snapshot_that_names_another_lab_or_shuffles_its_revocations(
    shop: Shop, thief: Place, tmp_path: Path
) -> None:
    with thief.open() as lab:
        names = [m.name for _, m in lab.desk.sources().values()]
        for name in names[:2]:
            lab.keys.revoke(name, PERSON, "leaked")
        here = publish.draw(lab.desk, UNTIL)
        assert len(here.revocations) == 2
        lies: list[dict[str, Any]] = [{"lab": "0" * 64}, {"revocations": here.revocations[::-1]}]
        lies.append({"revocations": (here.previous,)})
        for number, fields in enumerate(lies):
            folder = forged(lab.desk, tmp_path / f"live-{number}", **fields)
            with refused("pull.mixed"):
                shop.pull(tmp_path / f"to-{number}", folder)


def test_a_record_of_another_kind_in_place_of_a_promotion(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        champion = next(c for c in publish.draw(lab.desk, UNTIL).channels if c.channel == "champion")
        policy = lab.desk.policy[0]
        held = PublishedChannel(channel="champion", artifact=champion.artifact, record=policy, lineage=())
        folder = forged(lab.desk, tmp_path / "live", evidence=(policy,), channels=(held,))
    with refused("pull.kind"):
        shop.pull(tmp_path / "to", folder)


def test_a_fork_of_the_ledger(shop: Shop, tmp_path: Path) -> None:
    one, other = (shop.place.copy(tmp_path / name) for name in ("one", "other"))
    for place, reason in ((one, "left"), (other, "right")):
        with place.open() as lab:
            lab.rollback("shadow", reason)
            lab.publish(place.path.parent / "live")
    shop.pull(tmp_path / "here", one.path.parent / "live")
    with refused("pull.fork"):
        shop.pull(tmp_path / "here", other.path.parent / "live")
    with other.open() as lab:
        lab.publish(other.path.parent / "live")
    with refused("pull.fork"):
        shop.pull(tmp_path / "here", other.path.parent / "live")


def test_mix_and_match_of_a_snapshot_and_the_checkpoint_of_a_fork(shop: Shop, thief: Place, tmp_path: Path) -> None:
    other = shop.place.copy(tmp_path / "other")
    pointers = []
    for place in (thief, other):
        with place.open() as lab:
            lab.publish(place.path.parent / "live")
        pointers.append(json.loads((place.path.parent / "live" / "snapshot.json").read_bytes()))
    mixed = pointers[0] | {"checkpoint": pointers[1]["checkpoint"]}
    live = thief.path.parent / "live"
    (live / "snapshot.json").write_bytes(canonical(mixed))
    with refused("pull.tree"):
        shop.pull(tmp_path / "to", live)


def test_another_snapshot_of_the_same_version(shop: Shop, thief: Place, tmp_path: Path) -> None:
    shop.pull(tmp_path / "here", FRESH)
    with thief.open() as lab:
        folder = forged(lab.desk, tmp_path / "live", snapshot_version=5)
    with refused("pull.fork"):
        shop.pull(tmp_path / "here", folder)


# -- bytes ---------------------------------------------------------------------------------------------------------


def test_every_file_of_a_publication_is_read(shop: Shop, tmp_path: Path) -> None:
    assert files_read(shop, shop.folders[FRESH], tmp_path) == set(files_of(shop.folders[FRESH]))


@pytest.mark.parametrize("place", [0, 0.5, 1], ids=["first", "middle", "last"])
def test_a_flipped_byte_in_every_published_file(shop: Shop, tmp_path: Path, lie: Path, place: float) -> None:
    for number, (name, data) in enumerate(files_of(shop.folders[FRESH]).items()):
        changed = bytearray(data)
        changed[int(place * (len(data) - 1))] ^= 1
        (lie / name).write_bytes(changed)
        both_refuse(shop, lie, tmp_path / f"to-{number}")
        (lie / name).write_bytes(data)


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + d[-1:], lambda _: b"", lambda d: d + bytes(1 << 20)],
    ids=["short", "long", "empty", "padded"],
)  # fmt: skip
def test_a_wrong_length_of_every_published_file(
    shop: Shop, tmp_path: Path, lie: Path, change: Callable[[bytes], bytes]
) -> None:
    for number, (name, data) in enumerate(files_of(shop.folders[FRESH]).items()):
        (lie / name).write_bytes(change(data))
        both_refuse(shop, lie, tmp_path / f"to-{number}")
        (lie / name).write_bytes(data)


def test_a_terabyte_of_holes_in_place_of_every_file(shop: Shop, tmp_path: Path, lie: Path) -> None:
    for number, (name, data) in enumerate(files_of(shop.folders[FRESH]).items()):
        os.truncate(lie / name, 1 << 40)
        assert any(e.reason == "pull.size" for e in both_refuse(shop, lie, tmp_path / f"to-{number}")), name
        (lie / name).write_bytes(data)


def test_every_missing_file(shop: Shop, tmp_path: Path, lie: Path) -> None:
    for number, (name, data) in enumerate(files_of(shop.folders[FRESH]).items()):
        (lie / name).unlink()
        assert {e.reason for e in both_refuse(shop, lie, tmp_path / f"to-{number}")} == {"fetch.missing"}
        (lie / name).write_bytes(data)


def test_a_link_a_device_or_a_folder_in_place_of_every_file(shop: Shop, tmp_path: Path, lie: Path) -> None:
    makers: list[Callable[[Path], object]] = [
        lambda p: p.symlink_to(tmp_path / "aside"),
        lambda p: os.mkfifo(p),
        lambda p: p.mkdir(),
    ]
    for number, (name, data) in enumerate(files_of(shop.folders[FRESH]).items()):
        (tmp_path / "aside").write_bytes(data)
        (lie / name).unlink()
        makers[number % 3](lie / name)
        assert any(e.reason == "file.type" for e in both_refuse(shop, lie, tmp_path / f"to-{number}")), name
        (shutil.rmtree if number % 3 == 2 else os.unlink)(lie / name)
        (lie / name).write_bytes(data)


def test_a_folder_that_is_a_link_out_of_the_publication(shop: Shop, tmp_path: Path, lie: Path) -> None:
    for part in ("artifacts", "records", "roots", "tile"):
        (lie / part).rename(tmp_path / part)
        (lie / part).symlink_to(tmp_path / part)
        with refused("file.type"):
            shop.pull(tmp_path / f"to-{part}", lie)
        (lie / part).unlink()
        (tmp_path / part).rename(lie / part)


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_foreign_lab_with_a_root_of_its_own(shop: Shop, tmp_path: Path) -> None:
    Lab.init(tmp_path / "other", "eve", tmp_path / "keys")
    with Lab(tmp_path / "other", tmp_path / "keys") as lab:
        lab.publish(tmp_path / "live")
    shop.pull(tmp_path / "here", FRESH)
    before = files_of(tmp_path / "here")
    own = tmp_path / "live" / "roots" / "1.json"
    for pin, dest in ((shop.pin, "here"), (shop.pin, "new"), (own, "here")):
        with refused("pull.lab"):
            Lab.pull(Request("champion", tmp_path / dest, pin, str(tmp_path / "live")))
    assert files_of(tmp_path / "here") == before


def test_a_foreign_lab_that_takes_the_identity_of_this_one(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.place.open(writer=False) as lab:
        identity = lab.desk.workspace.root.lab
    monkeypatch.setattr(secrets, "token_hex", lambda _: identity)
    Lab.init(tmp_path / "other", PERSON, tmp_path / "keys")
    with Lab(tmp_path / "other", tmp_path / "keys") as lab:
        lab.publish(tmp_path / "live")
    with refused("pull.pin"):
        shop.pull(tmp_path / "new", tmp_path / "live")


@pytest.mark.parametrize("version", [1, 2])
def test_a_root_that_a_mirror_moves_to_another_place_of_the_ledger(
    shop: Shop, tmp_path: Path, lie: Path, version: int
) -> None:
    line = lie / "roots" / f"{version}.line"
    entry = peek(line.read_bytes())
    assert isinstance(entry, LedgerEntry)
    with shop.place.open(writer=False) as lab:
        key = key_of(lab.desk, "process/release/shadow")
    for number, sequence in enumerate((entry.sequence, entry.sequence + 1)):
        line.write_bytes(seal(replace(entry, sequence=sequence), key))
        with refused("ledger.inclusion"):
            shop.pull(tmp_path / f"to-{number}", lie)


def test_a_pin_that_is_no_root(shop: Shop, tmp_path: Path) -> None:
    record = next((shop.folders[FRESH] / "records").glob("*.json"))
    with refused("pull.pin"):
        Lab.pull(Request("champion", tmp_path, record, str(shop.folders[FRESH])))


@pytest.mark.parametrize("key", ["process/release/shadow", "process/release/rollback", "process/decisions/decision"])
def test_a_stolen_process_key_that_signs_a_promotion(shop: Shop, thief: Place, tmp_path: Path, key: str) -> None:
    with thief.open() as lab:
        shadow = next(c for c in publish.draw(lab.desk, UNTIL).channels if c.channel == "shadow")
        promotion = ChampionPromotion(
            header=lab.desk.header,
            basis="promotion",
            artifact=shadow.artifact.sha256,
            evidence=lab.desk.channels()["champion"].record or "",
            promoted_by=PERSON,
            reason="",
            deployment=ALONE,
            rollback=RollbackSet(artifact=None, record=None, deployment=ALONE),
        )
        named = slip_in(lab.desk, promotion, key)
        lab.desk.channels = dict  # type: ignore[method-assign]
        held = PublishedChannel(channel="champion", artifact=shadow.artifact, record=named, lineage=())
        folder = forged(lab.desk, tmp_path / "live", evidence=(named,), channels=(held,))
    with refused("authority.zone"):
        shop.pull(tmp_path / "to", folder)
    assert nothing_came(tmp_path / "to")


@pytest.mark.parametrize("key", ["process/release/shadow", "people/release/promotion", "process/audit/audit"])
def test_a_snapshot_signed_by_another_key_of_the_lab(shop: Shop, thief: Place, tmp_path: Path, key: str) -> None:
    with thief.open() as lab:
        folder = forged(lab.desk, tmp_path / "live", key)
    with refused("authority.zone"):
        shop.pull(tmp_path / "to", folder)


def test_a_key_that_was_replaced(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        lab.keys.rotate(PERSON, SNAPSHOT)
        folder = forged(lab.desk, tmp_path / "live")
    with refused("authority.unknown-key"):
        shop.pull(tmp_path / "to", folder)


def test_a_revoked_key_that_is_still_listed(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        lab.keys.new(PERSON, ["channel-snapshot/1"], PERSON)
        lab.keys.revoke(SNAPSHOT, PERSON, "stolen")
        folder = forged(lab.desk, tmp_path / "live")
    with refused("authority.revoked"):
        shop.pull(tmp_path / "to", folder)


def test_a_revoked_audit_key_under_the_checkpoint(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        lab.keys.new(PERSON, ["ledger-entry/1"], PERSON)
        lab.keys.revoke("process/audit/audit", PERSON, "stolen")
        folder = forged(lab.desk, tmp_path / "live")
    with refused("ledger.unsigned"):
        shop.pull(tmp_path / "to", folder)


# -- revocations ---------------------------------------------------------------------------------------------------


def test_a_revoked_artifact_is_no_longer_offered_and_whoever_has_it_is_told(
    shop: Shop, thief: Place, tmp_path: Path
) -> None:
    shop.pull(tmp_path / "here", FRESH)
    with thief.open() as lab:
        lab.keys.revoke(shop.base, PERSON, "it leaks")
        found = lab.publish(tmp_path / "live")
    assert not found.channels and any("champion" in why and "it leaks" in why for why in found.left_out)
    with refused("pull.channel"):
        shop.pull(tmp_path / "new", tmp_path / "live")
    with refused("pull.revoked"):
        shop.pull(tmp_path / "here", tmp_path / "live")


def test_a_revoked_artifact_that_a_stolen_key_offers_all_the_same(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        before = publish.draw(lab.desk, UNTIL).channels
        lab.keys.revoke(shop.base, PERSON, "it leaks")
        lab.publish(tmp_path / "seen")
        folder = forged(lab.desk, tmp_path / "live", channels=before)
        with refused("pull.revoked"):
            shop.pull(tmp_path / "new", folder)
        with refused("pull.channel"):
            shop.pull(tmp_path / "here", tmp_path / "seen")
        silent = forged(lab.desk, tmp_path / "silent", channels=before, revocations=())
    with refused("pull.revocations"):
        shop.pull(tmp_path / "here", silent)


def test_a_revoked_record_under_an_artifact(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        before = publish.draw(lab.desk, UNTIL).channels
        record = lab.desk.channels()["champion"].record
        lab.keys.revoke(str(record), PERSON, "signed by mistake")
        honest = lab.publish(tmp_path / "honest")
        assert [c.channel for c in honest.channels] == ["shadow"] and str(record)[:16] in honest.left_out[0]
        folder = forged(lab.desk, tmp_path / "live", channels=before)
    with refused("pull.revoked"):
        shop.pull(tmp_path / "new", folder)


def test_whoever_has_a_descendant_of_a_revoked_model_is_told(shop: Shop, thief: Place, tmp_path: Path) -> None:
    shop.pull(tmp_path / "here", FRESH, "shadow")
    with thief.open() as lab:
        lab.keys.revoke(PARENTS[0], PERSON, "it leaks")
        found = lab.publish(tmp_path / "live")
    assert [c.channel for c in found.channels] == ["champion"]
    for _ in range(2):
        with refused("pull.revoked"):
            shop.pull(tmp_path / "here", tmp_path / "live", "shadow")
    with refused("pull.channel"):
        shop.pull(tmp_path / "new", tmp_path / "live", "shadow")


def test_a_descendant_of_a_revoked_model_that_a_stolen_key_offers_all_the_same(
    shop: Shop, thief: Place, tmp_path: Path
) -> None:
    with thief.open() as lab:
        before = publish.draw(lab.desk, UNTIL).channels
        lab.keys.revoke(PARENTS[0], PERSON, "it leaks")
        folder = forged(lab.desk, tmp_path / "live", channels=before)
    with refused("pull.revoked"):
        shop.pull(tmp_path / "new", folder, "shadow")


def test_a_lineage_with_a_gap_or_with_more_than_belongs_to_it(shop: Shop, thief: Place, tmp_path: Path) -> None:
    with thief.open() as lab:
        desk = lab.desk
        true = next(c for c in publish.draw(desk, UNTIL).channels if c.channel == "shadow")
        evidence = publish.carried(true, lambda d: desk.workspace.get(d, KINDS[desk.workspace.entry(d).record_kind]))
        assert len(true.lineage) == 3 and set(true.lineage) < set(evidence)
        release = desk.workspace.get(true.record, ReleaseRecord)
        own = next(d for d, c in desk.candidates() if c.artifact.sha256 == release.artifact)
        for number, lineage in enumerate(
            (true.lineage[1:], (), (*true.lineage, own), (*true.lineage, true.lineage[0]))
        ):
            held = msgspec.structs.replace(true, lineage=lineage)
            folder = forged(desk, tmp_path / f"live-{number}", evidence=evidence, channels=(held,))
            with refused("pull.evidence"):
                shop.pull(tmp_path / f"to-{number}", folder, "shadow")


def test_a_channel_that_fell_silent_after_revocations_is_not_trusted_where_the_records_are_gone(
    shop: Shop, thief: Place, tmp_path: Path
) -> None:
    found = shop.pull(tmp_path / "here", FRESH, "shadow")
    Path(found.records).unlink()
    with thief.open() as lab:
        lab.keys.revoke(PARENTS[0], PERSON, "it leaks")
        lab.publish(tmp_path / "live")
    for dest, told in (("here", "Do not use shadow.slm"), ("new", "Ask whoever runs the lab")):
        with refused("pull.channel") as caught:
            shop.pull(tmp_path / dest, tmp_path / "live", "shadow")
        assert caught.value.advice.startswith(told)


# -- servers -------------------------------------------------------------------------------------------------------


def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    """A server that answers every request in one way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return None

    return Handler


def raw(head: str, body: bytes = b"", *, endless: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)
        while endless:
            handler.wfile.write(body)

    return answer


CHUNK = b"%x\r\n" % 65536 + bytes(65536) + b"\r\n"


@pytest.mark.parametrize(
    ("head", "body"),
    [("200 OK\r\nTransfer-Encoding: chunked", CHUNK), ("200 OK", bytes(65536))],
    ids=["chunked", "without-length"],
)
def test_endless_data(shop: Shop, tmp_path: Path, head: str, body: bytes) -> None:
    """Whichever file never ends, it is cut where it may end at the latest."""
    folder = shop.folders[FRESH]
    names = ["snapshot.json", "roots/1.line", "roots/1.json", next(iter(files_of(folder / "tile")), "")]
    names[-1] = f"tile/{names[-1]}"
    names += [f"records/{next((folder / 'records').glob('*.line')).name}", f"artifacts/{shop.base}"]
    for number, name in enumerate(names):

        def answer(handler: BaseHTTPRequestHandler, name: str = name) -> None:
            if handler.path == f"/{name}":
                raw(head, body, endless=True)(handler)
            else:
                data = (folder / handler.path[1:]).read_bytes()
                raw(f"200 OK\r\nContent-Length: {len(data)}", data)(handler)

        with answering(server(answer)) as address:
            dest = tmp_path / f"to-{number}"
            found = []
            for channel in ("champion", "shadow"):
                try:
                    shop.pull(dest / channel, address, channel)
                except OverBudget as error:
                    assert error.reason == "pull.size"
                    found.append(error)
                    assert nothing_came(dest / channel)
            assert found, name


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        ("302 Found\r\nLocation: http://example.org/snapshot.json", b"", "fetch.redirect"),
        ("301 Moved\r\nLocation: file:///etc/passwd", b"", "fetch.redirect"),
        ("307 Again\r\nLocation: /snapshot.json", b"", "fetch.redirect"),
        (f"200 OK\r\nContent-Length: {1 << 50}", b"x", "fetch.size"),
        ("200 OK\r\nContent-Length: 100", b"x", "fetch.length"),
        ("200 OK\r\nContent-Encoding: gzip", b"x", "fetch.answer"),
        ("206 Partial Content", b"x", "fetch.answer"),
        ("404 Not Found\r\nContent-Length: 0", b"", "fetch.missing"),
        ("500 Broken\r\nContent-Length: 0", b"", "fetch.answer"),
        ("200 OK\r\nTransfer-Encoding: chunked", b"zz\r\n", "fetch.failed"),
        ("200 OK\r\n" + "\r\n".join(f"X-{n}: y" for n in range(500)), b"", "fetch.failed"),
        ("abc", b"", "fetch.failed"),
    ],
)
def test_a_server_that_sends_elsewhere_or_answers_nonsense(
    shop: Shop, tmp_path: Path, head: str, body: bytes, reason: str
) -> None:
    with answering(server(raw(head, body))) as address, refused(reason):
        shop.pull(tmp_path, address)


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\nX-Slow: ", "HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_a_server_that_drips_is_cut_off(head: str) -> None:
    pause = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head.encode())
        while not pause.wait(0.01):
            handler.wfile.write(b"x")

    with answering(server(drip)) as address, pytest.raises(OverBudget) as caught:
        list(HttpMirror(address, seconds=0.2).open("snapshot.json", 1))
    assert caught.value.reason == "fetch.slow"


@pytest.mark.parametrize("dripping", [False, True], ids=["silent", "dripping"])
def test_a_server_that_never_ends_the_handshake_is_cut_off(dripping: bool) -> None:
    cut: list[bool] = []

    def accept(server: socket.socket) -> None:
        with server.accept()[0] as line:
            # The head of a record of 16 KiB, which is then sent byte by byte.
            head = b"\x16\x03\x03\x40\x00"
            line.settimeout(0.01)
            for number in range(300):
                try:
                    if dripping:
                        line.sendall(head[number : number + 1] or b"\x02")
                    if not line.recv(1 << 16):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            cut.append(number < 299)

    with socket.create_server(("127.0.0.1", 0)) as quiet:
        thread = threading.Thread(target=accept, args=(quiet,))
        thread.start()
        mirror = HttpMirror(f"https://127.0.0.1:{quiet.getsockname()[1]}", silence=5, seconds=0.2)
        with pytest.raises(OverBudget) as caught:
            list(mirror.open("snapshot.json", 10))
        thread.join()
    assert caught.value.reason == "fetch.slow"
    assert cut == [True]


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as quiet:
        mirror = HttpMirror(f"http://127.0.0.1:{quiet.getsockname()[1]}", silence=0.1)
        with pytest.raises(OverBudget) as caught:
            list(mirror.open("snapshot.json", 10))
    assert caught.value.reason == "fetch.slow"
    with pytest.raises(StudbookError) as failed:
        list(HttpMirror("http://127.0.0.1:9/", silence=0.5).open("snapshot.json", 10))
    assert failed.value.reason in ("fetch.failed", "fetch.slow")


@pytest.mark.parametrize(
    "address",
    ["http://10.0.0.1/", "http://example.org/", "https://[2001:db8::1]/", "http://localhost.example.org/",
     "http://127.0.0.1.example.org/", "http://0.0.0.0/", "http://2130706433/"],
)  # fmt: skip
def test_an_address_of_another_machine_needs_leave(shop: Shop, tmp_path: Path, address: str) -> None:
    with refused("fetch.remote"):
        shop.pull(tmp_path, address)
    assert HttpMirror(address, allow_remote=True)


@pytest.mark.parametrize(
    "address",
    ["http://", "http:///x", "http://user@127.0.0.1/", "http://127.0.0.1/?a=b", "http://127.0.0.1/#a",
     "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://[::1", "http://127.0.0.1/\u00e9"],
)  # fmt: skip
def test_an_address_that_is_none(shop: Shop, tmp_path: Path, address: str) -> None:
    with refused("fetch.address"):
        shop.pull(tmp_path, address)


def test_a_proxy_of_the_environment_is_not_asked(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with serving(shop.folders[FRESH]) as address:
        assert shop.pull(tmp_path, address).outcome == "installed"


# -- what lies here ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda d: d[:-1],
        lambda d: d.replace(b'"position":', b'"place":'),
        lambda d: d.replace(b'"checkpoint":"', b'"checkpoint":"\\u2014 '),
        lambda d: d.replace(b'"pull-state/1"', b'"pull-state/2"'),
        lambda d: d.replace(b'"kind":"pull-state/1",', b""),
    ],
    ids=["empty", "short", "other-field", "no-checkpoint", "newer", "untagged"],
)
def test_a_memory_that_was_changed_is_refused_and_nothing_is_touched(
    shop: Shop, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    shop.pull(tmp_path, FRESH)
    state = tmp_path / ".studbook" / "state.json"
    rewrite(state, change(state.read_bytes()))
    before = files_of(tmp_path)
    with refused("pull.state") as caught:
        shop.pull(tmp_path, FRESH)
    assert "however old" in caught.value.advice
    assert files_of(tmp_path) == before


def test_a_link_in_place_of_the_artifact_is_replaced_and_not_followed(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "champion.slm").symlink_to(tmp_path / "mine")
    shop.pull(tmp_path / "here", FRESH)
    assert not (tmp_path / "here" / "champion.slm").is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_reader_stops_at_the_total_of_everything_it_may_read() -> None:
    class Endless:
        def open(self, _name: str, _limit: int) -> Any:
            yield bytes(8 << 20)

    reader = Reader(Endless(), "endless")
    with pytest.raises(OverBudget) as caught:
        for _ in range(1000):
            reader.read("snapshot.json", 8 << 20)
    assert caught.value.reason == "pull.size"
