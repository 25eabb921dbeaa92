"""What the page makes of servers that lie or fail, and of places where a browser cannot check a digest."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Open, Serve

MORE = 1 << 22


def path_of(bundle: Path, name: str) -> str:
    plan = json.loads((bundle / "plan.json").read_bytes())
    return next(module["path"] for module in plan["modules"] if module["id"] == name)


def refusal(page: Page) -> tuple[str | None, str | None]:
    row = page.locator("#steps > li[data-state=refused]")
    return row.get_attribute("data-step"), row.get_attribute("data-reason")


def test_a_file_without_an_end_is_hung_up_on_at_the_first_byte_too_many(
    good_bundle: Path, serve: Serve, visit: Open
) -> None:
    site, name, sent = serve(good_bundle), path_of(good_bundle, "model"), []
    data = (good_bundle / name).read_bytes()

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        with suppress(ConnectionError):
            handler.wfile.write(data)
            # No length was announced, so only counting can tell; what fits into the buffers on the way may still leave.
            for _ in range(64):
                handler.wfile.write(bytes(MORE))
                sent.append(MORE)

    site.instead[name] = endless
    page = visit(site.address)
    assert refusal(page) == ("model", "fetch.bytes")
    assert sum(sent) < 64 * MORE


@pytest.mark.parametrize(
    ("name", "step", "reason"),
    [
        ("registry", "registry", "fetch.missing"),
        ("model", "model", "fetch.missing"),
        ("evidence-smoke", "evidence", "evidence.file"),
    ],
)
def test_no_redirect_is_followed(
    name: str, step: str, reason: str, good_bundle: Path, serve: Serve, visit: Open
) -> None:
    site, path = serve(good_bundle), path_of(good_bundle, name)
    (good_bundle / path).read_bytes()
    site.instead[path] = lambda handler: handler.answer(302, b"", Location=f"/elsewhere/{name}")
    page = visit(site.address)
    assert refusal(page) == (step, reason)
    assert not [asked for asked in site.log if asked.startswith("elsewhere")]


@pytest.mark.parametrize("status", [403, 404, 500, 204])
def test_a_server_that_fails_is_a_file_that_is_missing(
    status: int, good_bundle: Path, serve: Serve, visit: Open
) -> None:
    site, path = serve(good_bundle), path_of(good_bundle, "engine")
    site.instead[path] = lambda handler: handler.answer(status, b"")
    step, reason = refusal(visit(site.address))
    assert (step, reason) == ("engine", "fetch.bytes" if status == 204 else "fetch.missing")


def test_a_connection_that_breaks_off_is_a_file_that_is_missing(good_bundle: Path, serve: Serve, visit: Open) -> None:
    site, path = serve(good_bundle), path_of(good_bundle, "model")

    def broken(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str((good_bundle / path).stat().st_size))
        handler.end_headers()
        handler.wfile.write(b"SLM1")
        handler.close_connection = True

    site.instead[path] = broken
    assert refusal(visit(site.address)) == ("model", "fetch.missing")


def test_a_page_that_cannot_check_digests_says_how_to_serve_it(good_bundle: Path, serve: Serve, visit: Open) -> None:
    site = serve(good_bundle)
    page = visit(f"http://plain.test:{site.port}/")
    assert refusal(page) == ("plan", "page.insecure")
    assert "https" in page.inner_text("#explained")
    assert "localhost" in page.inner_text("#explained")
    assert "plan.json" not in site.log


def test_a_page_whose_worker_is_missing_says_so(good_bundle: Path, serve: Serve, visit: Open) -> None:
    site = serve(good_bundle)
    site.instead["worker.js"] = lambda handler: handler.answer(404, b"")
    assert refusal(visit(site.address)) == ("plan", "page.failed")


def test_the_page_is_served_from_any_folder(good_bundle: Path, tmp_path: Path, serve: Serve, visit: Open) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "bundle").symlink_to(good_bundle)
    page = visit(f"{serve(tmp_path).address}deep/er/bundle/index.html?from=mail#prompt")
    assert page.get_attribute("html", "data-state") == "verified"
