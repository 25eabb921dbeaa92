"""The untouched bundle in the page: verified, answering, telling of itself, and giving its memory back."""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_site import harness

from studbook.models.engine import Engine
from studbook.models.sampling import Sampling
from studbook.models.tokenizers import EOS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from conftest import Open, Serve

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; style-src 'self'; worker-src 'self'"
)
PROMPT = "cap abc"
ENDLESS = {"temperature": "1", "top-k": "64", "most": "65536"}


@pytest.fixture
def plan(good_bundle: Path) -> dict[str, Any]:
    return json.loads((good_bundle / "plan.json").read_bytes())


@pytest.fixture
def lab_engine(good_bundle: Path, plan: dict[str, Any]) -> Iterator[Engine]:
    """The bundle's model in wasmtime, with its whole stack."""
    files = {module["id"]: (good_bundle / module["path"]).read_bytes() for module in plan["modules"]}
    with Engine(files["model"]) as engine:
        engine.apply(*(files[f"adapter-{number}"] for number in range(1, len(plan["stack"]) + 1)))
        yield engine


def ask(page: Page, prompt: str, **settings: str) -> None:
    page.fill("#prompt", prompt)
    page.evaluate("document.querySelector('.settings').open = true")
    for name, value in settings.items():
        page.fill(f"#{name}", value)
    page.click("#generate")


def answer(page: Page, prompt: str, **settings: str) -> str:
    ask(page, prompt, **settings)
    page.wait_for_selector("#generate:enabled")
    return page.text_content("#output") or ""


def diagnostics(page: Page) -> dict[str, Any]:
    return json.loads(page.text_content("#diagnostics") or "")


def states(page: Page) -> list[str]:
    return page.eval_on_selector_all("#steps > li", "rows => rows.map(row => row.dataset.state)")


def test_the_untouched_bundle_is_verified(good_bundle: Path, plan: dict[str, Any], serve: Serve, visit: Open) -> None:
    page = visit(serve(good_bundle).address)
    assert page.get_attribute("html", "data-state") == "verified"
    assert states(page) == ["verified"] * 10
    assert page.inner_text("#evidence-state") == "loaded"
    assert page.inner_text("#plan-digest") == hashlib.sha256((good_bundle / "plan.json").read_bytes()).hexdigest()
    assert page.get_attribute("meta[http-equiv]", "content") == POLICY
    rows = page.eval_on_selector_all("#file-list > li", "rows => rows.map(row => [row.title, row.dataset.state])")
    assert rows == [[f"{m['path']}, SHA-256 {m['sha256']}", "verified"] for m in plan["modules"]]


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": "0.8", "top-k": "40", "top-p": "0.95", "seed": "18446744073709551615"}],
    ids=["greedy", "sampled"],
)
def test_what_it_writes_is_what_the_lab_writes(
    settings: dict[str, str], good_bundle: Path, lab_engine: Engine, serve: Serve, visit: Open
) -> None:
    page = visit(serve(good_bundle).address)
    values = {name.replace("-", "_"): json.loads(value) for name, value in settings.items()}
    prompts = ["cap abc", "odd 1234", "x", "Grüße, 世界"]
    for prompt in prompts:
        ids = lab_engine.encode(prompt, eos=False)
        wanted = lab_engine.decode([ids], 40, Sampling(**values)).ids[0]
        assert answer(page, prompt, most="40", **settings) == text_of(wanted)
        assert diagnostics(page)["tokens"] == len(wanted)


def text_of(ids: list[int]) -> str:
    """Bytes as people see them in the page: what is no text becomes the sign for that."""
    return bytes(i for i in ids if i < 256 and i != EOS).decode(errors="replace")


def test_only_planned_files_are_fetched_each_once_and_no_phase_before_the_one_below(
    good_bundle: Path, plan: dict[str, Any], serve: Serve, visit: Open
) -> None:
    site = serve(good_bundle)
    visit(site.address)
    phases = {module["path"]: module["phase"] for module in plan["modules"]}
    own = {file["path"] for file in plan["page"]["files"]} | {"bundle.js"}
    assert set(site.log) <= own | phases.keys() | {"plan.json"}
    first, *fetched = [path for path in site.log if path not in own]
    assert first == "plan.json"
    assert sorted(fetched) == sorted(phases)
    assert [phases[path] for path in fetched] == sorted(phases.values())
    assert len(fetched) == plan["fetch"]["count"]


def test_the_prompt_is_closed_and_the_page_awake_while_the_model_is_still_coming(
    good_bundle: Path, plan: dict[str, Any], serve: Serve, visit: Open
) -> None:
    site, coming = serve(good_bundle), threading.Event()
    module = next(m for m in plan["modules"] if m["id"] == "model")
    data = (good_bundle / module["path"]).read_bytes()

    def slowly(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:4096])
        handler.wfile.flush()
        coming.wait(60)
        handler.wfile.write(data[4096:])

    site.instead[module["path"]] = slowly
    page = visit(site.address, wait="#steps > li[data-step=model] progress:not([hidden])")
    try:
        assert states(page) == ["verified"] * 6 + ["checking"] + ["pending"] * 3
        assert page.is_disabled("#prompt")
        assert page.is_disabled("#generate")
        assert page.inner_text("#prompt-note") == "Disabled until everything is verified."
        assert page.inner_text("#evidence-state") == "loaded"
        assert float(page.get_attribute("#steps > li[data-step=model] progress", "value") or 0) <= 4096
        page.click("#files-title")
        assert page.is_visible("#file-list")
    finally:
        coming.set()
    page.wait_for_selector("html[data-state=verified]", state="attached")
    assert page.is_enabled("#prompt")


