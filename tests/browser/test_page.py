"""The untouched bundle in the page: verified, answering, telling of itself; and what the page does when it may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open, Serve

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; style-src 'self'; worker-src 'self'"
)
PROMPT = "cap:abc="


@pytest.fixture
def plan(good_bundle: Path) -> dict[str, Any]:
    return json.loads((good_bundle / "plan.json").read_bytes())


def generate(page: Page, prompt: str, **settings: str) -> str:
    page.fill("#prompt", prompt)
    page.evaluate("document.querySelector('.settings').open = true")
    for name, value in settings.items():
        page.fill(f"#{name}", value)
    page.click("#generate")
    page.wait_for_selector("#generate:enabled")
    return page.inner_text("#output")


def diagnostics(page: Page) -> dict[str, Any]:
    return json.loads(page.text_content("#diagnostics") or "")


def test_the_untouched_bundle_is_verified_and_answers(good_bundle: Path, serve: Serve, visit: Open) -> None:
    page = visit(serve(good_bundle).address)
    assert page.get_attribute("html", "data-state") == "verified"
    assert page.eval_on_selector_all("#steps > li", "rows => rows.map(row => row.dataset.state)") == ["verified"] * 10
    assert page.inner_text("#evidence-state") == "loaded"
    assert page.inner_text("#plan-digest") == hashlib.sha256((good_bundle / "plan.json").read_bytes()).hexdigest()
    assert page.get_attribute("meta[http-equiv]", "content") == POLICY
    assert generate(page, PROMPT)
    assert "tokens a second" in page.inner_text("#pace")


def test_only_planned_files_are_fetched_each_once_and_no_phase_before_the_one_below(
    good_bundle: Path, plan: dict[str, Any], serve: Serve, visit: Open
) -> None:
    site = serve(good_bundle)
    visit(site.address)
    phases = {module["path"]: module["phase"] for module in plan["modules"]}
    page_files = {file["path"] for file in plan["page"]["files"]} | {"bundle.js"}
    assert set(site.log) <= page_files | phases.keys() | {"plan.json"}
    fetched = [path for path in site.log if path not in page_files]
    assert fetched[0] == "plan.json"
    assert sorted(fetched[1:]) == sorted(phases)
    order = [phases[path] for path in fetched[1:]]
    assert order == sorted(order)
    assert len(fetched) - 1 == plan["fetch"]["count"]


def test_everything_about_bytes_happens_in_the_worker_while_the_page_stays_awake(
    good_bundle: Path, serve: Serve, visit: Open
) -> None:
    page = visit(serve(good_bundle).address, wait="#steps > li")
    longest = page.evaluate(
        """async () => {
          const state = () => document.documentElement.dataset.state;
          let [last, longest] = [performance.now(), 0];
          while (state() === "verifying") {
            await new Promise(requestAnimationFrame);
            longest = Math.max(longest, performance.now() - last);
            last = performance.now();
          }
          return [state(), longest];
        }"""
    )
    assert longest[0] == "verified"
    assert page.evaluate("performance.getEntriesByType('resource').some(entry => entry.name.endsWith('.slm'))") is False


def test_the_prompt_is_closed_until_all_is_verified_and_says_why(good_bundle: Path, serve: Serve, visit: Open) -> None:
    site = serve(good_bundle)
    model = next(path for path in (good_bundle / "models").iterdir())
    released: list[int] = []

    def late(handler: Any) -> None:
        page.wait_for_timeout
        handler.answer(200, model.read_bytes())
        released.append(1)

    page = visit(site.address, wait=None)
    assert page.is_disabled("#prompt")
    assert "until everything is verified" in page.inner_text("#prompt-note")
    page.wait_for_selector("html[data-state=verified]", state="attached")
    assert page.is_enabled("#prompt")
