"""A model card: Markdown under YAML front matter as model hubs read it, written from records alone.

Every number stands in one table row with its method, the suite it was measured on and the digest of the record that
holds it; what no record says is listed. Field names of the front matter: the Hugging Face hub's model card
specification (``license``, ``license_name``, ``base_model``, ``tags``, ``library_name``).
"""

from __future__ import annotations

from studbook.exchange.dossier import Dossier
from studbook.exchange.figures import Figure, figures, limits, unmeasured
from studbook.exchange.text import bullets, cell, code_block, plain, rows, scalar
from studbook.records import CandidateManifest, LoraSource, Rung, SourceManifest

__all__ = ["write_card"]

_LIBRARIES = {"slm": "studbook", "checkpoint": "transformers", "lora": "peft", "adapter": "studbook"}
_FORMS = {
    "slm": "model in an SLM1 container",
    "checkpoint": "checkpoint",
    "lora": "LoRA adapter",
    "adapter": "adapter package for an SLM1 model",
}
# Identifiers the hub knows, as it spells them; any other licence is named under ``license_name``.
_HUB_LICENCES = frozenset(
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-4.0 cc-by-sa-4.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 isc "  # noqa: SIM905
    "gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 agpl-3.0 mpl-2.0 epl-2.0 unlicense zlib llama2 llama3 gemma".split()
)


def write_card(dossier: Dossier) -> bytes:
    """The card of a model, UTF-8; the same dossier gives the same bytes.

    Args:
        dossier: What is on record.
    """
    parts = [
        ["---", *_front(dossier), "---", "", f"# {plain(dossier.name)}", "", _summary(dossier)],
        ["## What it is", "", *_identity(dossier)],
        ["## How it was made", "", *_making(dossier)],
        ["## What was measured", "", *_measured(dossier)],
        ["## What was not measured", "", *bullets(unmeasured(dossier))],
        ["## Limits", "", *_limits(dossier)],
        ["## What it may claim", "", *_rungs(dossier)],
    ]
    return ("\n\n".join("\n".join(part) for part in parts) + "\n").encode()


def _front(dossier: Dossier) -> list[str]:
    """The lines of the front matter; what others wrote stands there as quoted scalars."""
    name = dossier.licence or ""
    if not name:
        found = ["license: unknown"]
    elif name.lower() in _HUB_LICENCES:
        found = [f"license: {name.lower()}"]
    else:
        found = ["license: other", f"license_name: {scalar(name)}"]
    if above := _based_on(dossier):
        found += ["base_model:", *(f"- {scalar(name)}" for name in above)]
    merged = len([a for a in dossier.ancestors if a.role == "parent"]) > 1
    family = [dossier.manifest.family] if isinstance(dossier.manifest, CandidateManifest) else []
    tags = dict.fromkeys(["studbook", *(["merge"] if merged else []), *family])
    return [*found, "tags:", *(f"- {scalar(tag)}" for tag in tags), f"library_name: {_LIBRARIES[dossier.form]}"]


def _based_on(dossier: Dossier) -> list[str]:
    """Names of the models above: base and parents, or what a LoRA's config says its base is called."""
    if isinstance(dossier.manifest, SourceManifest) and isinstance(dossier.manifest.source, LoraSource):
        return [dossier.manifest.source.base_name] if dossier.manifest.source.base_name else []
    return list(dict.fromkeys(a.name for a in dossier.ancestors))


def _summary(dossier: Dossier) -> str:
    how = "bred" if dossier.making else "registered"
    header = dossier.header
    return (
        f"A {_FORMS[dossier.form]}, {how} in a lab of {plain(header.owner)}. This card was written by "
        f"{plain(f'{header.source} {header.version}')} from the lab's records; every digest below is a SHA-256, and "
        "`studbook verify` checks the records."
    )


