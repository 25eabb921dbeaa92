"""The one page that holds everything, opened from disk: verified, answering, and asking nobody for anything."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from studbook.assembly.single import SINGLE_BYTES, single_page
from studbook.errors import OverBudget

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open


@pytest.fixture
def files(good_bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(good_bundle).as_posix(): path.read_bytes() for path in good_bundle.rglob("*.*")}


def opened(html: bytes, folder: Path, visit: Open, **settings: Any) -> tuple[Page, list[str]]:
    (folder / "one.html").write_bytes(html)
    asked: list[str] = []
    page = visit("about:blank", wait=None, **settings)
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "one.html").as_uri())
    page.wait_for_selector("html[data-state=verified], html[data-state=refused]", state="attached")
    return page, asked


def test_a_page_opened_from_disk_verifies_answers_and_asks_for_nothing(
    files: dict[str, bytes], tmp_path: Path, visit: Open
) -> None:
    page, asked = opened(single_page(files), tmp_path, visit)
    assert page.get_attribute("html", "data-state") == "verified"
    assert page.inner_text("#evidence-state") == "loaded"
    page.fill("#prompt", "cap abc")
    page.click("#generate")
    page.wait_for_selector("#generate:enabled")
    assert "tokens a second" in page.inner_text("#pace")
    with page.expect_download() as coming:
        page.click("#export")
    assert json.loads(Path(coming.value.path()).read_bytes())["model"] in str(sorted(files))
    assert asked[0] == (tmp_path / "one.html").as_uri()
    # Its worker and its download come out of its own memory.
    assert all(url.startswith("blob:") for url in asked[1:])


def test_its_policy_names_its_own_script_and_style_and_lets_it_ask_nobody(
    files: dict[str, bytes], tmp_path: Path, visit: Open
) -> None:
    html = single_page(files)
    (policy,) = re.findall(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    digest = r"'sha256-[A-Za-z0-9+/]{43}='"
    wanted = rf"default-src 'none'; script-src {digest} 'wasm-unsafe-eval'; style-src {digest}; worker-src blob:"
    assert re.fullmatch(wanted, policy.decode())
    assert not re.search(rb'(?:src|href)="(?!#)', html)
    page, _ = opened(html, tmp_path, visit)
    tried = page.evaluate(
        """async () => {
          const run = (text) => {
            const script = document.createElement("script");
            script.textContent = text;
            document.head.append(script);
          };
          run("globalThis.foreign = true");
          const asked = await fetch("http://127.0.0.1:9/").then(() => true, () => false);
          return [globalThis.foreign ?? false, asked];
        }"""
    )
    assert tried == [False, False]


def test_a_changed_script_does_not_run(files: dict[str, bytes], tmp_path: Path, visit: Open) -> None:
    html = single_page(files)
    changed = html.replace(b"dataset.state = state", b"dataset.state = 'verified'")
    assert changed != html
    (tmp_path / "one.html").write_bytes(changed)
    page = visit((tmp_path / "one.html").as_uri(), wait=None)
    assert page.get_attribute("html", "data-state") == "verifying"
    assert page.locator("#steps > li").count() == 0


def test_a_changed_byte_of_the_model_is_refused(files: dict[str, bytes], tmp_path: Path, visit: Open) -> None:
    name = next(path for path in files if path.startswith("models/"))
    model = files[name]
    held = base64.b64encode(model).decode()
    changed = base64.b64encode(model[:-1] + bytes([model[-1] ^ 1])).decode()
    page, _ = opened(single_page(files).replace(held.encode(), changed.encode()), tmp_path, visit)
    row = page.locator("#steps > li[data-state=refused]")
    assert (row.get_attribute("data-step"), row.get_attribute("data-reason")) == ("model", "fetch.checksum")


def test_a_file_that_was_left_out_is_refused(files: dict[str, bytes], tmp_path: Path, visit: Open) -> None:
    left = next(path for path in files if path.startswith("evidence/"))
    page, _ = opened(single_page({path: data for path, data in files.items() if path != left}), tmp_path, visit)
    row = page.locator("#steps > li[data-state=refused]")
    assert (row.get_attribute("data-step"), row.get_attribute("data-reason")) == ("evidence", "evidence.file")


def test_a_bundle_of_more_than_ten_megabytes_is_not_written_as_one_page(files: dict[str, bytes]) -> None:
    with pytest.raises(OverBudget) as refused:
        single_page(files | {"models/more.slm": bytes(SINGLE_BYTES)})
    assert refused.value.reason == "assembly.single-budget"
