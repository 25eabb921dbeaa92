"""The verbs that move channels, try what stands in them and bring it outside, one method each; `Lab` has them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from studbook.errors import OutOfOrder
from studbook.lab import channels, deploying, rollbacks
from studbook.lab.canaries import Canaries, TrialState
from studbook.lab.desk import Desk
from studbook.lab.pending import Signed
from studbook.lab.trials import require_going
from studbook.records import CanaryPlan, Halt, Record, Resumption, RollbackRecord
from studbook.release import stage_before

__all__ = ["Moves"]


class Moves:
    """What moves the channels of a lab.

    Args:
        desk: The lab.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.canaries = Canaries(desk)

    def release(
        self, name: str, stage: str, person: str | None = None, reason: str = "", **beside: str | None
    ) -> Record | Signed:
        """Move a winner to shadow or canary or, with a person's key, to champion; what needs more people waits for them."""
        with self.canaries.settled():
            return channels.release(self.desk, name, stage, person, reason, **beside)

    def promote(self, person: str, reason: str = "") -> Record | Signed:
        """Make what stands in the stage before champion the champion, by a person's key."""
        require_going(self.desk)
        stage = stage_before(self.desk.policy[1], "champion")
        if self.desk.channels()[stage].artifact is None:
            advice = f"Release a winner there first: studbook release NAME --to {stage}"
            raise OutOfOrder("nothing stands there", where=stage, advice=advice, reason="order.stage")
        return self.release(stage, "champion", person, reason)

    def rollback(self, channel: str = "champion", reason: str = "", to: str | None = None) -> RollbackRecord:
        """Undo the last move of a channel, or go back to an earlier state of it; needs no person's key."""
        with self.canaries.settled():
            return rollbacks.rollback(self.desk, channel, reason, to)

    def deploy(self, channel: str, folder: Path, wanted: deploying.Wanted | None = None) -> deploying.Deployed:
        """Bring a folder outside the lab to what a channel points at, for what serves its format; enters nothing."""
        return deploying.deploy(self.desk, channel, folder, wanted or deploying.Wanted())

    def plan(self, channel: Literal["shadow", "canary"], settings: Mapping[str, Any] | None = None) -> CanaryPlan:
        """Register the plan of a trial of what stands in shadow, before it begins."""
        return self.canaries.plan(channel, settings)[1]

    def trials(self) -> tuple[TrialState, ...]:
        """Where the trials in shadow and canary stand, as far as it is written."""
        return self.canaries.state()

    def pause(self, reason: str = "", person: str = "") -> Halt:
        """Pause the trial that runs: its candidate answers nobody until a person resumes; needs no person's key."""
        return self.canaries.pause(reason, person)

    def resume(self, person: str, reason: str = "") -> Resumption | Signed:
        """Let go on what was paused or stopped, by a person's key."""
        return self.canaries.resume(person, reason)

    def abort(self, reason: str = "", person: str = "") -> Halt:
        """End the trial that there is and take its candidate out of the channel; needs no person's key."""
        return self.canaries.abort(reason, person)

    def stop(self, reason: str = "", person: str = "") -> Halt:
        """Stop everything: shadow and canary are emptied, and no request is answered until a person resumes."""
        return self.canaries.stop(reason, person)
