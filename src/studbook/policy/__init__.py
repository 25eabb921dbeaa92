"""The policy: one signed document that says what a round may not decide for itself.

`rules` asks it small questions with typed answers, `default` is the one a new lab starts with, `changes` says in words
how two of them differ and `loosening` which differences let more pass. The record itself is `studbook.records.Policy`;
who may sign it says the root of keys.
"""

from __future__ import annotations

from studbook.policy.changes import PolicyChange, record_changes
from studbook.policy.default import default_policy
from studbook.policy.loosening import loosened
from studbook.policy.rules import (
    LEAST_ALPHA,
    check_generation,
    check_operator,
    check_policy,
    check_version,
    inherited_licence,
    operator_refusals,
    stage_rule,
)

__all__ = [
    "LEAST_ALPHA",
    "PolicyChange",
    "check_generation",
    "check_operator",
    "check_policy",
    "check_version",
    "default_policy",
    "inherited_licence",
    "loosened",
    "operator_refusals",
    "record_changes",
    "stage_rule",
]
