"""What the lab has, and what of it is reserved: accounts computed from the ledger each time, never kept in a file."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from studbook.lab.desk import Desk
from studbook.lab.pending import waiting
from studbook.lab.proposals import still_waiting
from studbook.records import Scorecard, SealedOpening
from studbook.viability import DECODED_BYTES, MULTIPLY_ADDS, checked

__all__ = ["Account", "Reservation", "accounts"]


_UNSTATED: tuple[int | None, int] = (None, 0)


class Reservation(Struct, frozen=True):
    """What of an account is spoken for.

    Attributes:
        amount: How much, in the account's unit.
        what: What for.
    """

    amount: int
    what: str


class Account(Struct, frozen=True):
    """One thing that a lab can run out of.

    Attributes:
        account: Its name.
        unit: What it is counted in.
        capacity: How much there is by the policy; None where the policy states none.
        minimum: How much of it has to stay free.
        reserved: What is spoken for.
    """

    account: str
    unit: str
    capacity: int | None
    minimum: int
    reserved: tuple[Reservation, ...]

    @property
    def used(self) -> int:
        """All reservations together."""
        return sum(r.amount for r in self.reserved)

    @property
    def free(self) -> int | None:
        """What is left above the minimum, below 0 where too much is spoken for; None without a capacity."""
        return None if self.capacity is None else self.capacity - self.minimum - self.used


def accounts(desk: Desk) -> tuple[Account, ...]:
    """Storage and every account of `studbook.viability.reserve`, as the ledger and the policy in force have them.

    Model calls are a round's: nothing of them is reserved between rounds.
    """
    policy, held = desk.policy[1], _deployed(desk)
    storage = tuple(Reservation(desk.workspace.blob_size(a), what) for what, a in held)
    stated: dict[str, tuple[int | None, int]] = {a.account: (a.capacity, a.minimum) for a in checked(policy)}
    opened = (Reservation(1, f"opening {o.opening} {_occasion(o)}") for _, o in desk.all(SealedOpening))
    rows = (
        ("memory", DECODED_BYTES, _measured(desk, held, DECODED_BYTES)),
        ("latency", MULTIPLY_ADDS, _measured(desk, held, MULTIPLY_ADDS)),
        ("model-calls", "model-calls", ()),
        ("sealed-openings", "sealed-openings", opened),
        ("attention", "acts-of-people", _asked(desk)),
    )
    beside = (Account(name, unit, *stated.get(name, _UNSTATED), tuple(found)) for name, unit, found in rows)
    reserve = policy.reserve
    return (Account("storage", "bytes", reserve.capacity_bytes, reserve.minimum_bytes, storage), *beside)


def _occasion(look: SealedOpening) -> str:
    return f"for decision {look.decision[:12]}" if look.decision else "by hand"


def _deployed(desk: Desk) -> list[tuple[str, str]]:
    """Every channel's model, and what its way back would put in its place."""
    found = []
    for channel, state in desk.channels().items():
        if state.artifact:
            found.append((f"{channel}: {desk.name_of(state.artifact)}", state.artifact))
        if state.way_back is not None and state.way_back.artifact:
            found.append((f"way back of {channel}: {desk.name_of(state.way_back.artifact)}", state.way_back.artifact))
    return found


def _measured(desk: Desk, held: list[tuple[str, str]], unit: str) -> Iterator[Reservation]:
    """A cost of every deployed model and way back, each model once, as their newest selection scorecards say it.

    On selection items, since that is what decisions hold against the capacity.
    """
    cards = {c.artifact: c for _, c in desk.all(Scorecard) if c.role == "selection"}
    named: dict[str, str] = {}
    for what, artifact in held:
        named.setdefault(artifact, what)
    for artifact, what in named.items():
        found = [m for m in cards[artifact].cost if m.unit == unit] if artifact in cards else []
        if found:
            yield Reservation(int(found[0].value), f"{what} ({found[0].basis}: {found[0].method})")
        else:
            yield Reservation(0, f"{what}: its {unit} were not measured")


def _asked(desk: Desk) -> Iterator[Reservation]:
    """What waits for a person."""
    yield from (Reservation(1, f"record {digest[:12]} waits for signatures") for digest in waiting(desk))
    yield from (Reservation(1, f"proposal {w.digest[:12]} waits for another owner") for w in still_waiting(desk))
    channels = desk.channels()
    shadow = channels["shadow"].artifact
    if shadow and shadow != channels["champion"].artifact:
        yield Reservation(1, f"{desk.name_of(shadow)} is in shadow and waits to be promoted or taken back")