def _identity(dossier: Dossier) -> list[str]:
    table = [
        ("artifact", f"`{dossier.artifact}`"),
        (f"record {cell(dossier.manifest.kind())}", f"`{dossier.record}`"),
        ("licence", cell(dossier.licence or "none is on record")),
        ("lab", f"`{dossier.lab}`"),
        ("recorded", cell(dossier.recorded)),
    ]
    found = rows(("what", "value"), table)
    files = [(cell(m.path), f"{m.size}", f"`{m.sha256}`") for m in dossier.files]
    found += ["", *rows(("file", "bytes", "SHA-256"), files)]
    if dossier.data:
        data = [(cell(d.name), f"`{d.sha256}`", f"`{d.record}`") for d in dossier.data]
        found += ["", "Data it, or what it was bred from, was trained on:", ""]
        found += rows(("data manifest", "SHA-256", "record"), data)
    return found


def _making(dossier: Dossier) -> list[str]:
    if dossier.making is None or not isinstance(dossier.manifest, CandidateManifest):
        return ["It was registered as it is; how it was made is not on record here.", "", *_signed(dossier)]
    above = [(a.role, cell(a.name), cell(a.licence or "none"), f"`{a.artifact}`") for a in dossier.ancestors]
    receipt = dossier.making.receipt
    return [
        *rows(("role", "model", "licence", "artifact"), above),
        "",
        f"Declared in template `{dossier.manifest.template}` before the run, recorded in receipt "
        f"`{dossier.manifest.receipt}` after it; breeding it again gives the same bytes ({receipt.reproducibility}).",
        "",
        *code_block(dossier.making.template.operator),
    ]


def _signed(dossier: Dossier) -> list[str]:
    """Which producers' signatures were checked; that a key is a producer's, no signature can say."""
    if not dossier.signed:
        return ["No producer's signature over it was checked."]
    found = [
        (cell(s.name), s.form, f"{len(s.covered)}", f"`{s.key_sha256}`", f"`{s.document_sha256}`", f"`{record}`")
        for record, s in dossier.signed
    ]
    head = ("signed as", "form", "files", "key SHA-256", "signature SHA-256", "record")
    return ["Signatures over its files, checked when it was registered:", "", *rows(head, found)]


def _measured(dossier: Dossier) -> list[str]:
    found = [_row(figure) for figure in figures(dossier)]
    if not found:
        return ["Nothing."]
    head = ("what", "value", "bounds", "basis", "method", "suite", "suite SHA-256", "record")
    return [
        "Development suites may be looked at freely and selection suites decide which model is chosen, so numbers on them "
        "lean high for one that was chosen; sealed suites are opened once, for the comparisons marked sealed.",
        "",
        *rows(head, found),
    ]


def _row(figure: Figure) -> tuple[str, ...]:
    bounds = "none" if figure.low is None or figure.high is None else f"{figure.low:.10g} to {figure.high:.10g}"
    value = f"{figure.value:.10g} {cell(figure.unit)}"
    suite = ", ".join(f"`{found}`" for found in figure.suites) or "none"
    method, on = cell(figure.method), cell(figure.on)
    return cell(figure.label), value, bounds, figure.basis, method, on, suite, f"`{figure.record}`"


def _limits(dossier: Dossier) -> list[str]:
    found = [f"Not supported: {text}" for text in limits(dossier)]
    if isinstance(dossier.manifest, CandidateManifest):
        found += [f"Given up: {text}" for text in dossier.manifest.trade_offs]
        found.append(f"Use instead where it fails: artifact {dossier.manifest.fallback}")
    return bullets(found) if found else ["None is on record; that is not to say there are none."]


def _rungs(dossier: Dossier) -> list[str]:
    claim = dossier.claim.value if dossier.claim else "nothing"
    table = [(rung.value, "yes" if rung in dossier.evidence else "no") for rung in Rung]
    return [f"On record it claims: {claim}.", "", *rows(("rung of the gate ladder", "evidence"), table)]
