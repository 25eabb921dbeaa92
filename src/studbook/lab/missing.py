"""What a round or an experiment needs and this version cannot do, written down as a proposal of code by itself.

The refusal stays what it is. A slip of the pen is no need: a tag that nearly is a known operator proposes nothing. Neither
does an extra that is not installed, for its code exists. What was proposed once, and answered or not, is not proposed again.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from studbook.breeding.operators import operator_names
from studbook.errors import NotAuthorised
from studbook.lab.desk import Desk
from studbook.lab.proposals import Proposals
from studbook.records import CodeChangeProposal, SuiteManifest

__all__ = ["need_judge", "need_operators", "need_scorers"]

_TAG = re.compile(r"([a-z][a-z0-9-]{2,59})/[1-9][0-9]{0,2}")
# From this similarity on (2 x matching letters / letters of both) a name is taken for a mistyped one.
_SLIP = 0.75


def need_operators(desk: Desk, recipes: Sequence[Mapping[str, Any]], what: str, evidence: str) -> None:
    """Propose every operator that recipes name and this version does not have.

    Args:
        desk: The lab.
        recipes: Operator records, not checked yet.
        what: Who needs it, such as ``round rot``.
        evidence: Digest of the record that shows the need.

    Raises:
        StudbookError: any of its kinds, if the lab refuses the proposal.
    """
    for tag in dict.fromkeys(str(recipe.get("operator")) for recipe in recipes):
        named = _TAG.fullmatch(tag)
        if named is None or tag in operator_names():
            continue
        known = {name.partition("/")[0] for name in operator_names()}
        if named[1] in known or not difflib.get_close_matches(named[1], known, 1, _SLIP):
            _propose(
                desk, f"operator {tag}", f"{what} names {tag}, and no operator of this version is called that", evidence
            )


def need_judge(desk: Desk, artifact: str, label: str) -> None:
    """Propose suites that judge checkpoints: one was bred here, and a decision was asked for.

    Raises:
        StudbookError: any of its kinds, if the lab refuses the proposal.
    """
    manifest = next(d for d, m in desk.candidates() if m.artifact.sha256 == artifact)
    why = f"a decision on {desk.name_of(artifact)} for {label} was asked for; suites judge SLM1 models alone"
    _propose(desk, "suites that judge checkpoints", why, manifest)


def need_scorers(desk: Desk, suites: Sequence[str], known: str, what: str) -> None:
    """Propose that every baseline of an experiment answers suites whose kind of scorer some cannot answer by.

    Args:
        desk: The lab.
        suites: Digests of the experiment's SuiteManifests.
        known: The scorer by which every baseline answers.
        what: Who needs it, such as ``experiment keep-more``.

    Raises:
        StudbookError: any of its kinds, if the lab refuses the proposal.
    """
    held = {d: desk.workspace.get(d, SuiteManifest) for d in suites}
    for digest, suite in held.items():
        if suite.scorer != known:
            capability = f"random search and ensembles that answer by {suite.scorer}"
            _propose(desk, capability, f"{what} is held against them on suite {suite.name}", digest)


def _propose(desk: Desk, capability: str, why: str, evidence: str) -> None:
    if any(made.capability == capability for _, made in desk.all(CodeChangeProposal)):
        return
    authority = desk.workspace.authority()
    try:
        key = desk.workspace.keys.find(authority, CodeChangeProposal.zone, CodeChangeProposal.kind())
    except NotAuthorised:
        desk.progress.say(f"nobody here may propose it: {capability}")
        return
    person = next(grant.owner for grant in authority.root.keys if grant.key == key.public)
    made = Proposals(desk).new(capability, why, [evidence], person)
    state = "promotions wait until another owner closes it" if made.committed else made.waiting
    desk.progress.say(f"proposal {made.digest[:16]}, {capability}: {state}")
