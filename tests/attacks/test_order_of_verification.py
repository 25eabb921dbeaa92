"""One record that breaks every rule at once: mended fault by fault, it is refused in the order that docs/keys.md names."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from lab_fixtures import PERSON, Place
from release_fixtures import replayed
from studbook import workspace as workspace_module
from studbook.breeding.recipes import recipe_sha256
from studbook.errors import StudbookError
from studbook.lab import Lab, founding
from studbook.records import LineageTemplate, Zone, canonical
from studbook.records.breeding import Expected, WorkerLimits
from studbook.records.doors import MAX_RECORD_BYTES
from studbook.seal import PAYLOAD_TYPE, KeyRing, SigningKey
from studbook.seal.statement import write_statement

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
KIND = LineageTemplate.kind()
# Every fault with the step of the page that finds it, in order.
FAULTS = (
    "size", "decode", "canonical", "payload-type", "signature-twice", "unknown-key", "signature", "statement",
    "zone", "expired", "revoked", "threshold", "subjects", "reference", "policy",
)  # fmt: skip


class Later(datetime):
    """A clock after the root has ended."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + founding.LIFETIME + timedelta(days=1)


class Forger(NamedTuple):
    """A lab that asks two people for every template, and whoever writes one there.

    Attributes:
        lab: The lab, opened.
        keys: Name -> key.
    """

    lab: Lab
    keys: dict[str, SigningKey]

    def record(self, faults: Collection[str]) -> LineageTemplate:
        fraction = 0.9 if "policy" in faults else 0.1
        operator = {"operator": "prune/1", "fraction": fraction, "scope": "global", "skip": []}
        expected = Expected(
            layout_sha256="a" * 64,
            tokenizer_sha256="b" * 64,
            label="f32",
            size_bytes=1,
            delta_norm=0.5,
            relative_delta=0.5,
        )
        return LineageTemplate(
            header=self.lab.desk.header,
            purpose="candidate",
            cluster="f" * 64 if "reference" in faults else None,
            policy=self.lab.desk.policy[0],
            compatibility=None,
            base="c" * 64,
            parents=("c" * 64,),
            operator=operator,
            recipe_sha256=recipe_sha256("c" * 64, ("c" * 64,), operator),
            numeric_contract="d" * 64,
            limits=WorkerLimits(seconds=1, memory_bytes=1, output_bytes=1),
            expected=expected,
        )

    def statement(self, faults: Collection[str]) -> bytes:
        found = json.loads(write_statement(self.record(faults)))
        if "subjects" in faults:
            found["subject"][1]["digest"]["sha256"] = "0" * 64
        if "statement" in faults:
            found["predicate"]["colour"] = "red"
        return canonical(found)

    def envelope(self, faults: Collection[str]) -> bytes:
        payload = self.statement(faults)
        names = ["ann"] if "threshold" in faults else ["ann", "bob"]
        names += [name for name, fault in SIGNERS.items() if fault in faults]
        encoded = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
        signatures = {self.keys[n].public: bytearray(self.keys[n].sign(encoded)) for n in names}
        if "signature" in faults:
            signatures[self.keys["ann"].public][0] ^= 1
        rows = [{"keyid": k, "sig": base64.b64encode(s).decode()} for k, s in sorted(signatures.items())]
        if "signature-twice" in faults:
            rows.insert(0, rows[0])
        kind = "text/plain" if "payload-type" in faults else PAYLOAD_TYPE
        fields = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": rows}
        data = json.dumps(fields, separators=(", ", ": ") if "canonical" in faults else (",", ":")).encode()
        data += b"}" if "decode" in faults else b""
        return data + b" " * MAX_RECORD_BYTES if "size" in faults else data

    def refusal(self, faults: Collection[str]) -> StudbookError:
        """Why the record is refused at the door, or by whoever verifies it afterwards."""
        try:
            self.lab.desk.workspace.commit(self.record(faults), envelope=self.envelope(faults))
        except StudbookError as error:
            return error
        found = replayed_last(self.lab)
        assert found is not None
        return found


