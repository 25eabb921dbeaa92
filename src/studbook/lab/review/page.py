"""The page a person reads before a promotion, in the order in which it is needed. Foreign text never becomes markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studbook.exchange.text import bullets, cell, plain, rows
from studbook.lab.review.facts import Change, Cost, GateRow, Line, Review, Row, Score
from studbook.lab.review.shown import amount, number, span
from studbook.policy import PolicyChange

__all__ = ["write_page"]

_NONE = "None."


def write_page(review: Review) -> bytes:
    """``README.md`` of a pack, UTF-8; the same review gives the same bytes."""
    sections = (
        (f"Review of {plain(review.name)}", _identity(review)),
        ("1. What is asked", _asked(review)),
        ("2. What the round decided", _verdict(review)),
        ("3. Scorecards side by side", _scores(review)),
        ("4. Gates", _gates(review)),
        ("5. Where it comes from", _lineage(review)),
        ("6. What changed in what judges it", _judges(review)),
        ("7. What it costs", _costs(review)),
        ("8. The way back", _back(review)),
        ("9. What was assumed, and what was not tested", _limits(review)),
        ("10. What lies in this folder", _files(review)),
    )
    first, *others = ["\n".join((f"{'#' if n == 0 else '##'} {title}", "", *body)) for n, (title, body) in
                      enumerate(sections)]  # fmt: skip
    return ("\n\n".join((first, *others)) + "\n").encode()


def _identity(review: Review) -> list[str]:
    return [
        f"`{review.artifact}`, {review.size:,} bytes, in lab `{review.lab[:16]}` as it was after {review.entries} ledger "
        f"entries (head `{review.head[:16]}`). Written from records alone. This pack signs nothing and needs no key.",
    ]


def _asked(review: Review) -> list[str]:
    asked = review.asked
    found = [plain(asked.question)]
    if asked.command:
        people = ", ".join(plain(p) for p in asked.people) or "nobody"
        count = "one of them is enough" if asked.needed == 1 else f"it takes {asked.needed} of them"
        found += ["", "Yes is said with a promotion key:", "", "```sh", asked.command, "```", ""]
        found += [f"Who holds such a key: {people}; {count}."]
    return [*found, "", plain(asked.otherwise)]


def _verdict(review: Review) -> list[str]:
    verdict = review.verdict
    if verdict is None:
        return ["No round judged it: it would be the first champion, and there is nothing to compare it with."]
    chose = f"chose {plain(verdict.winner)}" if verdict.winner else "chose to do nothing"
    found = [
        f"For {plain(verdict.cluster)} the round {chose} ({plain(verdict.action)}); decision `{verdict.decision}`.",
        f"This candidate: {plain(verdict.own)}. Lower bound of its net utility {number(verdict.net_utility)}, has to "
        f"exceed {number(verdict.switching_threshold)}; doing nothing has 0 and was "
        f"{'chosen' if verdict.nothing_chosen else 'not chosen'}.",
        "",
        *bullets(verdict.reasons),
        "",
        "Doing nothing:",
        "",
        *(bullets(verdict.nothing) or [_NONE]),
        "",
    ]
    if verdict.confirmation is None:
        found += ["The sealed suites were not opened for it.", ""]
    else:
        shown = "confirmed" if verdict.confirmed else "not confirmed"
        found += [f"The one look at the sealed suites: {shown}; `{verdict.confirmation}`.", ""]
    return [*found, *_differences(review, verdict.rows)]


def _differences(review: Review, found: Sequence[Row]) -> list[str]:
    if not found:
        return ["It met no other model: it did not come as far as the selection suites."]
    head = ("suites", "question", "against", "on", "difference", "bounds", "had to reach", "passed",
            "p before correction", "items", "record")  # fmt: skip
    table = [
        (
            cell(r.role),
            cell(r.test),
            cell(r.against),
            cell(r.on),
            amount(r.difference, r.unit),
            span(r.lower, r.upper, r.unit),
            _threshold(r),
            ("yes" if r.passed else "**no**") if r.threshold_of else "shown",
            number(r.p_value) if r.threshold_of == "p-value" else "none",
            f"{r.items} (+{r.wins} -{r.losses})" if r.items else "none",
            f"`{r.record[:16]}`",
        )
        for r in found
    ]
    methods = _grouped((r.method, f"{r.test} on {r.on}") for r in found)
    picture = ["![paired differences with bounds and margins](differences.svg)", ""]
    shown = picture if "differences.svg" in review.plots else []
    return [*rows(head, table), "", *shown, "Methods; bounds are one-sided:", "", *bullets(methods)]


def _threshold(row: Row) -> str:
    if not row.threshold_of:
        return "nothing"
    if row.threshold_of == "p-value":
        return f"p at most {number(row.threshold)}"
    return f"lower bound {amount(row.threshold, row.unit)}"


def _grouped(found: Iterable[tuple[str, str]]) -> list[str]:
    """Each method once, with everything it was used for."""
    uses: dict[str, dict[str, None]] = {}
    for method, use in found:
        uses.setdefault(method, {})[use] = None
    return [f"{'; '.join(named)}: {method}" for method, named in uses.items()]


def _scores(review: Review) -> list[str]:
    return [*(_scored(review) if review.scores else ["No suite scored it."]), *_reported(review)]


def _reported(review: Review) -> list[str]:
    if not review.reported:
        return []
    head = ("reported by others", "value", "unit", "who measured it how", "record")
    table = [
        (cell(f.label), number(f.value), cell(f.unit), cell(f.method), f"`{f.record[:16]}`") for f in review.reported
    ]
    return ["", "Nobody measured these here, and no gate reads them:", "", *rows(head, table)]


def _scored(review: Review) -> list[str]:
    people = review.scores[0].scores
    head = ("suite", *(cell(s.who) for s in people))
    table = [
        (f"{cell(line.suite)}, {cell(line.dimension)}", *(_score(s) for s in line.scores)) for line in review.scores
    ]
    methods = _grouped(pair for line in review.scores for pair in _methods(line))
    records = dict.fromkeys(f"{s.who}: {s.figure.record}" for li in review.scores for s in li.scores if s.figure)
    shown = ["![scores with bounds](scores.svg)", ""] if "scores.svg" in review.plots else []
    return [
        "Doing nothing leaves the champion where it is. A dash: not scored on that suite.",
        "",
        *rows(head, table),
        "",
        *shown,
        "Methods:",
        "",
        *bullets(methods),
        "",
        "Scorecards:",
        "",
        *bullets(records),
    ]


def _score(score: Score) -> str:
    figure = score.figure
    if figure is None:
        return "-"
    bounds = "" if figure.low is None or figure.high is None else f" [{number(figure.low)}, {number(figure.high)}]"
    return f"{number(figure.value)}{bounds}"


def _methods(line: Line) -> list[tuple[str, str]]:
    """How the numbers of a suite were obtained, and what they are; the counts stand in the records."""
    shares = "teacher-forced exact match; exact Clopper-Pearson bounds, 95 %"
    return [
        (s.figure.method if s.figure.low is None else shares, f"{s.figure.label}, {s.figure.unit}, {s.figure.basis}")
        for s in line.scores
        if s.figure
    ]


def _gates(review: Review) -> list[str]:
    head = ("stage", "gate", "status", "who may settle it", "what it says", "evidence")
    hard = [g for g in review.gates if g.stage == "candidate"]
    passed = [g for g in review.gates if g.status == "passed" and g.stage != "candidate"]
    open_ = [_gate(g) for g in review.gates if g.status != "passed"]
    held = sum(g.status == "passed" for g in hard)
    counted = [f"Of {len(hard)} hard gates of the decision {held} hold; `review.json` lists them.", ""] if hard else []
    return [
        *(["Open:", "", *rows(head, open_)] if open_ else ["No gate is open."]),
        "",
        *counted,
        *(["Passed on the way:", "", *rows(head, map(_gate, passed))] if passed else []),
    ]


def _gate(row: GateRow) -> tuple[str, ...]:
    evidence = f"`{row.evidence[:16]}`" if row.evidence else "none"
    return cell(row.stage), cell(row.name), row.status, cell(row.by), cell(row.detail), evidence


def _lineage(review: Review) -> list[str]:
    table = [
        (
            str(f.depth),
            cell(f.name),
            f"`{f.artifact}`",
            cell(f.how or "registered"),
            cell(", ".join(f.parents) or "none"),
            cell(f"{f.licence or 'none'}: {f.why}"),
            f"`{f.record[:16]}`",
            cell(f.revoked or "no"),
        )
        for f in review.lineage
    ]
    head = ("generations up", "model", "artifact", "made by", "from", "licence, and why", "record", "revoked")
    data = [(cell(name), f"`{sha}`") for name, sha in review.data]
    shown = rows(("data it, or what it was bred from, was trained on", "SHA-256"), data)
    return [*rows(head, table), "", *(shown if data else ["No data manifest is on record for it."])]


def _judges(review: Review) -> list[str]:
    judges = review.judges
    if judges.since is None:
        return [f"Who may change it: {plain(judges.owners)}.", "",
                "No champion was ever promoted here, so there is nothing to compare with."]  # fmt: skip
    found = [
        f"Who may change it: {plain(judges.owners)}.",
        "",
        f"Since the promotion `{judges.since}` (entry {judges.entry}, {judges.time}).",
    ]
    for title, changes in (
        ("Suites", judges.suites),
        ("Evaluators that had scored nothing by then", judges.evaluators),
        ("Policy", judges.policy),
        ("Keys", judges.keys),
    ):
        found += ["", f"{title}: no change."] if not changes else ["", f"{title}:", "", *_changes(changes)]
    return found


def _changes(changes: Sequence[Change | PolicyChange]) -> list[str]:
    words = [c for c in changes if isinstance(c, PolicyChange)]
    if words:
        return rows(("field", "since then"), [(cell(c.field), cell(c.what)) for c in words])
    digests = [c for c in changes if isinstance(c, Change)]
    table = [(cell(c.what), cell(c.before or "not there"), cell(c.after or "not there")) for c in digests]
    return rows(("what", "then", "now"), table)


def _costs(review: Review) -> list[str]:
    table = [_cost(c) for c in review.costs]
    head = ("cost", "candidate", "champion", "basis", "method", "record")
    timed = any(c.candidate.unit.endswith("seconds") for c in review.costs)
    reserve = review.reserve
    left = "the decision did not compute it" if reserve.left is None else f"{reserve.left:,} would"
    return [
        *(rows(head, table) if table else ["Nothing was measured."]),
        "",
        *([] if timed else ["Latency: not measured; no record holds one.", ""]),
        f"Storage reserve: of {reserve.capacity:,} bytes {reserve.minimum:,} have to stay free; {left}"
        f"{'' if reserve.record is None else f' (`{reserve.record[:16]}`)'}.",
    ]


def _cost(found: Cost) -> tuple[str, ...]:
    own, other = found.candidate, found.champion
    beside = "not measured alike" if other is None else number(other.value)
    return cell(own.unit), number(own.value), beside, own.basis, cell(own.method), f"`{found.record[:16]}`"


def _back(review: Review) -> list[str]:
    if not review.back:
        return ["There is none: it would be the first champion, and a rollback needs one before it."]
    table = [
        (str(n), cell(b.name), f"`{b.artifact}`", f"`{b.record[:16]}`", cell(b.problem or "here, sound, not revoked"))
        for n, b in enumerate(review.back, 1)
    ]
    good = next((b for b in review.back if not b.problem), None)
    command = ["studbook rollback champion"]
    if good is not None and good is not review.back[0]:
        command = [f"studbook rollback champion --to {good.artifact[:12]}"]
    shown = ["```sh", *command, "```", ""] if good else ["Nothing on the way back can be restored.", ""]
    return [
        "After a promotion a rollback restores the first of these that stands; it needs a process key and nobody's "
        "signature.",
        "",
        *shown,
        *rows(("step", "model", "artifact", "put there by", "state"), table),
    ]


def _limits(review: Review) -> list[str]:
    return [
        "Assumed:",
        "",
        *(bullets(review.assumptions) or [_NONE]),
        "",
        "Not tested:",
        "",
        *(bullets(review.untested) or [_NONE]),
        "",
        "Not offered as parents:",
        "",
        *(bullets(review.excluded) or [_NONE]),
    ]


def _files(review: Review) -> list[str]:
    table = [(f"`{c.record}`", cell(c.kind), str(c.entry), c.time) for c in review.records]
    proofs = [
        f"{plain(name)}.proof shows that record `{digest[:16]}` is in the ledger" for name, digest in review.proofs
    ]
    sealed = f"The sealed scorecards ({len(review.withheld)}) stay in the lab. " if review.withheld else ""
    return [
        "`review.json` holds all of this for machines. `records/` holds the sealed envelope of every record named here, "
        f"under its digest. {sealed}In `proof/`, each with the ledger's line and the record: {'; '.join(proofs)}.",
        "",
        *rows(("record", "kind", "entry", "time"), table),
    ]
