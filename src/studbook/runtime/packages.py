"""The rules of packages: what may be installed, what it may do, and how it lives. Pure: records in, checks or refusals out.

1. A package fits its artifact exactly: digest, size, tokenizer, base, engine and what it says it takes (`examine`).
2. What it requires is there, and nothing requires itself (`needed`); versions of one id only rise.
3. What it may do is what it asks for, the contract allows, the environment offers and the task needs: all four
   (`permitted`).
4. Its life is a table (`MOVES`); where it stands is a replay of its events (`lives`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, OutsideAllowlist, OverBudget, StudbookError
from studbook.records import Check, PackageEvent, RuntimeContract, SkillPackage
from studbook.records.packages import PackageState

__all__ = [
    "MOVES",
    "PERMISSIONS",
    "SLM",
    "Artifact",
    "Life",
    "Permitted",
    "check_move",
    "examine",
    "lives",
    "needed",
    "permitted",
    "require",
    "version_key",
]

PERMISSIONS = ("adapters", "answer", "cascade", "committee", "pipeline", "stream")
"""What a package may be allowed: packages on top of it; answering at all; being asked when another one was unsure; a vote;
handing its text on to another package; its tokens one by one."""
SLM = 1
"""Version of the container."""
MOVES: Mapping[PackageState | None, tuple[PackageState, ...]] = {
    None: ("installed",),
    "installed": ("verified", "retired", "quarantined"),
    "verified": ("resident", "suspended", "retired", "quarantined"),
    "resident": ("verified", "active", "suspended", "retired", "quarantined"),
    "active": ("resident", "suspended", "quarantined"),
    "suspended": ("verified", "retired", "quarantined"),
    "quarantined": ("retired",),
    "retired": (),
}
"""Where a package may go from where it stands; nothing comes back from retirement, its next version does."""
_ADVICE: Mapping[PackageState | None, str] = {
    None: "Install it: studbook package install ID",
    "installed": "Install it again; what a crash left is finished or begun anew.",
    "verified": "It is installed and sound; a server takes it up.",
    "resident": "It holds memory. Suspend it, or let the server put it out.",
    "active": "It answers. Suspend it first: studbook package suspend ID",
    "suspended": "Take it up again: studbook package resume ID",
    "quarantined": "It is kept for whoever looks into it, and leads nowhere but out: studbook package retire ID",
    "retired": "It is gone for good. Make its next version: studbook package make",
}
_NUMBER = re.compile(r"[0-9]+\Z")


class Artifact(NamedTuple):
    """What was found in the bytes of a package, and what runs them.

    Attributes:
        sha256: Digest of the model.
        size: Its bytes.
        stack: Digests of the adapter packages on it, in order.
        stack_bytes: Bytes of all of them.
        tokenizer: Digest of its tokenizer section.
        base: Digest of the model it descends from, as its manifest says; None where there is none.
        decoded_bytes: Bytes of its weights, decoded and fused.
        licence: What it is under, by its records.
        engine: Digest of the engine here.
        abi: Version of that engine's interface.
    """

    sha256: str
    size: int
    stack: tuple[str, ...]
    stack_bytes: int
    tokenizer: str
    base: str | None
    decoded_bytes: int
    licence: str
    engine: str
    abi: int


class Permitted(NamedTuple):
    """What a package may do here and now.

    Attributes:
        granted: What all four allow, sorted.
        withheld: What it asks for and does not get -> who withholds it: ``contract``, ``environment``, ``task``.
    """

    granted: tuple[str, ...]
    withheld: Mapping[str, tuple[str, ...]]

    def demand(self, permission: str, package: str) -> None:
        """Refuse what is not granted.

        Args:
            permission: What shall be done.
            package: Id of the package.

        Raises:
            OutsideAllowlist: naming whoever withholds it; ``package.permission``.
        """
        if permission in self.granted:
            return
        by = self.withheld.get(permission, ("package",))
        text = f"may not {permission}: withheld by {' and '.join(by)}"
        advice = "A package asks for it when it is made; people allow it: studbook package contract --as NAME"
        raise OutsideAllowlist(text, where=package, advice=advice, reason="package.permission")


class Life(NamedTuple):
    """Where a package stands.

    Attributes:
        state: The state.
        event: Digest of the event that brought it there.
        contract: Digest of the contract that event was held against.
    """

    state: PackageState
    event: str
    contract: str


def version_key(version: str) -> tuple[object, ...]:
    """What semantic versions sort by: precedence of Semantic Versioning 2.0.0, section 11."""
    numbers, _, pre = version.partition("-")
    parts = [(0, int(p), "") if _NUMBER.match(p) else (1, 0, p) for p in pre.split(".")] if pre else []
    return (*map(int, numbers.split(".")), not pre, *parts)


def permitted(
    package: SkillPackage, contract: RuntimeContract, environment: Collection[str], task: Collection[str]
) -> Permitted:
    """What a package may do: the intersection of four sets, and who withholds the rest of what it asks for.

    Args:
        package: The package, which asks.
        contract: The contract: what may be allowed at all.
        environment: What the place it runs in offers.
        task: What the request at hand needs.
    """
    limits = {"contract": contract.permissions, "environment": environment, "task": task}
    withheld = {
        asked: tuple(name for name, allowed in limits.items() if asked not in allowed) for asked in package.permissions
    }
    granted = tuple(sorted(asked for asked, by in withheld.items() if not by))
    return Permitted(granted, {asked: by for asked, by in withheld.items() if by})


def examine(
    package: SkillPackage, found: Artifact, contract: RuntimeContract, installed: Mapping[str, SkillPackage]
) -> tuple[Check, ...]:
    """Hold a package against its artifact, the contract and what is installed; every question is a row.

    Args:
        package: The package.
        found: What its bytes say, and what runs them.
        contract: The contract in force.
        installed: Id -> newest package of that id that was ever installed; retired ones count.
    """
    earlier = installed.get(package.id)
    envelope, runs = package.envelope, package.compatibility
    files = found.size + found.stack_bytes
    unknown = sorted(set(package.permissions) - set(PERMISSIONS))
    beyond = sorted(set(package.permissions) - set(contract.permissions))
    absent = sorted(set(package.requires) - installed.keys())
    return (
        _row("artifact", (package.artifact.sha256, package.artifact.size, package.stack) == found[:3], "its bytes"),
        _row("tokenizer", package.tokenizer == found.tokenizer, "the tokenizer section of the model"),
        _row("base", package.base == found.base, "the model it descends from"),
        _row("engine", (runs.slm, runs.engine, runs.abi) == (SLM, found.engine, found.abi), "the engine here"),
        _row("licence-fits", package.licence == found.licence, f"the artifact is under {found.licence}"),
        _row("licence", package.licence in contract.licences, f"{package.licence}, of those the contract accepts"),
        _row("permissions", not unknown and not beyond, f"of the contract's; beyond: {', '.join(unknown + beyond)}"),
        _row("requires", not absent, f"what it requires is installed; missing: {', '.join(absent)}"),
        _row(
            "fallback",
            _elsewhere(package, installed),
            f"another package, installed: {package.fallback or 'the champion'}",
        ),
        _row("version", earlier is None or _follows(package, earlier), "a higher version than the one before"),
        _row("says-files", envelope.file_bytes.value == files, f"{files} bytes of files"),
        _row(
            "says-weights", envelope.decoded_bytes.value == found.decoded_bytes, f"{found.decoded_bytes} bytes decoded"
        ),
        _row("bytes", files <= contract.maximum_bytes, f"{files} bytes of {contract.maximum_bytes}"),
        _row(
            "decoded-bytes",
            found.decoded_bytes <= contract.maximum_decoded_bytes,
            f"{found.decoded_bytes} bytes of {contract.maximum_decoded_bytes}, decoded",
        ),
    )


def require(checks: Iterable[Check], package: str) -> None:
    """Refuse a package by the first row that does not hold.

    Args:
        checks: The rows.
        package: Id of the package.

    Raises:
        DigestDiffers, OutsideAllowlist, OverBudget, OutOfOrder: by what does not hold; ``package.<row>``.
    """
    for check in checks:
        if not check.passed:
            kind, advice = _REFUSALS.get(check.name, (DigestDiffers, _REMAKE))
            text = f"{check.name} does not hold: {check.detail}"
            raise kind(text, where=f"skill-package {package}", advice=advice, reason=f"package.{check.name}")


def needed(package: SkillPackage, known: Mapping[str, SkillPackage]) -> tuple[str, ...]:
    """Ids of everything a package requires, through others too, each after what it requires itself.

    Args:
        package: The package.
        known: Id -> package, as it would be with this one installed.

    Raises:
        OutOfOrder: if one is missing (``package.requires``), or requires itself through others (``package.cycle``).
    """
    done: dict[str, None] = {}
    held = {**known, package.id: package}
    path: list[str] = []

    def walk(name: str) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            advice = "Leave one of the requirements out."
            raise OutOfOrder(f"requires itself: {circle}", where=name, advice=advice, reason="package.cycle")
        if name in done:
            return
        if name not in held:
            advice = f"Install it first: studbook package install {name}"
            text = f"requires {name}, which is not installed"
            raise OutOfOrder(text, where=path[-1], advice=advice, reason="package.requires")
        path.append(name)
        for other in held[name].requires:
            walk(other)
        path.pop()
        done[name] = None

    walk(package.id)
    return tuple(name for name in done if name != package.id)


def check_move(before: PackageState | None, after: PackageState, package: str) -> None:
    """Refuse a move that the life of a package does not have.

    Raises:
        OutOfOrder: saying what to do instead; ``package.state``.
    """
    if after not in MOVES[before]:
        text = f"is {before or 'not installed'} and cannot become {after}"
        raise OutOfOrder(text, where=package, advice=_ADVICE[before], reason="package.state")


def lives(events: Iterable[tuple[str, PackageEvent]]) -> dict[str, Life]:
    """Where every package stands: revision -> life. An event that does not follow moved nothing.

    Args:
        events: Digest and record of every PackageEvent that counts, oldest first.
    """
    found: dict[str, Life] = {}
    for name, event in events:
        life = found.get(event.package)
        before = (life.state, life.event) if life else (None, None)
        if before == (event.before, event.previous) and event.after in MOVES[event.before]:
            found[event.package] = Life(event.after, name, event.contract)
    return found


def _row(name: str, passed: bool, detail: str) -> Check:
    return Check(name=name, passed=passed, detail=detail)


def _elsewhere(package: SkillPackage, installed: Collection[str]) -> bool:
    return package.fallback is None or (package.fallback in installed and package.fallback != package.id)


def _follows(package: SkillPackage, earlier: SkillPackage) -> bool:
    return version_key(package.package_version) > version_key(earlier.package_version)


_REMAKE = "The package says something else than its bytes do. Make it again: studbook package make"
_CONTRACT = "People widen the contract: studbook package contract --as NAME"
_REFUSALS: Mapping[str, tuple[type[StudbookError], str]] = {
    "licence": (OutsideAllowlist, _CONTRACT),
    "permissions": (OutsideAllowlist, _CONTRACT),
    "bytes": (OverBudget, _CONTRACT),
    "decoded-bytes": (OverBudget, _CONTRACT),
    "requires": (OutOfOrder, "Install what it requires first."),
    "fallback": (OutOfOrder, "Install what is asked instead first, or leave it to the champion."),
    "version": (OutOfOrder, "An older version never comes back over a newer one. Make the next version."),
    "engine": (OutOfOrder, "It was made for another engine. Make its next version with this one."),
}
