"""What a policy keeps free, and how slowly it lets the champion be replaced."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["Allowance", "Hysteresis", "Reserve"]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Allowance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account beside storage: how much there is, and what of it must stay free after a promotion is paid for.

    Attributes:
        account: ``memory``: decoded bytes of candidate and way back together; ``latency``: their multiply-adds on the
            selection suites; ``model-calls``: what scoring the candidates of a round took; ``sealed-openings``: looks at
            the sealed suites, the winner's own included; ``attention``: acts of people, those of a promotion included.
        capacity: How much there is, in the account's unit.
        minimum: What must remain.
    """

    account: Literal["memory", "latency", "model-calls", "sealed-openings", "attention"]
    capacity: Count
    minimum: Count


class Reserve(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must stay free after a promotion and its way back are paid for.

    Attributes:
        capacity_bytes: Storage the channels may use.
        minimum_bytes: What must remain.
        accounts: The other accounts that a decision checks, each once. Of those that are not named, ``model-calls`` is
            checked against the budget and ``sealed-openings`` against the gates, the others are not.
    """

    capacity_bytes: Count
    minimum_bytes: Count
    accounts: tuple[Allowance, ...]


class Hysteresis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How slowly the champion is replaced and former champions are given up; 0 switches a rule off.

    Attributes:
        removal_threshold: A former champion is retired only if the champion's joint mean is above its own by more than
            this, by the paired lower bound, as a share of items. Adding one has `Utility.switching_threshold`.
        window_days: Days of ledger time a champion is observed before it may be replaced.
        window_decisions: Decisions on record against a champion before it may be replaced.
        cooldown_hours: Hours of ledger time after a promotion or rollback of the champion without another promotion.
        smaller_by: Share of the champion's bytes that a finalist has to save, with nothing lost beyond the margins, for
            the decision to be merge-compress.
    """

    removal_threshold: Share
    window_days: Annotated[int, Meta(ge=0, le=3650)]
    window_decisions: Annotated[int, Meta(ge=0, le=10_000)]
    cooldown_hours: Annotated[int, Meta(ge=0, le=87_600)]
    smaller_by: Share
