"""The engine and wllama in Chromium, each on a page of its own, for bench_engine.py; needs playwright, npm and Chromium.

    python benchmarks/engine_browser.py FOLDER

``FOLDER`` holds job.json, model-f32.slm and model.gguf. The package of the peer is installed from the lock file beside its
page. Nothing but loopback is asked once it is there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
PAGES = HERE / "engine_pages"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    """A static server that says nothing."""

    extensions_map: ClassVar = {
        ".wasm": "application/wasm",
        ".js": "text/javascript",
        ".html": "text/html",
        "": "text/plain",
    }

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def peer_folder() -> Path:
    """The peer's package, installed once from its lock file into the user's build folder."""
    folder = HERE.parent / "build" / "engine_pages"
    if not (folder / "node_modules" / "@wllama" / "wllama").is_dir():
        if shutil.which("npm") is None:
            raise SystemExit(
                "npm is needed, which brings the peer's package: install it (Debian: npm) and run this again"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PAGES / name, folder / name)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    return folder / "node_modules" / "@wllama" / "wllama" / "esm"


def served(work: Path, site: Path) -> None:
    """Put everything the pages ask for into one folder."""
    for name in ("ours.html", "ours.js", "peer.html", "peer.js"):
        shutil.copy(PAGES / name, site / name)
    engine = HERE.parent / "src" / "studbook" / "models" / "engine" / "engine.wasm"
    shutil.copy(engine, site / "engine.wasm")
    for name in ("job.json", "model-f32.slm", "model.gguf"):
        shutil.copy(work / name, site / name)
    esm = peer_folder()
    shutil.copy(esm / "index.js", site / "wllama.js")
    shutil.copy(esm / "wasm" / "wllama.wasm", site / "wllama.wasm")


def main() -> None:
    """Run both pages and print what they measured."""
    with tempfile.TemporaryDirectory() as place:
        site = Path(place)
        served(Path(sys.argv[1]), site)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=place))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found: dict[str, Any] = {}
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            for name, page_name in (("chromium", "ours.html"), ("wllama", "peer.html")):
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{server.server_port}/{page_name}")
                page.wait_for_function("window.measured !== undefined", timeout=300_000)
                row = page.evaluate("window.measured")
                if "error" in row:
                    raise SystemExit(f"{page_name}: {row['error']}")
                row["versions"] = {"chromium": browser.version}
                found[name] = row
                page.close()
            browser.close()
        assets = {"chromium": ["engine.wasm"], "wllama": ["wllama.js", "wllama.wasm"]}
        for name, files in assets.items():
            found[name]["assets"] = sum((site / file).stat().st_size for file in files)
        server.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
