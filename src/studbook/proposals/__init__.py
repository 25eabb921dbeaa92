"""Proposals: what an experiment needs of the program's code, and who may end the wait for it.

A breeding experiment never changes code. It writes down what is missing; no model is promoted until another owner says that
reviewed code has it, or that it is not to come. The code itself goes through the software's own life.
"""

from __future__ import annotations

from studbook.proposals.rules import Waiting, check_closing, check_proposal, waiting

__all__ = ["Waiting", "check_closing", "check_proposal", "waiting"]
