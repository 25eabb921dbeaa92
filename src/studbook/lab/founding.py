"""Making a lab: keys, root, policy."""

from __future__ import annotations

import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from studbook.errors import RecordRefused, UsageError
from studbook.files import read_file, replace_file, sync_folder, write_new
from studbook.lab.desk import Desk, default_keys, make_header
from studbook.lab.policies import as_policy, check_whole
from studbook.lab.words import plain_name
from studbook.policy import check_version, default_policy
from studbook.records import (
    Header,
    KeyGrant,
    OwnerKey,
    Owners,
    Policy,
    Root,
    Zone,
    digest,
    read_plain_json,
)
from studbook.sandbox import LEVELS
from studbook.seal import KeyRing
from studbook.workspace import Workspace, check_free

__all__ = ["LIFETIME", "PIN", "ROLES", "ROOT_KEY", "UNFINISHED", "Role", "appoint", "found", "read_policy"]

PIN = "root.sha256"
# Lies in the folder of keys until their lab exists, and names it.
UNFINISHED = "unfinished"
_POLICY_LIMIT = 1 << 20
_FILE = "policy.file"


class Role(NamedTuple):
    """One key of a new lab.

    Attributes:
        path: Where it lies in the ring: holder, zone, name.
        zone: The zone it signs for.
        kinds: The kinds of record it signs there.
    """

    path: str
    zone: Zone
    kinds: tuple[str, ...]


# The root key lies beside the policy key but signs nothing except roots: it can be kept where it is hard to reach.
ROOT_KEY = "people/policy/root"
# A root is renewed every second year at the latest, so that a key nobody remembers stops by itself.
LIFETIME = timedelta(days=730)
# One key signs for one zone. The people's keys are never needed by `round` or by a rollback.
ROLES = (
    Role("people/policy/policy", Zone.POLICY, ("policy/1", "revocation/1", "suites-lock/1", "tombstone/1")),
    Role("people/registry/approval", Zone.REGISTRY, ("parent-approval/1",)),
    Role(
        "people/release/promotion",
        Zone.RELEASE,
        ("champion-promotion/1", "stage-approval/1", "code-change-closing/1", "resumption/1"),
    ),
    Role(
        "process/registry/registry",
        Zone.REGISTRY,
        ("source-manifest/1", "producer-signature/1", "compatibility-report/1"),
    ),
    Role(
        "process/candidate/candidate",
        Zone.CANDIDATE,
        (
            "lineage-template/1",
            "operator-receipt/1",
            "candidate-manifest/1",
            "federated-receipt/1",
            "search-receipt/1",
            "parent-pool/1",
            "clearing-record/1",
        ),
    ),
    Role(
        "process/evaluation/evaluation",
        Zone.EVALUATION,
        (
            "floor-report/1",
            "suite-manifest/1",
            "contamination-receipt/1",
            "runtime-smoke/1",
            "scorecard/1",
            "drift-report/1",
            "reported-result/1",
            "baseline-receipt/1",
            "novelty-record/1",
            "experiment-charter/1",
            "experiment-result/1",
            "red-team-report/1",
            "browser-smoke/1",
        ),
    ),
    Role(
        "process/decisions/decision",
        Zone.DECISIONS,
        (
            "failure-cluster/1",
            "viability-decision/1",
            "archive-record/1",
            "sealed-opening/1",
            "confirmation-record/1",
            "generation/1",
            "population-review/1",
            "code-change-proposal/1",
        ),
    ),
    Role(
        "process/release/shadow",
        Zone.RELEASE,
        ("promotion-template/1", "admission-record/1", "release-record/1", "readiness-record/1"),
    ),
    Role("process/release/rollback", Zone.RELEASE, ("rollback-record/1",)),
    Role("process/release/canary", Zone.RELEASE, ("canary-plan/1", "canary-segment/1", "halt/1")),
    Role("process/release/snapshot", Zone.RELEASE, ("channel-snapshot/1",)),
    Role(
        "process/release/bundle",
        Zone.RELEASE,
        (
            "model-manifest/1",
            "adapter-manifest/1",
            "adapter-family-receipt/1",
            "selector-registry/1",
            "ledger-evidence/1",
            "assembly-receipt/1",
            "module-plan/1",
            "bundle-release/1",
        ),
    ),
    Role("people/host/contract", Zone.HOST, ("runtime-contract/1",)),
    Role(
        "process/host/host",
        Zone.HOST,
        (
            "skill-package/1",
            "package-event/1",
            "expert-partition/1",
            "resident-set/1",
            "router-state/1",
            "sentence-model/1",
            "route-threshold/1",
            "route-record/1",
            "route-seal/1",
            "route-segment/1",
        ),
    ),
    Role("process/audit/audit", Zone.AUDIT, ("ledger-entry/1",)),
)


