"""Specialists to choose among, a router that learnt from a few prompts, and a key that may seal its log."""

from __future__ import annotations

import hashlib
from functools import cache

from authority_fixtures import HEADER, ROOT, made
from lab_fixtures import founder
from studbook.models.engine import Engine
from studbook.records import KeyGrant, RouteRule, Zone, replace
from studbook.runtime.routing.router import Candidate, Router
from studbook.runtime.routing.state import Known, learn_state, open_state
from studbook.seal import Authority

EXAMPLES = {
    "rev": [f"rev {word}>" for word in ("abc", "dog", "house", "trees", "xyz", "lamp")],
    "cap": [f"cap {word}>" for word in ("abc", "dog", "house", "trees", "xyz", "lamp")],
    "brk": [f"brk {word}>" for word in ("([", "{[(", "(()", "[[{", "({}", "[(")],
}
RULES = (
    RouteRule(text="rev ", place="start", cluster="rev"),
    RouteRule(text="cap ", place="start", cluster="cap"),
)
HOST_KEY = made(99)
AUTHORITY = Authority(
    replace(
        ROOT,
        keys=(
            *ROOT.keys,
            KeyGrant(key=HOST_KEY.public, owner="ann", holder="process", zone=Zone.HOST, kinds=("route-seal/1",)),
        ),
    )
)


def revision(name: str) -> str:
    """A digest for a name."""
    return hashlib.sha256(name.encode()).hexdigest()


def module(name: str, *clusters: str, cost: int = 100, **changes: object) -> Candidate:
    """A module that may answer."""
    return Candidate(name, revision(name), clusters or (name,), cost)._replace(**changes)


MODULES = (module("rev"), module("cap"), module("brk"), module("all", "rev", "cap", "brk", cost=900))


@cache
def known(*, rules: bool = False, fallback: str | None = "all") -> Known:
    """A router's state, opened."""
    return open_state(*learn_state(HEADER, EXAMPLES, RULES if rules else (), fallback))


def router(*, rules: bool = False, fallback: str | None = "all") -> Router:
    """A router without a margin."""
    return Router(known(rules=rules, fallback=fallback))


@cache
def founder_engine(name: str) -> Engine:
    """A shipped founder in an engine that counts fuel."""
    return Engine((founder(name) / f"{name}.slm").read_bytes(), fuel=True)
