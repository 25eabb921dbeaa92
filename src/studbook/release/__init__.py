"""Gates, admission and channels as a pure state machine: records in, records or refusals out, no I/O.

The rules:

1. A candidate enters a channel only with every gate of its template passed.
2. Shadow needs an admission; champion needs to have been in shadow and a person's signature.
3. The first champion is an approved source: there has to be something to beat.
4. Every move names its way back. A rollback goes there or further along it, and never forward.
"""

from __future__ import annotations

from studbook.release.channels import ChannelState, MoveFault, channel_history, channel_state, move_faults, ways_back
from studbook.release.gates import (
    champion_template,
    check_admitted,
    check_carried,
    check_claim,
    check_promoted,
    check_stage,
    decided_against,
    gate,
)
from studbook.release.moves import admit, first_champion, promote, roll_back, to_shadow

__all__ = [
    "ChannelState",
    "MoveFault",
    "admit",
    "champion_template",
    "channel_history",
    "channel_state",
    "check_admitted",
    "check_carried",
    "check_claim",
    "check_promoted",
    "check_stage",
    "decided_against",
    "first_champion",
    "gate",
    "move_faults",
    "promote",
    "roll_back",
    "to_shadow",
    "ways_back",
]
