"""Gates, admission and channels as a pure state machine: records in, records or refusals out, no I/O.

The rules:

1. A candidate enters a channel only with every gate of its template passed.
2. Shadow and canary need an admission; champion needs to have been in the stage before, and a person's signature.
3. The first champion is an approved source: there has to be something to beat.
4. Every move names its way back. A rollback goes there or further along it, and never forward.
5. A trial in shadow or canary has a plan before it begins; `canary` says when it steps, pauses, rolls back or is ready.
"""

from __future__ import annotations

from studbook.release.canary import CONVICTED, FINAL, Controller, Verdict
from studbook.release.channels import (
    ALONE,
    ChannelState,
    MoveFault,
    channel_history,
    channel_state,
    move_faults,
    ways_back,
)
from studbook.release.cohort import drawn, in_cohort, probe_after
from studbook.release.detection import parts_of, simulate_detection
from studbook.release.gates import (
    champion_template,
    check_admitted,
    check_carried,
    check_claim,
    check_promoted,
    decided_against,
    gate,
    stage_before,
    standing_gate,
)
from studbook.release.moves import admit, enter, first_champion, promote, roll_back

__all__ = [
    "ALONE",
    "CONVICTED",
    "FINAL",
    "ChannelState",
    "Controller",
    "MoveFault",
    "Verdict",
    "admit",
    "champion_template",
    "channel_history",
    "channel_state",
    "check_admitted",
    "check_carried",
    "check_claim",
    "check_promoted",
    "decided_against",
    "drawn",
    "enter",
    "first_champion",
    "gate",
    "in_cohort",
    "move_faults",
    "parts_of",
    "probe_after",
    "promote",
    "roll_back",
    "simulate_detection",
    "stage_before",
    "standing_gate",
    "ways_back",
]
