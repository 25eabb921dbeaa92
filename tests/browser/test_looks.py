"""How the page looks and is used: on a phone and a desk, in light and dark, with a keyboard, and read aloud."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assembly.drifts import DRIFTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open, Serve

SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
LOOKS = Path(__file__).with_name("looks.js").read_text(encoding="utf-8").strip().rstrip(";")
SIZES = {"desktop": {"width": 1280, "height": 900}, "360": {"width": 360, "height": 780}}
SCHEMES = ("light", "dark")
STATES = ("verifying", "verified", "generating", "refused", "refused-late")
# What a record says is wrong, and a model that is another one.
REFUSED = {"refused": "a looser licence shown", "refused-late": "another model of the same shape"}
# Holds back what the worker tells last of a text, so that the page stands still while it is being written.
HOLD = """
const add = Worker.prototype.addEventListener;
Worker.prototype.addEventListener = function (type, listener) {
  const held = (event) => document.getElementById("stop").disabled || event.data.tell === "token" ? listener(event) : null;
  return add.call(this, type, type === "message" ? held : listener);
};
"""
Stage = Callable[..., "Page"]


@pytest.fixture
def stage(good_bundle: Path, tmp_path: Path, serve: Serve, visit: Open) -> Stage:
    """The page in one of its states."""

    def show(state: str, size: str = "desktop", scheme: str = "light") -> Page:
        folder = good_bundle
        if state in REFUSED:
            folder = tmp_path / "drifted"
            next(drift for drift in DRIFTS if drift.name == REFUSED[state]).write(good_bundle, folder)
        site, settings = serve(folder), {"viewport": SIZES[size], "color_scheme": scheme}
        if state == "verifying":
            model = next(path.relative_to(folder).as_posix() for path in (folder / "models").iterdir())
            site.instead[model] = lambda _: site.closing.wait(60)
            return visit(site.address, wait="#steps > li[data-step=model][data-state=checking]", **settings)
        page = visit(site.address, wait=None, script=HOLD if state == "generating" else None, **settings)
        page.wait_for_selector(f"html[data-state={'refused' if state in REFUSED else 'verified'}]", state="attached")
        if state == "generating":
            page.fill("#prompt", "cap the letters of this text")
            page.click("summary:text('Sampling')")
            for field, value in (("temperature", "1.5"), ("top-k", "64"), ("seed", "4")):
                page.fill(f"#{field}", value)
            page.click("#generate")
            page.wait_for_selector("#output:not(:empty)")
        return page

    return show


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
def test_every_state_fits_its_screen_and_can_be_read(state: str, size: str, scheme: str, stage: Stage) -> None:
    page = stage(state, size, scheme)
    width = SIZES[size]["width"]
    picture = shoot(page, f"{state}-{size}-{scheme}")
    # A page that is wider than its screen is pictured wider, too.
    assert struct.unpack(">I", picture[16:20])[0] == width
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert faults(page, "outside", width) == []
    assert faults(page, "faint") == []


def test_the_checks_see_what_they_are_for(stage: Stage) -> None:
    page = stage("verified")
    page.evaluate(
        """() => {
          const style = (id, more) => Object.assign(document.getElementById(id).style, more);
          style("verdict", { color: "#999" });
          style("prompt", { borderColor: "#eee" });
          style("model", { width: "2000px" });
          document.querySelector("label[for=prompt]").remove();
          document.getElementById("stop").textContent = "";
          document.getElementById("export").id = "unload";
        }"""
    )
    assert [fault.split()[0] for fault in faults(page, "faint")] == ["text", "edge"]
    assert faults(page, "outside", 1280)
    assert [fault.split(":")[0] for fault in faults(page, "unheard")][:2] == ["id twice", "id twice"]
    assert {"no label", "no text"} <= {fault.split(":")[0] for fault in faults(page, "unheard")}


def faults(page: Page, name: str, *given: int) -> list[str]:
    """What one of the functions of looks.js finds wrong."""
    return page.evaluate(f"given => ({LOOKS}).{name}(...given)", list(given))


def shoot(page: Page, name: str) -> bytes:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return page.screenshot(path=SHOTS / f"{name}.png", full_page=True, animations="disabled")


def test_a_keyboard_reaches_everything_in_the_order_it_is_seen_and_focus_is_shown(stage: Stage) -> None:
    page = stage("verified")
    walk = []
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
              const element = document.activeElement;
              if (element === document.body) return null;
              const shown = element.matches("[role=switch]") ? element.nextElementSibling : element;
              const style = getComputedStyle(shown);
              const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
              return [element.id || element.className || element.textContent, ring];
            }"""
        )
        if here is None:
            break
        walk.append(tuple(here))
    assert all(ring for _, ring in walk), walk
    names = [name for name, _ in walk]
    wanted = ["skip", "files-title", "prompt", "Sampling", "generate", "output", "adapter-1", "Details", "adapter-2",
              "Details", "adapter-3", "Details", "export", "unload", "diagnostics"]  # fmt: skip
    assert names == wanted


def test_everything_can_be_done_with_the_keyboard(stage: Stage) -> None:
    page = stage("verified", "360")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("cap abc")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#output:not(:empty)")
    page.wait_for_selector("#generate:enabled")
    page.focus("#adapter-2")
    page.keyboard.press("Space")
    page.wait_for_selector("#generate:enabled")
    assert [page.is_checked(f"#adapter-{number}") for number in (1, 2, 3)] == [True, False, False]
    page.focus("#files-title")
    page.keyboard.press("Enter")
    assert page.is_visible("#file-list")


@pytest.mark.parametrize("state", STATES)
def test_everything_has_a_name_and_a_place_for_those_who_listen(state: str, stage: Stage) -> None:
    page = stage(state)
    assert faults(page, "unheard") == []
    assert page.title()
    assert page.get_by_role("status").count() >= 2
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    assert page.get_by_label("What the model continues").count() == 1
    if state == "verified":
        for name in ("dense", "sparse", "factors"):
            assert page.get_by_role("switch", name=name).is_checked()
        assert page.get_by_role("row").count() > 2
        assert page.get_by_role("img").first.get_attribute("aria-label")
    if state in REFUSED:
        assert "Refused" in (page.get_by_role("status").first.text_content() or "")
