"""Which module answered what and why: the router's state, its thresholds, every decision, and the seals of their log."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from studbook.records.base import Blob, Digest, Moment, Name, Record, Text, Zone

__all__ = [
    "CurvePoint",
    "RouteCandidate",
    "RouteCost",
    "RouteEncoder",
    "RouteRecord",
    "RouteRule",
    "RouteSeal",
    "RouteSegment",
    "RouteStep",
    "RouteThreshold",
    "RouterState",
    "SentenceModel",
]

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Plain = Annotated[Text, Meta(min_length=1)]
# Whatever a request may say and a record can hold: line feeds and tabs too, no other control characters.
Prompt = Annotated[
    str,
    Meta(max_length=65536, pattern=r"\A[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z"),
]
How = Literal["rule", "ngrams", "sentences", "fallback", "refused", "cascade", "pipeline", "committee", "stack"]
Outcome = Literal["routed", "answered", "failed"]


class RouteRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the rule router: a plain text at a plain place, never a pattern language.

    Attributes:
        text: What to look for; compared as it is, one character with one character.
        place: The prompt begins with it, it stands in the prompt as a whole word, or it stands anywhere.
        cluster: The skill that is asked for then.
    """

    text: Plain
    place: Literal["start", "word", "anywhere"]
    cluster: Name


class RouteEncoder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a prompt becomes counts of hashed n-grams of its UTF-8 bytes.

    Attributes:
        low: Shortest n-gram, in bytes.
        high: Longest n-gram, in bytes.
        buckets: Length of the vector, a power of two.
        reach: Most bytes that are looked at: half of them at the beginning, half at the end.
    """

    low: Annotated[int, Meta(ge=1, le=8)]
    high: Annotated[int, Meta(ge=1, le=8)]
    buckets: Annotated[int, Meta(ge=64, le=65536)]
    reach: Annotated[int, Meta(ge=16, le=4096)]


class SentenceModel(Record, frozen=True, kw_only=True, tag="sentence-model/1"):
    """How a prompt becomes the vector of a sentence encoder: the files of a BERT model, and how they are asked.

    Attributes:
        config: The model's ``config.json``.
        tokenizer: Its ``tokenizer.json``.
        weights: Its ``model.safetensors``.
        dimension: Length of the vector.
        pooling: How the vectors of the tokens become one: their mean, of length 1 (Reimers & Gurevych 2019, 1908.10084).
        longest: Most tokens that are read, the first and last one that the tokenizer adds included.
        reach: Most characters that are looked at, from the beginning.
    """

    zone: ClassVar[Zone] = Zone.HOST
    config: Blob
    tokenizer: Blob
    weights: Blob
    dimension: Annotated[int, Meta(ge=1, le=4096)]
    pooling: Literal["mean"]
    longest: Annotated[int, Meta(ge=3, le=8192)]
    reach: Annotated[int, Meta(ge=16, le=65536)]


class RouterState(Record, frozen=True, kw_only=True, tag="router-state/1"):
    """All that a router knows; with a request, the candidates and a threshold it determines the choice.

    Attributes:
        rules: Asked in order; the first that holds decides.
        encoder: How prompts become vectors: by n-grams, or the digest of a SentenceModel; null where only rules decide.
        centroids: One row of little-endian i16 a cluster, as long as the vectors; null without an encoder.
        clusters: The cluster of every row.
        fitted_on: SHA-256 of the labelled examples the centroids were learnt from; null without an encoder.
        fallback: Id of the package that answers when nobody else does; null refuses instead.
    """

    zone: ClassVar[Zone] = Zone.HOST
    rules: tuple[RouteRule, ...]
    encoder: RouteEncoder | Digest | None
    centroids: Blob | None
    clusters: tuple[Name, ...]
    fitted_on: Digest | None
    fallback: Name | None

    def subjects(self) -> tuple[str, ...]:
        """The file of centroids."""
        return (self.centroids.sha256,) if self.centroids else ()

    def references(self) -> tuple[str, ...]:
        """The sentence encoder's record."""
        return (self.encoder,) if isinstance(self.encoder, str) else ()


class CurvePoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One corner of a calibration curve.

    Attributes:
        score: Mean log-probability a token, or margin.
        share: Share of answers that are right from there on, up to the next corner.
    """

    score: float
    share: Annotated[float, Meta(ge=0.0, le=1.0)]


class RouteThreshold(Record, frozen=True, kw_only=True, tag="route-threshold/1"):
    """A number that decides, bound to everything it was measured with.

    Attributes:
        purpose: ``margin`` of the router, or ``confidence`` of one model's answers in a cascade.
        encoder: Digest of the RouterState whose margins it is about; null for a confidence.
        engine: Digest of the engine whose log-probabilities it is about; null for a margin.
        model: Digest of the artifact whose answers it is about; null for a margin.
        calibration: SHA-256 of the calibration set.
        items: Rows of that set.
        value: At this value or above, the answer or choice stands.
        low: What is in force stays in force down to here.
        high: What is not takes over only from here up.
        curve: Score to share right, never falling; empty where the value is compared with the score itself.
    """

    zone: ClassVar[Zone] = Zone.HOST
    purpose: Literal["margin", "confidence"]
    encoder: Digest | None
    engine: Digest | None
    model: Digest | None
    calibration: Digest
    items: Count
    value: float
    low: float
    high: float
    curve: tuple[CurvePoint, ...]

    def subjects(self) -> tuple[str, ...]:
        """The model it is about."""
        return (self.model,) if self.model else ()

    def references(self) -> tuple[str, ...]:
        """The router state."""
        return (self.encoder,) if self.encoder else ()


class RouteCandidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One module that might have answered.

    Attributes:
        id: Id of its package, or ``channel/model`` for the channel's own model.
        revision: Digest of the package record; of the model where it is no package.
        clusters: The skills it may answer.
        cost: Estimated decoded bytes that have to be active for it.
        score: What the router gave it; null where it was never scored.
        excluded: Why it could not be chosen, such as ``route.budget``; null where it could.
    """

    id: Name
    revision: Digest
    clusters: tuple[Name, ...]
    cost: Count
    score: float | None
    excluded: Name | None


