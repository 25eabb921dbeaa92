"""The model card: every number with its evidence, what is missing by name, and foreign text that stays text."""

from __future__ import annotations

import re

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from exchange.dossiers import candidate, lora, signature, with_texts
from studbook.errors import ClaimRefused
from studbook.exchange import write_card
from studbook.exchange.figures import figures, unmeasured
from studbook.exchange.text import cell, plain
from studbook.records import Rung

READER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
HOSTILE = (
    "<script>alert(1)</script>",
    "![x](https://example.com/pixel.png)",
    "[click](javascript:alert(1))",
    "| new | cell |",
    "a\nb\r\n# heading",
    "`code` ``` fence",
    "\x1b[31mred\x07 \u202eevil\u2066",
    "&lt;b&gt; <!-- gone -->",
    "---",
    "1. one",
    "- item",
    "# heading",
    "www.example.com https://example.com",
    "*bold* _it_ ~~gone~~ $x$",
    "\\",
    "```\n</code><img src=x onerror=alert(1)>",
)
MARKUP = {"html_inline", "html_block", "link_open", "image", "em_open", "strong_open", "s_open", "code_inline"}


def front(card: bytes) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.decode().split("---\n")[1])
    return found


def tokens(text: str) -> set[str]:
    """The kinds of markup a reader finds in a text."""
    found = set()
    for token in READER.parse(text):
        found |= {token.type, *(child.type for child in token.children or ())}
    return found


def body(card: bytes) -> str:
    return card.decode().split("\n---\n", 1)[1]


def table_after(card: bytes, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, head and dashes left out."""
    part = body(card).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines[2:]]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_producer_calls_a_model_stays_text_in_its_cell(text: str):
    plain_card, card = (write_card(lora(signed=(("51" * 32, signature(name)),))) for name in ("plain", text))
    (row,) = table_after(card, "How it was made")
    assert row[1:] == table_after(plain_card, "How it was made")[0][1:]
    assert tokens(body(card)) == tokens(body(plain_card))


def test_a_source_that_nobody_signed_says_so():
    assert "No producer's signature over it was checked." in write_card(lora(signed=())).decode()


def test_front_matter_says_what_a_hub_reads():
    assert front(write_card(candidate())) == {
        "license": "cc0-1.0",
        "base_model": ["base", "one", "two"],
        "tags": ["studbook", "merge", "blend"],
        "library_name": "studbook",
    }
    assert front(write_card(lora(licence="my-own"))) == {
        "license": "other",
        "license_name": "my-own",
        "base_model": ["some/base-model"],
        "tags": ["studbook"],
        "library_name": "peft",
    }
    assert front(write_card(lora()))["license"] == "unknown"


def test_every_number_stands_beside_its_method_its_suites_and_the_digest_of_its_record():
    dossier = candidate()
    rows = table_after(write_card(dossier), "What was measured")
    assert len(rows) == len(figures(dossier)) == 6
    digests = (
        {record for record, _ in dossier.cards} | {c.record for c in dossier.compared} | {dossier.manifest.receipt}
    )
    for _label, value, _bounds, basis, method, _on, suites, record in rows:
        assert re.match(r"-?[0-9.e+-]+ \S", value)
        assert basis in ("observed", "estimated", "reported")
        assert len(method) > 10
        assert record.strip("`") in digests
        assert suites == "none" or {s.strip("`") for s in suites.split(", ")} <= dossier.suites.keys()


def test_shares_and_scores_are_those_of_the_scorecard_with_exact_bounds():
    share, brier, *_ = figures(candidate())
    assert (share.value, share.unit) == (0.75, "share")
    assert share.low is not None
    assert share.high is not None
    # Clopper-Pearson for 3 of 4 at 95 %, from published tables.
    assert (round(share.low, 4), round(share.high, 4)) == (0.1941, 0.9937)
    assert (brier.value, brier.unit, brier.low) == (0.25, "brier-0-2", None)


def test_what_was_not_measured_is_listed():
    told = unmeasured(lora())
    for word in ("runtime smoke", "development", "selection", "sealed", "safety review", "Bias", "Speed"):
        assert any(word in line for line in told), word
    assert [line for line in body(write_card(lora())).splitlines() if line.startswith("- ")][: len(told)] == [
        f"- {plain(line)}" for line in told
    ]
    assert not any("sealed" in line or "smoke" in line for line in unmeasured(candidate()))
    assert any("development" in line for line in unmeasured(candidate()))
    assert "Nothing." in body(write_card(lora()))


def test_a_suite_without_a_result_counts_as_not_measured():
    record, card = candidate().cards[0]
    broken = msgspec.structs.replace(card.results[0], verdict="error")
    dossier = candidate(cards=((record, msgspec.structs.replace(card, results=(broken,))),))
    assert any("selection-skill: the run ended with error" in line for line in unmeasured(dossier))
    assert not any(f.label == "items answered exactly" for f in figures(dossier))


@pytest.mark.parametrize("claim", [Rung.SMOKE, Rung.TRAINED, Rung.ASSISTANT])
def test_a_claim_above_its_evidence_makes_no_document(claim):
    with pytest.raises(ClaimRefused, match="no evidence for"):
        candidate(claim=claim, evidence=frozenset((Rung.STRUCTURAL,)))
    with pytest.raises(ClaimRefused, match="no evidence for runtime-smoke"):
        candidate(claim=Rung.TRAINED, evidence=frozenset((Rung.STRUCTURAL, Rung.TRAINED)))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text):
    card = write_card(with_texts(text)).decode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", card)
    assert "<" not in card
    rendered = READER.render(body(card.encode()))
    for markup in ("<script", "<img", "<a ", "<!--", "<em>", "<strong>", "<s>"):
        assert markup not in rendered
    reference = READER.parse(body(write_card(with_texts("plain"))))
    assert [t.type for t in READER.parse(body(card.encode()))] == [t.type for t in reference]
    assert set(yaml.safe_load(card.split("---\n")[1])) == {
        "license",
        "license_name",
        "base_model",
        "tags",
        "library_name",
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40))
@example(" -")
@example("\u2003\t# x")
def test_any_text_is_one_line_of_plain_text(text):
    for shown in (plain(text), cell(text)):
        assert not tokens(shown) & MARKUP
        assert tokens(shown) <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
        assert not re.search(r"(?<!\\)\|", shown)
    read = READER.parseInline(plain(text))
    seen = "".join(child.content for child in (read[0].children if read else []) or [])
    expected = "".join(c if c.isprintable() else "\ufffd" for c in text).strip()
    assert seen == expected


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_a_cell_never_begins_as_a_formula(text):
    shown = READER.parseInline(cell(text))[0].children
    assert shown is not None
    assert "".join(c.content for c in shown)[0] not in "=+-@"


def test_the_same_records_make_the_same_bytes():
    assert write_card(candidate()) == write_card(candidate())
    assert write_card(lora()) == write_card(lora())
