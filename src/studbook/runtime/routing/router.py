"""The router: one specialist for one request, or the fallback, or a refusal; pure, so a record of it can be replayed.

1. Eligibility comes before ranking: what may not answer, or would not fit, is never scored.
2. Rules, in order: the first that holds and has an eligible candidate for its cluster decides.
3. Otherwise n-grams or a sentence encoder, whichever the state names, score every candidate by the likest of its
   clusters. Ties go to the cheaper one, then to the id.
4. The best is taken if it leads by the threshold's margin. Whoever holds a conversation keeps it down to the lower end of
   the threshold and loses it only to a lead of the upper end.
5. Without such a lead the fallback answers, if it may; otherwise the request is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.records import RouteCandidate, RouteThreshold, digest
from studbook.runtime.routing.embeddings import Embedder, cosines
from studbook.runtime.routing.ngrams import scores
from studbook.runtime.routing.rules import first_rule
from studbook.runtime.routing.state import Known

__all__ = ["MAX_CANDIDATES", "Candidate", "Decision", "RouteRequest", "Router", "decide", "excluded", "request_sha256"]

MAX_CANDIDATES = 1024
"""Most modules one request chooses among."""


class Candidate(NamedTuple):
    """A module that might answer.

    Attributes:
        id: Id of its package.
        revision: Digest of the package record.
        clusters: The skills it may answer.
        cost: Decoded bytes that have to be active for it.
        eligible: Whether whoever holds it would let it answer.
        why: A reason code where not, such as ``package.suspended``.
        permissions: What it asks to be allowed.
        licence: SPDX identifier; empty where nobody asks.
        load: Bytes that have to be decoded first; 0 where it is resident.
    """

    id: str
    revision: str
    clusters: tuple[str, ...]
    cost: int
    eligible: bool = True
    why: str = ""
    permissions: tuple[str, ...] = ()
    licence: str = ""
    load: int = 0


class RouteRequest(NamedTuple):
    """What is asked, and under which bounds.

    Attributes:
        prompt: The text.
        budget: Most decoded bytes it may have active; None for any.
        load: Most bytes that may be decoded for it first; None for any.
        permissions: What the task allows.
        licences: SPDX identifiers it accepts; empty for any.
        held: Id of the package that answered this conversation last; None for a fresh one.
    """

    prompt: str
    budget: int | None = None
    load: int | None = None
    permissions: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    held: str | None = None


class Decision(NamedTuple):
    """Who answers, and why.

    Attributes:
        candidates: Everyone that was looked at, sorted by id.
        how: What decided.
        rule: Index of the rule that held, or None.
        selected: Revision of the package, or None where the request is refused.
        margin: Lead of the best score over the second, or None.
        ties: Ids that shared the best score, if several did.
        reason: A code for why.
        estimated: Decoded bytes it is expected to have active.
        fallback: Id of the package that stands ready, or None.
    """

    candidates: tuple[RouteCandidate, ...]
    how: Literal["rule", "ngrams", "sentences", "fallback", "refused"]
    rule: int | None
    selected: str | None
    margin: float | None
    ties: tuple[str, ...]
    reason: str
    estimated: int
    fallback: str | None


class Router:
    """A router's state and the margin it asks for.

    Args:
        known: The state, opened.
        threshold: Its margin; None takes the best whatever its lead.
        encoder: The sentence encoder that the state names, open. Without it such a router decides by rules, and replays
            from recorded scores; it refuses to score a prompt.

    Raises:
        DigestDiffers: if the margin was measured with another state (``route.threshold``), or the state names another
            encoder, or none (``route.encoder``).
    """

    def __init__(self, known: Known, threshold: RouteThreshold | None = None, encoder: Embedder | None = None) -> None:
        if threshold is not None and (threshold.purpose, threshold.encoder) != ("margin", known.digest):
            text = "was measured with another router state, or is no margin"
            advice = "Calibrate the margin again with the state in force."
            raise DigestDiffers(text, where="route threshold", reason="route.threshold", advice=advice)
        if encoder is not None and not _fits(known, encoder):
            text = "is not the sentence encoder that the router's state names"
            advice = "Open the encoder that the state names, or learn the state again with this one."
            raise DigestDiffers(text, where="encoder", reason="route.encoder", advice=advice)
        self.known, self.threshold, self.encoder = known, threshold, encoder
        self.threshold_digest = digest(threshold) if threshold else None

    @property
    def reads(self) -> bool:
        """Whether it can score a prompt: its state names no sentence encoder, or the encoder is open."""
        return self.encoder is not None or not isinstance(self.known.state.encoder, str)

    def route(self, request: RouteRequest, modules: Sequence[Candidate]) -> Decision:
        """Choose one module, or none.

        Raises:
            UsageError: if there are too many modules, or two share an id; ``route.candidates``.
            OutOfOrder: if no rule decides and the sentence encoder is not open; ``route.encoder``.
        """
        rule = first_rule(self.known.state.rules, request.prompt)
        return decide(self, request, modules, None, rule)

    def cluster(self, prompt: str) -> str | None:
        """The cluster a prompt is likest to, by rule or else by centroid; None where the router knows none."""
        known = self.known
        rule = first_rule(known.state.rules, prompt)
        if rule is not None:
            return known.state.rules[rule].cluster
        found = self._cosines(prompt)
        return known.state.clusters[found.index(max(found))] if found else None

    def scores(self, prompt: str, fit: Sequence[Candidate]) -> dict[str, float]:
        """Id -> score of everyone that answers for a cluster the router knows; the fallback competes with nobody."""
        state = self.known.state
        each = dict(zip(state.clusters, self._cosines(prompt), strict=True))
        pairs = ((m.id, [each[c] for c in m.clusters if c in each]) for m in fit if m.id != state.fallback)
        return {name: max(values) for name, values in pairs if values}

    def _cosines(self, prompt: str) -> list[float]:
        """Cosine to the centroid of every cluster; none where only rules decide."""
        known, named = self.known, self.known.state.encoder
        if known.centroids is None or named is None:
            return []
        if not isinstance(named, str):
            return scores(prompt, named, known.centroids, known.norms)
        if self.encoder is None:
            text = f"scores prompts with the sentence encoder {named[:16]}..., which is not open"
            advice = "Open the encoder's folder, with the extras train and hf installed."
            raise OutOfOrder(text, where="router", reason="route.encoder", advice=advice)
        return cosines(self.encoder.embed(prompt), known.centroids, known.norms)


def _fits(known: Known, encoder: Embedder) -> bool:
    rows = known.centroids
    return rows is not None and (known.state.encoder, rows.shape[1]) == (digest(encoder.model), encoder.model.dimension)


def decide(
    router: Router,
    request: RouteRequest,
    modules: Sequence[Candidate],
    scored: Mapping[str, float] | None,
    rule: int | None,
) -> Decision:
    """The choice, given the rule that held.

    Args:
        router: State and threshold.
        request: What is asked.
        modules: Who might answer.
        scored: Id -> score, as recorded; None to compute them where no rule decides.
        rule: Index of the first rule that held, or None.

    Raises:
        UsageError: as `Router.route`.
    """
    ordered = _checked(modules)
    reasons = [excluded(module, request) for module in ordered]
    fit = [module for module, why in zip(ordered, reasons, strict=True) if why is None]
    state = router.known.state
    fallback = next((m for m in fit if m.id == state.fallback), None)
    asked = [m for m in fit if rule is not None and state.rules[rule].cluster in m.clusters]
    if asked:
        chosen = min(asked, key=lambda m: (m.cost, m.id))
        return _decision(_table(ordered, reasons, {}), "rule", chosen, fallback, "route.rule", rule=rule)
    found = router.scores(request.prompt, fit) if scored is None else scored
    told = _table(ordered, reasons, found)
    ranked = sorted((m for m in fit if m.id in found), key=lambda m: (-found[m.id], m.cost, m.id))
    if not ranked:
        return _without(told, fallback, "route.no-candidate", rule)
    best = found[ranked[0].id]
    lead = best - found[ranked[1].id] if len(ranked) > 1 else None
    tied = tuple(m.id for m in ranked if found[m.id] == best)
    ties = tied if len(tied) > 1 else ()
    chosen_by_lead, reason = _led(router.threshold, request.held, ranked, found, lead)
    if chosen_by_lead is None:
        return _without(told, fallback, reason, rule, lead, ties)
    how: Literal["ngrams", "sentences"] = "sentences" if isinstance(state.encoder, str) else "ngrams"
    return _decision(told, how, chosen_by_lead, fallback, reason, rule=rule, margin=lead, ties=ties)


def _led(
    limit: RouteThreshold | None,
    held: str | None,
    ranked: Sequence[Candidate],
    found: Mapping[str, float],
    lead: float | None,
) -> tuple[Candidate | None, str]:
    """Who leads by enough, and why; None where nobody does."""
    best = ranked[0]
    if limit is None:
        return best, "route.best"
    holder = next((m for m in ranked if m.id == held), None)
    if holder is not None:
        if holder is not best:
            behind = found[best.id] - found[holder.id]
            return (best, "route.taken-over") if behind >= limit.high else (holder, "route.held")
        return (best, "route.held") if lead is None or lead >= limit.low else (None, "route.margin")
    if lead is None or lead >= limit.value:
        return best, "route.led"
    return None, "route.margin"


def excluded(module: Candidate, request: RouteRequest) -> str | None:
    """Why a module may not answer a request, as a reason code; None where it may."""
    if not module.eligible:
        return module.why or "route.ineligible"
    if not set(module.permissions) <= set(request.permissions):
        return "route.permission"
    if request.licences and module.licence not in request.licences:
        return "route.licence"
    if request.budget is not None and module.cost > request.budget:
        return "route.budget"
    if request.load is not None and module.load > request.load:
        return "route.residency"
    return None


def request_sha256(prompt: str) -> str:
    """SHA-256 of a prompt in UTF-8; what a lone surrogate stands for is a question mark."""
    return hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()


def _checked(modules: Sequence[Candidate]) -> list[Candidate]:
    if len(modules) > MAX_CANDIDATES or len({m.id for m in modules}) != len(modules):
        text = f"{len(modules)} modules; at most {MAX_CANDIDATES}, each id once"
        raise UsageError(text, reason="route.candidates", advice="Offer the modules that are active.")
    return sorted(modules, key=lambda m: m.id)


def _table(
    modules: Sequence[Candidate], reasons: Sequence[str | None], found: Mapping[str, float]
) -> tuple[RouteCandidate, ...]:
    return tuple(
        RouteCandidate(
            id=m.id, revision=m.revision, clusters=m.clusters, cost=m.cost, score=found.get(m.id), excluded=why
        )
        for m, why in zip(modules, reasons, strict=True)
    )


def _without(
    told: tuple[RouteCandidate, ...],
    fallback: Candidate | None,
    reason: str,
    rule: int | None,
    margin: float | None = None,
    ties: tuple[str, ...] = (),
) -> Decision:
    """Nobody leads: the fallback, or nobody."""
    how: Literal["fallback", "refused"] = "fallback" if fallback else "refused"
    return _decision(told, how, fallback, fallback, reason, rule=rule, margin=margin, ties=ties)


def _decision(
    told: tuple[RouteCandidate, ...],
    how: Literal["rule", "ngrams", "sentences", "fallback", "refused"],
    chosen: Candidate | None,
    fallback: Candidate | None,
    reason: str,
    *,
    rule: int | None = None,
    margin: float | None = None,
    ties: tuple[str, ...] = (),
) -> Decision:
    revision, cost = (chosen.revision, chosen.cost) if chosen else (None, 0)
    ready = fallback.id if fallback else None
    return Decision(told, how, rule, revision, margin, ties, reason, cost, ready)