class RouteCost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer cost.

    Attributes:
        active_bytes: Decoded bytes active at once.
        prompt_tokens: Tokens read, by all models together.
        tokens: Tokens written, by all models together.
        fuel: The engine's fuel; null where it was not counted.
    """

    active_bytes: Count
    prompt_tokens: Count
    tokens: Count
    fuel: Count | None


class RouteStep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's part in an answer.

    Attributes:
        revision: Digest of its package record; of the model where it is no package.
        answer: SHA-256 of the text it gave; null where it gave none.
        mean_logprob: Mean log-probability of its tokens; null where it wrote none.
        confidence: Share right at that value by the threshold's curve; null without one.
        tokens: Tokens it wrote.
        fuel: Fuel it burnt; null where it was not counted.
        reason: Why it went on, stopped or failed, such as ``route.accepted``.
    """

    revision: Digest
    answer: Digest | None
    mean_logprob: float | None
    confidence: float | None
    tokens: Count
    fuel: Count | None
    reason: Name


class RouteRecord(Record, frozen=True, kw_only=True, tag="route-record/1"):
    """One decision of the router and what became of it; a line of the route log.

    Attributes:
        sequence: Place in the log's segment, from 0.
        previous: Digest of the line before it; of the segment's beginning for the first.
        state: Digest of the RouterState.
        threshold: Digest of the RouteThreshold of the margin; null where no margin is asked for.
        request: SHA-256 of the prompt, UTF-8.
        prompt: The prompt itself; null where the log does not keep prompts.
        budget: Most decoded bytes the request may have active; null for any.
        permissions: What the task allows, sorted.
        held: Id of the package that answered this conversation last; null for a fresh one.
        candidates: Every module that was looked at, in order of its id.
        how: What decided.
        rule: Index of the rule that held; null where none did.
        selected: Revision of the candidate that was chosen; null where the request was refused.
        margin: Lead of the best score over the second; null where nothing was scored, or one candidate alone.
        ties: Ids that shared the best score; empty where one led alone.
        reason: Why it ended there, such as ``route.margin``.
        steps: Every model that ran, in order; empty before one did.
        estimated: Decoded bytes the choice was expected to have active.
        observed: What it cost; null before it was run.
        outcome: Chosen only, answered, or failed.
        failure: Why it failed; null where it did not.
        answer: SHA-256 of the text that was returned; null where none was.
        fallback: Id of the package that stood ready; null for none.
        partition: Digest of the expert partition the candidates come from; null for none.
        evidence: Digest of the record that allowed models side by side; null where one ran at a time.
    """

    zone: ClassVar[Zone] = Zone.HOST
    sequence: Count
    previous: Digest
    state: Digest
    threshold: Digest | None
    request: Digest
    prompt: Prompt | None
    budget: Count | None
    permissions: tuple[Name, ...]
    held: Name | None
    candidates: tuple[RouteCandidate, ...]
    how: How
    rule: Count | None
    selected: Digest | None
    margin: float | None
    ties: tuple[Name, ...]
    reason: Name
    steps: tuple[RouteStep, ...]
    estimated: Count
    observed: RouteCost | None
    outcome: Outcome
    failure: Name | None
    answer: Digest | None
    fallback: Name | None
    partition: Digest | None
    evidence: Digest | None


class RouteSeal(Record, frozen=True, kw_only=True, tag="route-seal/1"):
    """A signature under the log as it stood: so many lines, and the digest of the last.

    Attributes:
        segment: Number of the segment, from 1.
        begins: What the first line's ``previous`` is: the head of the segment before, or zeros.
        count: Lines it covers.
        head: Digest of the last of them; ``begins`` where there is none.
        recovered: How many of the lines a process that ended without sealing them had left behind.
        closed: No line follows.
        time: When.
    """

    zone: ClassVar[Zone] = Zone.HOST
    segment: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    begins: Digest
    count: Count
    head: Digest
    recovered: Count
    closed: bool
    time: Moment


class RouteSegment(Record, frozen=True, kw_only=True, tag="route-segment/1"):
    """A closed part of the route log, entered into the ledger with its bytes.

    Attributes:
        segment: Its number, from 1.
        begins: What its first line follows.
        count: Its lines.
        head: Digest of its last line.
        lines: The file of its lines.
        seals: The file of its seals, one envelope a line.
        states: Digests of the router states that decided in it, sorted.
        thresholds: Digests of the thresholds that decided in it, sorted.
    """

    zone: ClassVar[Zone] = Zone.HOST
    segment: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    begins: Digest
    count: Count
    head: Digest
    lines: Blob
    seals: Blob
    states: tuple[Digest, ...]
    thresholds: tuple[Digest, ...]

    def subjects(self) -> tuple[str, ...]:
        """Both files."""
        return (self.lines.sha256, self.seals.sha256)

    def references(self) -> tuple[str, ...]:
        """What decided in it."""
        return (*self.states, *self.thresholds)
