"""A router for the packages that are installed, learnt from the frozen development suites; nothing that judges is read.

Of every task suite each second item calibrates the margin and the others are learnt from. What nobody installed answers
for is asked too: whoever is chosen for it is wrong, so the margin keeps such requests with the fallback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from studbook.errors import RecordRefused, UsageError, printable
from studbook.files import read_file
from studbook.lab.desk import Desk
from studbook.lab.frozen import of_role
from studbook.lab.package_basis import task_labels
from studbook.lab.segments import install_router
from studbook.lab.specialists import OWN, TASK, specialists
from studbook.records import RouteRule, RouteThreshold, digest, read_plain_json
from studbook.runtime.routing.router import Candidate, Router, RouteRequest
from studbook.runtime.routing.state import learn_state, open_state
from studbook.runtime.routing.thresholds import margin_threshold

__all__ = ["SHARE", "Learned", "learn", "read_rules"]

SHARE = 0.9
"""Share of the choices that have to be right from the margin on."""
_LIMIT = 1 << 20


class Learned(Struct, frozen=True):
    """A router that was learnt and entered.

    Attributes:
        router: Digest of its RouterState.
        thresholds: Digest of its RouteThreshold; None where rules alone decide.
        clusters: What its specialists answer for.
        rules: How many rules it asks first.
        fallback: Who answers where nobody leads: the id of a package, or ``channel/model``.
        margin: The lead it asks for; None without thresholds.
        items: Items the margin was measured on.
        led: How many of them lead by the margin.
        right: For how many of these the right specialist leads.
    """

    router: str
    thresholds: str | None
    clusters: tuple[str, ...]
    rules: int
    fallback: str
    margin: float | None
    items: int
    led: int
    right: int


def learn(desk: Desk, rules: Sequence[RouteRule] = (), fallback: str | None = None, share: float = SHARE) -> Learned:
    """Learn a router for the packages that may answer now, and enter it with its margin.

    Args:
        desk: The lab, opened for writing.
        rules: Asked before the n-grams.
        fallback: Id of the package that answers when nobody leads; None for the model of the channel it is released to.
        share: Share of the choices that have to be right from the margin on.

    Raises:
        UsageError: if a rule names an unknown cluster, the fallback may not answer, or there is nothing to decide on.
        OutOfOrder: if no development suite is frozen.
    """
    if not 0.0 < share <= 1.0:
        advice = "Give the share of choices that have to be right, such as 0.9."
        raise UsageError(
            f"{share} is no share above 0 and up to 1", where="--share", reason="usage.share", advice=advice
        )
    known = task_labels(desk)
    if strange := sorted({rule.cluster for rule in rules} - set(known)):
        advice = f"Known labels: {', '.join(known)}."
        raise UsageError(f"no frozen task suite has the label {strange[0]!r}", advice=advice, reason="usage.cluster")
    able = [c for c in specialists(desk, fallback).candidates if c.eligible]
    if fallback is not None and fallback not in {c.id for c in able}:
        text = f"{printable(fallback)!r} is not the id of a package that may answer"
        raise UsageError(text, where="--fallback", advice="See why: studbook package list", reason="usage.name")
    asked, held_back = _prompts(desk)
    clusters = _told_apart([c for c in able if c.id != fallback])
    if not clusters and not rules:
        text = "fewer than two packages answer for different clusters, so there is nothing to choose between"
        advice = "Install another specialist, or name rules: studbook routes learn --rules FILE"
        raise UsageError(text, where="router", advice=advice, reason="route.examples")
    missing = [c for c in clusters if not asked.get(c)]
    if missing:
        advice = "Freeze one: studbook suite freeze FOLDER"
        text = f"no development suite asks for {missing[0]}"
        raise UsageError(text, where="router", advice=advice, reason="route.examples")
    state, centroids = learn_state(desk.header, {c: asked[c] for c in clusters}, rules, fallback or OWN)
    bare = Router(open_state(state, centroids))
    margins, right = _leads(bare, able, held_back)
    threshold = margin_threshold(desk.header, margins, right, share, encoder=digest(state)) if margins else None
    install_router(desk, state, centroids, threshold)
    return _learned(bare, threshold, margins, right)


def read_rules(path: Path) -> tuple[RouteRule, ...]:
    """Rules out of a JSON list of objects with ``text``, ``place`` (start, word, anywhere) and ``cluster``.

    Raises:
        RecordRefused: if it is none; ``route.rules``.
    """
    try:
        return msgspec.convert(read_plain_json(read_file(path, _LIMIT), path), tuple[RouteRule, ...])
    except msgspec.ValidationError as error:
        advice = 'Write a list such as [{"text": "rev ", "place": "start", "cluster": "rev"}].'
        raise RecordRefused(f"is no list of rules: {error}", where=path, advice=advice, reason="route.rules") from error


def _told_apart(able: Sequence[Candidate]) -> tuple[str, ...]:
    """The clusters that several packages share out; none where there is nothing to tell apart."""
    clusters = sorted({cluster for candidate in able for cluster in candidate.clusters})
    return tuple(clusters) if len(able) > 1 and len(clusters) > 1 else ()


def _prompts(desk: Desk) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """Cluster -> prompts to learn from, and prompts to calibrate on; no prompt is in both."""
    learnt: dict[str, list[str]] = {}
    held: dict[str, list[str]] = {}
    for suite in of_role(desk, "development"):
        if suite.manifest.dimension == "task":
            prompts = list(dict.fromkeys(item.prompt for item in suite.items))
            learnt.setdefault(suite.manifest.cluster, []).extend(prompts[::2])
            held.setdefault(suite.manifest.cluster, []).extend(prompts[1::2])
    known = {prompt for prompts in learnt.values() for prompt in prompts}
    return learnt, {cluster: [p for p in prompts if p not in known] for cluster, prompts in held.items()}


def _leads(
    router: Router, able: Sequence[Candidate], held_back: Mapping[str, Sequence[str]]
) -> tuple[list[float], list[bool]]:
    """Lead of the best specialist for every prompt that no rule decides, and whether it answers for that cluster."""
    margins: list[float] = []
    right: list[bool] = []
    for cluster, prompts in sorted(held_back.items()):
        for prompt in prompts:
            found = router.route(RouteRequest(prompt, permissions=TASK), able)
            if found.how == "ngrams" and found.margin is not None:
                margins.append(found.margin)
                right.append(any(c.revision == found.selected and cluster in c.clusters for c in able))
    return margins, right


def _learned(
    router: Router, threshold: RouteThreshold | None, margins: Sequence[float], right: Sequence[bool]
) -> Learned:
    state, value = router.known.state, threshold.value if threshold else None
    led = [good for margin, good in zip(margins, right, strict=True) if value is not None and margin >= value]
    return Learned(
        router=router.known.digest,
        thresholds=digest(threshold) if threshold else None,
        clusters=state.clusters,
        rules=len(state.rules),
        fallback=state.fallback or "",
        margin=value,
        items=len(margins),
        led=len(led),
        right=sum(led),
    )