def found(path: Path, owner: str, keys: Path | None, policy: Policy | None = None, witness: Path | None = None) -> Path:
    """Make a new lab with its keys, root and first policy.

    Args:
        path: Folder of the lab; must not exist, or be empty.
        owner: Who answers for it.
        keys: Folder for the private keys; beside the lab by default.
        policy: The first policy; the default one otherwise.
        witness: Folder of its witness; beside the lab by default.

    Returns:
        The folder of the keys.

    Raises:
        UsageError: if the folder is taken, or keys or witness would lie inside the lab.
        NotAuthorised: if the key folder holds keys already.
    """
    ring = KeyRing((keys or default_keys(path)).absolute())
    if ring.folder.is_relative_to(path.absolute()):
        raise UsageError(
            "keys must not lie inside the lab", where=ring.folder, advice="Name another folder: --keys DIR"
        )
    check_free(path, witness)
    header = make_header(plain_name(owner, "--owner"))
    chosen = policy or default_policy(header)
    check_version(chosen, 1, "policy")
    check_whole(chosen)
    _open_keys(ring.folder, path)
    root = _first_root(ring, header)
    write_new(ring.folder / PIN, f"{digest(root)}\n".encode())
    sync_folder(ring.folder)
    Workspace.create(path, ring, root, chosen, witness=witness)
    (ring.folder / UNFINISHED).unlink()
    return ring.folder


def appoint(desk: Desk) -> int:
    """Let a new witness take the lab's checkpoint, where there is none; to be asked by somebody who knows the lab is whole.

    Returns:
        How many entries it saw.

    Raises:
        UsageError: if there is one already; ``ledger.witness-exists``.
    """
    desk.workspace.appoint_witness()
    return desk.workspace.ledger.acknowledged


def _first_root(ring: KeyRing, header: Header) -> Root:
    """Make every key of a new lab, and the root that lists them for its one owner."""
    grants = tuple(
        KeyGrant(
            key=ring.create(role.path).public,
            owner=header.owner,
            holder="person" if role.path.startswith("people/") else "process",
            zone=role.zone,
            kinds=role.kinds,
        )
        for role in ROLES
    )
    return Root(
        header=header,
        lab=secrets.token_hex(32),
        root_version=1,
        expires=(datetime.now(UTC).date() + LIFETIME).isoformat(),
        owners=Owners(keys=(OwnerKey(key=ring.create(ROOT_KEY).public, owner=header.owner),), threshold=1),
        keys=grants,
        thresholds=(),
    )


def _open_keys(folder: Path, lab: Path) -> None:
    """Make the folder of keys; keys of an earlier attempt at this lab that a crash cut short are thrown away."""
    mark, name = folder / UNFINISHED, f"{lab.absolute()}\n".encode()
    if mark.is_file() and read_file(mark, _POLICY_LIMIT) == name:
        for part in ("people", "process"):
            shutil.rmtree(folder / part, ignore_errors=True)
        (folder / PIN).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not any(folder.glob("*/*/*.pem")):
        replace_file(mark, name)


def read_policy(path: Path, owner: str) -> Policy:
    """A policy from a JSON file that names only what differs from the default.

    Args:
        path: JSON object; nested objects replace single fields of the default, lists replace whole lists.
        owner: Owner of the lab.

    Raises:
        RecordRefused: if it is not JSON, or a field is unknown or out of range.
    """
    default = default_policy(make_header(plain_name(owner, "--owner")))
    changes = read_plain_json(read_file(path, _POLICY_LIMIT), path)
    if not isinstance(changes, dict):
        advice = "Name the fields that differ from the default."
        raise RecordRefused("is not a JSON object", where=path, advice=advice, reason=_FILE)
    merged = msgspec.to_builtins(default)
    for key, value in changes.items():
        if key not in merged or key in ("header", "kind"):
            raise RecordRefused(
                f"unknown field {key!r}",
                where=path,
                advice=f"Known: {', '.join(sorted(merged.keys() - {'header', 'kind'}))}.",
                reason=_FILE,
            )
        if key == "minimum_isolation" and isinstance(value, str):
            value = LEVELS.get(value, value)
        merged[key] = merged[key] | value if isinstance(value, dict) and isinstance(merged[key], dict) else value
    return as_policy(merged, path)
