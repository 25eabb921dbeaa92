"""Who answers: from one specialist by rule or by likeness to small bounded arrangements of several.

Read in this order: `state` (a router's knowledge, learnt and read back), `rules` and `ngrams` (its two ways to read a
prompt), `router` (eligibility, ranking, margin, fallback; pure), `thresholds` (calibrated numbers with hysteresis),
`running` (how a model is asked), then `cascade`, `pipeline`, `committee` and `stack`, each bounded, each refusing with a
typed error. `tell` writes a decision as a record, `replay` derives it again. Nothing here knows of files or of HTTP.
"""

from __future__ import annotations

from studbook.runtime.routing.router import Candidate, Decision, Router, RouteRequest

__all__ = ["Candidate", "Decision", "RouteRequest", "Router"]
