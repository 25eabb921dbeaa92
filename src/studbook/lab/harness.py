"""The models of a lab for lm-eval-harness (extra ``lm-eval``); importing this imports the harness, as nothing else does."""

from __future__ import annotations

from pathlib import Path

from studbook.exchange.lm_eval import StudbookLM
from studbook.lab import Lab

__all__ = ["open_lm"]


def open_lm(lab: Path | str, name: str, *, ending: bool = False, keys: Path | None = None) -> StudbookLM:
    """A model of a lab that the harness can ask; the lab is only read, and closed again.

    Args:
        lab: The lab's folder.
        name: Name, channel, digest or unique start of a digest.
        ending: Score the end token as a part of every continuation, as Studbook's scorecards do.
        keys: Folder of keys; ``<lab>.keys`` by default.

    Raises:
        UsageError: if nothing is called that, if it is no model, or if the harness is not installed.
        StudbookError: any of its kinds, if the folder is not a lab.
    """
    with Lab(lab, keys, writer=False) as opened:
        return StudbookLM(opened.desk.model(opened.desk.find_model(name)), ending=ending)
