"""A browser for the page: Chromium as Debian ships it, a fresh profile a page, and an eye on every request."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

sys.path.append(str(Path(__file__).parent))

from page_site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing leaves this machine; one name leads to it that is neither localhost nor https.
    "--host-resolver-rules=MAP plain.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
ROOT = Path(__file__).resolve().parents[2]
CANARY = "http://elsewhere.test/canary"
# Milliseconds until a browser that does nothing is given up, on a machine that has much else to do.
PATIENCE = 180_000
OVER = "html[data-state=verified], html[data-state=refused]"
Open = Callable[..., "Page"]
Serve = Callable[[Path], Site]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests; its own log of the network has the last word on what any page asked for."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is needed: install the package chromium"
    log = tmp_path_factory.mktemp("network") / "log.json"
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=[*FLAGS, f"--log-net-log={log}"])
        page = running.new_page()
        page.evaluate("url => fetch(url, { mode: 'no-cors' }).catch(() => null)", CANARY)
        page.close()
        yield running
        running.close()
    asked = asked_by_pages(json.loads(log.read_text(encoding="utf-8")))
    assert [url for url in asked if not local(url)] == [CANARY], "the canary alone shows that the log sees everything"


def asked_by_pages(log: dict[str, Any]) -> list[str]:
    """Every address that a page asked for; what the browser asks for itself has no page as its origin."""
    kind = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    started = [event["params"] for event in log["events"] if event["type"] == kind and "url" in event.get("params", {})]
    return [job["url"] for job in started if job["initiator"] != "not an origin"]


@pytest.fixture(scope="session")
def cases_tool() -> ModuleType:
    """The tool that writes the table of packages: it builds models from recipes."""
    spec = importlib.util.spec_from_file_location("adapter_cases", ROOT / "tools" / "adapter_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a folder for one test."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(Site(folder))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open an address in a profile of its own; whatever the page does, it may ask nobody but the loopback."""
    contexts, asked, errors = [], [], []

    def open_page(address: str, wait: str | None = OVER, script: str | None = None, **settings: Any) -> Page:
        context = browser.new_context(**settings)
        context.set_default_timeout(PATIENCE)
        if script is not None:
            context.add_init_script(script)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        if wait:
            page.wait_for_selector(wait, state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    foreign = [url for url in asked if not local(url)]
    assert asked
    assert not foreign


def local(url: str) -> bool:
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("file", "blob", "data") or parts.hostname in ("127.0.0.1", "plain.test")