def test_a_text_can_be_stopped_and_the_page_is_awake_meanwhile(good_bundle: Path, serve: Serve, visit: Open) -> None:
    page = visit(serve(good_bundle).address)
    answer(page, PROMPT, seed="1", **ENDLESS)
    # The context ends too soon to be interrupted by hand, so one task asks for both, until the second came in time.
    both = "['generate', 'stop'].forEach(id => document.getElementById(id).click())"
    for seed in range(1, 60):
        page.fill("#seed", str(seed))
        page.evaluate(both)
        page.wait_for_selector("#generate:enabled")
        if page.inner_text("#pace").endswith("stopped."):
            break
    else:
        pytest.fail(f"never stopped: {page.inner_text('#pace')}")
    assert answer(page, PROMPT, temperature="0", seed="1", most="3")


def test_packages_go_on_and_off_in_order_and_detaching_restores_the_base(
    good_bundle: Path, plan: dict[str, Any], serve: Serve, visit: Open
) -> None:
    def texts(name: str) -> dict[str, Any]:
        path = next(module["path"] for module in plan["modules"] if module["id"] == name)
        return json.loads((good_bundle / path).read_bytes())

    def switch(number: int) -> dict[str, Any]:
        # Nothing can be asked while the stack changes, so the change is over when something can.
        page.locator(f"label[for=adapter-{number}]").click()
        page.wait_for_selector("#generate:enabled")
        return diagnostics(page)

    page = visit(serve(good_bundle).address)
    model, family = texts("model-manifest"), texts("adapter-family")
    manifests = [texts(f"adapter-manifest-{number}") for number in (1, 2, 3)]
    found = diagnostics(page)
    assert (found["logits"], found["applied"]) == (family["logits"], plan["stack"])
    for number in (3, 2):
        found, wanted = switch(number), manifests[number - 2]
        assert (found["fused"], found["state_sha256"]) == (wanted["fused"], wanted["state_sha256"])
        assert found["applied"] == plan["stack"][: number - 1]
    found = switch(1)
    assert (found["applied"], found["fused"], found["logits"]) == ([], {}, model["logits"])
    assert found["state_sha256"] == hashlib.sha256(bytes.fromhex(model["artifact"]["sha256"])).hexdigest()
    found = switch(3)
    assert (found["logits"], found["applied"], found["fused"]) == (
        family["logits"],
        plan["stack"],
        manifests[2]["fused"],
    )
    assert [page.is_checked(f"#adapter-{number}") for number in (1, 2, 3)] == [True] * 3
    assert page.inner_text("#stack-note") == ""


def test_diagnostics_are_exported_as_a_file_in_canonical_form(good_bundle: Path, serve: Serve, visit: Open) -> None:
    page = visit(serve(good_bundle).address)
    answer(page, PROMPT, most="5")
    with page.expect_download() as coming:
        page.click("#export")
    data = Path(coming.value.path()).read_bytes()
    assert coming.value.suggested_filename == "diagnostics.json"
    assert json.loads(data) == diagnostics(page)
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert json.loads(data)["kv_length"] > 0


def test_unloading_ends_the_worker_and_loading_again_verifies_again(
    good_bundle: Path, serve: Serve, visit: Open
) -> None:
    site = serve(good_bundle)
    page = visit(site.address)
    assert len(page.workers) == 1
    with page.workers[0].expect_event("close"):
        page.click("#unload")
    assert page.workers == []
    assert page.is_disabled("#prompt")
    asked = len(site.log)
    page.click("#unload")
    page.wait_for_selector("html[data-state=verified]", state="attached")
    assert "plan.json" in site.log[asked:]
    assert answer(page, PROMPT, most="3")


def test_what_was_verified_once_is_not_in_sight_while_it_is_verified_again(
    good_bundle: Path, serve: Serve, visit: Open
) -> None:
    site, asked, going = serve(good_bundle), threading.Event(), threading.Event()
    page = visit(site.address)
    title = page.inner_text("#title")
    answer(page, PROMPT, most="3")

    def late(handler: Any) -> None:
        asked.set()
        going.wait(60)
        handler.answer(404, b"")

    site.instead["plan.json"] = late
    page.click("#unload")
    page.click("#unload")
    for state in ("waiting", "not loaded"):
        assert asked.wait(60)
        assert page.inner_text("#evidence-state") == state
        assert page.locator("#file-list > li").count() == 0
        assert [page.is_visible(f"#{name}") for name in ("model", "stack", "diagnostics")] == [False] * 3
        assert page.inner_text("#title") != title
        assert [page.inner_text(f"#{name}") for name in ("state", "output", "pace")] == [""] * 3
        going.set()
        page.wait_for_selector("html[data-state=refused]", state="attached")


def resident(browser: Browser) -> int:
    """Bytes of all pages in memory, as the system counts them."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    pages = [process["id"] for process in processes if process["type"] == "renderer"]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pages) * resource.getpagesize()


def test_a_worker_that_is_ended_gives_the_memory_of_its_engine_back(
    browser: Browser, tmp_path: Path, serve: Serve, visit: Open
) -> None:
    page = visit(serve(harness(tmp_path / "harness")).address, wait=None)
    size = 256 << 20
    before = resident(browser)
    ask = "what => import('./engine_page.js').then((module) => module.hold(what))"
    assert page.evaluate(ask, {"bytes": size}) > size
    held = resident(browser)
    assert held - before > size * 0.9
    with page.workers[0].expect_event("close"):
        page.evaluate("globalThis.holder.terminate()")
    # Ending it is one thing, and handing back the pages another, a moment later.
    for _ in range(200):
        if held - resident(browser) > size * 0.9:
            break
        page.wait_for_timeout(100)
    assert held - resident(browser) > size * 0.9
