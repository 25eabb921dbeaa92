"""A BrowserSmoke: a bundle that a real browser ran before it was recorded, and what is refused on the way to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle_fixtures import STACK
from lab_fixtures import Place, problems, run_cli
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.lab import Lab, assembling, browser
from studbook.lab.assembling import Wanted
from studbook.lab.browser import look
from studbook.lab.bundles import Bundles
from studbook.records import BrowserSmoke, BundleRelease, ModulePlan


@pytest.fixture
def lab(released_lab: Place, tmp_path: Path) -> Iterator[Lab]:
    with released_lab.copy(tmp_path / "copy").open() as opened:
        yield opened


@pytest.fixture
def files(good_bundle: Path) -> dict[str, bytes]:
    return {p.relative_to(good_bundle).as_posix(): p.read_bytes() for p in good_bundle.rglob("*") if p.is_file()}


def untouched(lab: Lab, folder: Path, program: str = "chromium") -> StudbookError:
    """Why a browser's smoke came to nothing; nothing is recorded or written then."""
    entries = len(lab.desk.entries())
    with pytest.raises(StudbookError) as caught:
        lab.assemble("champion", folder, Wanted(STACK, browser=program))
    assert len(lab.desk.entries()) == entries
    assert not folder.exists()
    return caught.value


def test_a_browser_runs_the_bundle_and_what_it_computed_is_bound(lab: Lab, tmp_path: Path) -> None:
    found = lab.assemble("champion", tmp_path / "bundle", Wanted(STACK, browser="chromium"))
    assert found.visible == "browser"
    ((smoke_digest, smoke),) = lab.desk.all(BrowserSmoke)
    release = list(lab.desk.all(BundleRelease))[-1][1]
    assert release.browser_smoke == smoke_digest
    plan = lab.desk.workspace.get(release.plan, ModulePlan)
    # The plan it ran is not the plan it became part of, and follows from it.
    assert plan.unsmoked == smoke.plan != found.plan
    assert smoke.passed and smoke.requests >= plan.fetch.count - 1
    assert smoke.browser.startswith("Chrom")
    path = lab.desk.workspace.path
    keys = lab.desk.workspace.keys.folder
    lab.close()
    checked = Bundles.verify(tmp_path / "bundle", path)
    assert checked.ok, checked.refusal
    assert checked.visible == "browser"
    assert problems(Place(path, keys)) == []


def test_a_page_that_refuses_the_bundle_is_no_smoke(files: dict[str, bytes]) -> None:
    name = next(path for path in files if path.startswith("models/"))
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(OutOfOrder, match=r"fetch\.checksum") as caught:
        look(files)
    assert caught.value.reason == "browser.refused"


def test_a_page_that_asks_for_what_is_not_planned_is_no_smoke(files: dict[str, bytes]) -> None:
    files["index.js"] += b"\nfetch('elsewhere.json').catch(() => 0);\n"
    with pytest.raises(OutOfOrder, match=r"elsewhere\.json") as caught:
        look(files)
    assert caught.value.reason == "browser.unplanned"


def test_a_page_that_never_comes_to_a_verdict_is_given_up(files: dict[str, bytes]) -> None:
    files["index.js"] = b"for (;;) {}\n"
    with pytest.raises(OverBudget) as caught:
        look(files, seconds=3)
    assert caught.value.reason == "browser.time"


def test_a_browser_that_ends_or_is_none_is_told(files: dict[str, bytes]) -> None:
    with pytest.raises(StudbookError) as caught:
        look(files, "true")
    assert caught.value.reason == "browser.ended"
    with pytest.raises(UsageError):
        look(files, "no-such-browser")


def test_what_a_browser_says_is_computed_again(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lying(*given: Any) -> browser.Seen:
        seen = browser.look(*given)
        return seen._replace(diagnostics=seen.diagnostics | {"logits": {"positions": 63, "sha256": "1" * 64}})

    monkeypatch.setattr(assembling, "look", lying)
    error = untouched(lab, tmp_path / "bundle")
    assert (type(error), error.reason) == (DigestDiffers, "diagnostics.logits")


def test_the_verb_finds_chromium_by_itself_and_writes_one_page_too(released_lab: Place, tmp_path: Path) -> None:
    place = released_lab.copy(tmp_path / "copy")
    words = ("assemble", "champion", "-o", str(tmp_path / "bundle"), "--single", str(tmp_path / "one.html"))
    made = run_cli(place, *words, "--browser-smoke")
    assert made.returncode == 0, made.stderr
    assert "a browser ran it" in made.stdout
    assert (tmp_path / "one.html").read_bytes().startswith(b"<!")
