"""The verbs that move channels, done by the server that holds the lab: the same acts, records and refusals."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from studbook.errors import OutOfOrder, UsageError
from studbook.lab.canaries import TrialState
from studbook.lab.channels import promotion, require_promoter
from studbook.lab.commands import Entering, Halting, Planning, Proposing, Releasing, Rolling
from studbook.lab.desk import Desk
from studbook.lab.halting import resumption
from studbook.lab.moves import Moves
from studbook.lab.pending import Signed, signers_here
from studbook.lab.serving import tell
from studbook.lab.words import plain_text
from studbook.records import (
    CanaryPlan,
    Halt,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    Resumption,
    RollbackRecord,
    digest,
)
from studbook.seal import seal

__all__ = ["Remote"]

_R = TypeVar("_R", bound=Record)


class Remote(Moves):
    """A lab whose server does what moves its channels; people's keys are read here and nowhere else.

    Args:
        look: Opens the lab for reading; asked again after every act, so that what is told comes from the ledger.
    """

    def __init__(self, look: Callable[[], Desk]) -> None:
        super().__init__(look())
        self._look = look

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.desk.close()

    def there(self) -> bool:
        """Whether a server holds the lab."""
        try:
            tell(self.desk, "status")
        except OutOfOrder as error:
            if error.reason != "control.nobody":
                raise
            return False
        return True

    def release(
        self, name: str, stage: str, person: str | None = None, reason: str = "", **beside: str | None
    ) -> Record | Signed:
        """Have a winner moved to shadow or canary; with a person's key, which signs here, to champion."""
        if stage in ("shadow", "canary"):
            words = {"name": name, "stage": stage, "reason": reason, **beside}
            return self._done("release", msgspec.convert(words, Releasing), ReleaseRecord)
        if person is None:
            raise UsageError("promotion to champion is an act of a person: name who does it", where="--as")
        plain_text(reason, "--reason")
        # Refused without the person's key before the server is asked.
        key = require_promoter(self.desk, person).key
        template = self._done("propose", Proposing(name, person, key), PromotionTemplate)
        return self._entered(promotion(self.desk, template, person, reason), person)

    def rollback(self, channel: str = "champion", reason: str = "", to: str | None = None) -> RollbackRecord:
        """Have the last move of a channel undone."""
        return self._done("rollback", Rolling(channel, reason, to), RollbackRecord)

    def plan(self, channel: Literal["shadow", "canary"], settings: Any = None) -> CanaryPlan:
        """Have the plan of a trial registered."""
        return self._done("plan", Planning(channel, settings), CanaryPlan)

    def trials(self) -> tuple[TrialState, ...]:
        """Where the trials stand: what was seen just now included where a server runs, else as far as it is written."""
        if not self.there():
            return super().trials()
        return msgspec.convert(self._ask("trials", None), tuple[TrialState, ...])

    def pause(self, reason: str = "", person: str = "") -> Halt:
        """Have the trial that runs paused."""
        return self._done("pause", Halting(reason, person), Halt)

    def resume(self, person: str, reason: str = "") -> Resumption | Signed:
        """Let go on what was paused or stopped; the person's key signs here."""
        found = self._entered(resumption(self.desk, person, reason), person)
        assert isinstance(found, Resumption | Signed)
        return found

    def abort(self, reason: str = "", person: str = "") -> Halt:
        """Have the trial that there is ended."""
        return self._done("abort", Halting(reason, person), Halt)

    def stop(self, reason: str = "", person: str = "") -> Halt:
        """Have everything stopped; the server itself goes on, and refuses requests."""
        return self._done("halt", Halting(reason, person), Halt)

    def _entered(self, record: Record, person: str) -> Record | Signed:
        """Sign a record and have it entered; it waits where that takes more people."""
        envelope = seal(record, *signers_here(self.desk, record, person))
        told = self._ask("enter", Entering(envelope.decode()))
        return record if told["committed"] else Signed(record, digest(record), False, told["waiting"])

    def _done(self, command: str, arguments: Struct, kind: type[_R]) -> _R:
        """The record that a command made, as the ledger has it."""
        made = self._ask(command, arguments)["record"]
        return self.desk.workspace.get(made, kind)

    def _ask(self, command: str, arguments: Struct | None) -> Any:
        found = tell(self.desk, command, msgspec.to_builtins(arguments) if arguments else None)
        self.desk.close()
        self.desk = self._look()
        return found
