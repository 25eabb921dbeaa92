"""What another terminal may have a server do: nothing that a person has not signed, and nothing the lab does not carry."""

from __future__ import annotations

from typing import Any

import pytest

from lab_fixtures import PERSON, Place
from release_fixtures import refused
from studbook.errors import NotAuthorised, StudbookError
from studbook.lab import Lab
from studbook.lab.channels import require_promoter
from studbook.lab.commands import Commands
from studbook.lab.halting import resumption
from studbook.lab.pending import signers_here
from studbook.records import Halt, PromotionTemplate, Record, Resumption
from studbook.seal import SigningKey, seal
from trial_fixtures import into_canary


@pytest.fixture
def lab(tried: Place) -> Lab:
    opened = tried.open()
    into_canary(opened)
    yield opened
    opened.close()


def enter(lab: Lab, record: Record, *keys: SigningKey) -> Any:
    signers = keys or tuple(signers_here(lab.desk, record, PERSON))
    return Commands(lab).handlers()["enter"]({"envelope": seal(record, *signers).decode()})


def test_a_signed_resumption_is_entered_once(lab: Lab) -> None:
    lab.pause("a look")
    record = resumption(lab.desk, PERSON, "all is well")
    assert enter(lab, record)["committed"]
    assert lab.canaries.run("canary").going
    lab.pause("another look")
    enter(lab, record)
    # It lets go on what it names, and nothing that came later.
    assert not lab.canaries.run("canary").going
    assert len(list(lab.desk.all(Resumption))) == 1


def test_what_a_process_signed_or_somebody_else_in_a_persons_name_is_refused(lab: Lab) -> None:
    lab.pause("a look")
    record = resumption(lab.desk, PERSON, "all is well")
    halt = next(h for _, h in lab.desk.all(Halt))
    process = signers_here(lab.desk, halt, None)
    with pytest.raises(NotAuthorised):
        enter(lab, record, *process)
    with refused("authority.person"):
        enter(lab, resumption(lab.desk, "ben", "all is well"), *signers_here(lab.desk, record, PERSON))
    envelope = seal(record, *signers_here(lab.desk, record, PERSON)).decode()
    with pytest.raises(StudbookError):
        Commands(lab).handlers()["enter"]({"envelope": envelope.replace("payload", "Payload", 1)})
    assert not list(lab.desk.all(Resumption))


def test_nothing_but_promotions_and_resumptions_comes_in_signed(lab: Lab) -> None:
    policy = lab.desk.policy[1]
    with refused("pending.kind"):
        enter(lab, policy)


def test_a_promotion_of_what_does_not_stand_there_is_told_so(lab: Lab) -> None:
    lab.rollback("canary", "from the start", "nothing")
    with refused("order.stage"):
        lab.promote(PERSON)


def test_a_promotion_whose_trial_is_not_ready_is_not_even_proposed(lab: Lab) -> None:
    key = require_promoter(lab.desk, PERSON).key
    before = list(lab.desk.all(PromotionTemplate))
    with refused("order.gate"):
        Commands(lab).handlers()["propose"]({"name": "canary", "person": PERSON, "key": key})
    assert list(lab.desk.all(PromotionTemplate)) == before


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("pause", {"reason": 1}),
        ("pause", {"key": "a"}),
        ("release", {"name": "shadow", "stage": "champion"}),
        ("plan", {"channel": "champion"}),
        ("rollback", {}),
        ("enter", {}),
    ],
)
def test_arguments_that_a_command_does_not_take_are_told(lab: Lab, command: str, arguments: dict[str, Any]) -> None:
    with refused("control.arguments"):
        Commands(lab).handlers()[command](arguments)
