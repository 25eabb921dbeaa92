from __future__ import annotations

import pytest

from assembly.drifts import DRIFTS, Drift, both, field
from bundle_fixtures import STACK
from studbook.assembly.folder import Folder
from studbook.assembly.plan import kind_of
from studbook.assembly.rules import BESIDES, REASONS, STEPS
from studbook.assembly.verify import verify
from studbook.lab.bundle_evidence import inclusion
from studbook.models.rules import SlmRule

# What has to drift somewhere in the table.
KINDS = {
    "runtime manifest", "model byte budget", "text-sidecar budget", "plan profile", "execution profile", "fetch policy",
    "origin policy", "fetch count", "resource", "graph", "stack", "role", "slot", "phase", "dependency", "byte count",
    "checksum", "eval case", "evidence file", "adapter manifest", "adapter artifact", "adapter validation",
}  # fmt: skip


def name_of(drift: Drift) -> str:
    return f"{drift.kind}: {drift.name}"


def test_the_untouched_bundle_is_ready(good_bundle, refused):
    assert refused(good_bundle) is None


def test_a_bundle_that_a_browser_ran_is_ready_too(smoked_bundle, refused):
    assert refused(smoked_bundle) is None


def test_a_quantised_build_with_packages_of_its_base_is_ready(quantised_bundle, refused):
    assert refused(quantised_bundle) is None


def test_a_quantised_build_that_names_no_base_takes_no_packages_of_it(quantised_bundle, refused, tmp_path):
    edit = both(field("model-manifest", "base", to=None), field("model-manifest", "quantise_receipt", to=None))
    Drift("stack", "base unnamed", "", "", edit).write(quantised_bundle, tmp_path / "unnamed")
    assert refused(tmp_path / "unnamed").reason == "adapter.manifest"


def test_sealing_without_an_edit_changes_no_byte(good_bundle, tmp_path):
    Drift("none", "none", "", "", lambda draft: None).write(good_bundle, tmp_path / "same")
    paths = sorted(p.relative_to(good_bundle) for p in good_bundle.rglob("*") if p.is_file())
    assert paths == sorted(p.relative_to(tmp_path / "same") for p in (tmp_path / "same").rglob("*") if p.is_file())
    assert all((good_bundle / p).read_bytes() == (tmp_path / "same" / p).read_bytes() for p in paths)


@pytest.mark.parametrize("drift", DRIFTS, ids=name_of)
def test_every_drift_is_refused_at_its_step_by_its_reason(drift, good_bundle, smoked_bundle, tmp_path):
    drift.write(smoked_bundle if drift.smoked else good_bundle, tmp_path / "drifted")
    asked: list[str] = []

    def read(path: str, limit: int) -> bytes | None:
        asked.append(path)
        return Folder(tmp_path / "drifted").read(path, limit)

    outcome = verify(read, inclusion)
    assert outcome.refusal is not None
    assert (outcome.refusal.step, outcome.refusal.reason) == (drift.step, drift.reason), outcome.refusal.detail
    assert tuple(step.name for step in outcome.steps) == STEPS[: STEPS.index(drift.step)]
    # Bytes are asked for in their step and not before.
    for step, folder in (("engine", "engine/"), ("model", "models/"), ("adapters", "adapters/")):
        if STEPS.index(drift.step) < STEPS.index(step):
            assert not [path for path in asked if path.startswith(folder)]


def test_the_table_holds_every_kind_of_drift_several_times():
    counts = {kind: sum(d.kind == kind for d in DRIFTS) for kind in KINDS}
    assert min(counts.values()) >= 3, counts
    assert len({name_of(d) for d in DRIFTS}) == len(DRIFTS)


def test_every_reason_has_a_drift_that_meets_it():
    met = {(d.step, d.reason) for d in DRIFTS}
    # The state follows from digests that were verified by then: only an engine that errs could miss it.
    spared = {("adapters", "adapter.state")}
    asked = {(step, reason) for step, reasons in REASONS.items() for reason in reasons}
    assert asked - met <= spared, asked - met - spared
    assert {reason for _, reason in met} - {r for reasons in REASONS.values() for r in reasons} <= set(SlmRule)
    assert not set(BESIDES) & set(REASONS)


def test_the_good_bundle_has_a_package_of_every_kind(good_bundle):
    outcome = verify(Folder(good_bundle).read, inclusion)
    assert outcome.case is not None
    assert [a.package for a in outcome.case.adapters] == ["ADP1", "ASP1", "ALR1"]
    assert len(STACK) == 3
    changed = [set(a.fused) for a in outcome.case.adapters]
    # Packages of a stack meet in a tensor, or their order would not matter.
    assert changed[0] < changed[1] or changed[0] & changed[1]


@pytest.mark.parametrize(
    "name", ["", "evidence-", "adapter-0", "adapter-1-source", "evidence-adapter-1", "adapter-x", "models"]
)
def test_only_parts_of_a_bundle_have_names(name):
    assert kind_of(name) is None
