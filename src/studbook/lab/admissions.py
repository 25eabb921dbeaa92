"""Admissions by what they admit to: the channels, or as a specialist to be packaged and nothing else."""

from __future__ import annotations

from studbook.lab.desk import Desk
from studbook.records import AdmissionRecord, PromotionTemplate

__all__ = ["admitted_to_channels"]


def admitted_to_channels(desk: Desk) -> list[tuple[str, AdmissionRecord]]:
    """Digest and record of every unrevoked admission to the channels, oldest first; specialists are none of them."""
    get = desk.workspace.get
    return [(d, a) for d, a in desk.unrevoked(AdmissionRecord) if get(a.template, PromotionTemplate).stage == "shadow"]