# Who signs beside ann and bob, for which fault.
SIGNERS = {"stranger": "unknown-key", "judge": "zone", "thief": "revoked"}


def replayed_last(lab: Lab) -> StudbookError | None:
    return replayed(lab, len(lab.desk.entries()) - 1)


@pytest.fixture(scope="module")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forger]:
    """One lab for every test here: what is refused is not written."""
    folder = tmp_path_factory.mktemp("forger")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    lab = place.open()
    ring = lab.desk.workspace.keys
    # Whoever breeds does not judge, so a third owner holds the evaluation key.
    lab.keys.rotate(PERSON, "process/evaluation/evaluation", owner="carol")
    for owner in ("bob", "eve"):
        lab.keys.new(owner, [KIND], PERSON)
    lab.keys.rotate(PERSON, needs={KIND: 2})
    authority = lab.desk.workspace.authority()
    keys = {owner: ring.find(authority, Zone.CANDIDATE, KIND, owner) for owner in ("ann", "bob", "eve")}
    keys["thief"] = keys.pop("eve")
    keys["judge"] = ring.find(authority, Zone.EVALUATION, "scorecard/1", "carol")
    keys["stranger"] = KeyRing(folder / "elsewhere").create("process/candidate/stranger")
    lab.keys.revoke(keys["thief"].public, PERSON, "stolen")
    yield Forger(lab, keys)
    lab.close()


def steps() -> list[set[str]]:
    """The reasons of every step, in the order of the table on the page."""
    section = PAGE.read_text(encoding="utf-8").split("## The order in which a record is verified", 1)[1]
    rows = re.findall(r"^\| .* \| (`.*) \|$", section, re.MULTILINE)
    return [set(re.findall(r"`([a-z.-]+)`", row)) for row in rows]


def test_a_record_that_breaks_every_rule_is_refused_for_the_first_in_the_order_of_the_page(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, entries = steps(), len(forger.lab.desk.entries())
    assert len(expected) == len(FAULTS)
    clock = workspace_module.datetime
    for number, reasons in enumerate(expected):
        left = FAULTS[number:]
        monkeypatch.setattr(workspace_module, "datetime", Later if "expired" in left else clock)
        reason = forger.refusal(left).reason
        assert any(reason == r or reason.startswith(f"{r}.") for r in reasons), (left[0], reason)
        # Everything but the last is refused at the door, and nothing was written.
        assert len(forger.lab.desk.entries()) == entries + (left == ("policy",))


def test_the_same_record_without_a_fault_enters_and_verifies(forger: Forger) -> None:
    forger.lab.desk.workspace.commit(forger.record(()), envelope=forger.envelope(()))
    assert replayed_last(forger.lab) is None


def test_every_fault_alone_is_refused_at_its_own_step(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = workspace_module.datetime
    for fault, reasons in zip(FAULTS[:-1], steps(), strict=False):
        monkeypatch.setattr(workspace_module, "datetime", Later if fault == "expired" else clock)
        found = forger.refusal([fault])
        assert found.reason in reasons, fault


def test_a_citation_that_does_not_resolve_names_its_field(forger: Forger) -> None:
    found = forger.refusal(["reference"])
    assert (found.reason, found.where) == ("order.reference", f"{KIND}: cluster")
    assert found.advice and "cluster cites ffff" in found.message


def test_verify_says_the_same_of_a_citation_that_somebody_wrote_past_the_door(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = forger.lab
    with monkeypatch.context() as patched:
        patched.setattr(workspace_module, "check_references", lambda *_: None)
        lab.desk.workspace.commit(forger.record(["reference"]), envelope=forger.envelope(["reference"]))
    entry = lab.desk.entries()[-1]
    told = [p.what for p in lab.verify().problems if p.where == str(lab.desk.workspace.record_path(entry))]
    assert told[0] == "cluster cites ffffffffffffffff..., which the ledger does not hold before it"
