"""Every drift of the shared table in the page: refused at its step, by its reason, before what it may not fetch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assembly.drifts import DRIFTS, Drift, smoked
from studbook.assembly.rules import STEPS

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open, Serve

# Folder of a bundle -> the first step that may ask for something in it.
FETCHED_AT = {
    "sidecars": "receipts",
    "evidence": "evidence",
    "engine": "engine",
    "models": "model",
    "adapters": "adapters",
}


@pytest.fixture(scope="session")
def smoked_bundle(good_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good bundle as one that a browser ran."""
    folder = tmp_path_factory.mktemp("smoked") / "champion"
    smoked(good_bundle, folder)
    return folder


def refusal(page: Page) -> tuple[str | None, str | None]:
    """Step and reason that the page shows."""
    row = page.locator("#steps > li[data-state=refused]")
    assert row.count() == 1
    return row.get_attribute("data-step"), row.get_attribute("data-reason")


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: f"{drift.kind}: {drift.name}")
def test_a_drift_is_refused_at_its_step_by_its_reason_before_what_it_may_not_fetch(
    drift: Drift, good_bundle: Path, smoked_bundle: Path, tmp_path: Path, serve: Serve, visit: Open
) -> None:
    drift.write(smoked_bundle if drift.smoked else good_bundle, tmp_path / "drifted")
    site = serve(tmp_path / "drifted")
    page = visit(site.address)
    assert refusal(page) == (drift.step, drift.reason)
    fetched = {path.split("/")[0] for path in site.log if "/" in path}
    for folder, step in FETCHED_AT.items():
        if STEPS.index(drift.step) < STEPS.index(step):
            assert folder not in fetched
    assert page.is_disabled("#prompt")
    assert page.is_disabled("#generate")
    assert drift.reason in page.inner_text("#explained")
    if STEPS.index(drift.step) <= STEPS.index("evidence"):
        assert page.inner_text("#evidence-state") == "not loaded"


def test_the_bundle_that_a_browser_ran_is_verified(smoked_bundle: Path, serve: Serve, visit: Open) -> None:
    page = visit(serve(smoked_bundle).address)
    assert page.get_attribute("html", "data-state") == "verified"
    assert "a browser ran it" in page.inner_text("#steps > li:last-child")
