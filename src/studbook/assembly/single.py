"""The whole bundle as one page to open from disk: it holds every file, and a policy that lets it ask for none.

Browsers load neither modules nor workers from beside a page on disk. So each module becomes a function that is called
once, in the order of the imports; the worker's are kept as text and started from memory; files lie in it as base64. The
policy names the page's own script and style by digest, so nothing else runs in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping

from studbook.assembly.rules import BUNDLE_JS
from studbook.errors import OverBudget, RecordRefused

__all__ = ["SINGLE_BYTES", "single_page"]

SINGLE_BYTES = 10_000_000
"""Most bytes of the files of a bundle that is written as one page."""

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";\n', re.MULTILINE)
_LATER = re.compile(r'\bimport\("\./([a-z]+)\.js"\)')
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
_POLICY = re.compile(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*')
_STYLE = '<link rel="stylesheet" href="style.css">\n'
_SCRIPT = '<script type="module" src="index.js"></script>\n'
# What would end, or hide the end of, the element that holds a text.
_BREAKS = re.compile(r"</(script|style)|<!--", re.IGNORECASE)


def single_page(files: Mapping[str, bytes]) -> bytes:
    """One page that holds a whole bundle.

    Args:
        files: Path -> bytes of every file of the bundle, the page's own among them.

    Raises:
        OverBudget: if the bundle has too many bytes for one page.
    """
    page = {path: data.decode() for path, data in files.items() if "/" not in path and not path.endswith(".json")}
    rest = {path: data for path, data in files.items() if path not in page}
    size = sum(map(len, rest.values()))
    if size > SINGLE_BYTES:
        advice = "Serve the folder instead, or assemble a quantised build."
        text = f"{size} bytes; a single page holds at most {SINGLE_BYTES}"
        raise OverBudget(text, where="--single", advice=advice, reason="assembly.single-budget")
    style, script = page["style.css"], _joined(page, "index")
    held = {path: base64.b64encode(data).decode() for path, data in sorted(rest.items())}
    blocks = (
        ("style", "", style),
        ("script", ' type="application/json" id="embedded-files"', json.dumps(held, separators=(",", ":"))),
        ("script", ' type="text/plain" id="embedded-worker"', _joined(page, "worker")),
        # Modules wait for the whole page, so that everything it looks for is there.
        ("script", ' type="module"', script),
    )
    policy = (
        f"default-src 'none'; script-src {_allowed(script)} 'wasm-unsafe-eval'; style-src {_allowed(style)}; "
        "worker-src blob:"
    )
    html = _POLICY.sub(lambda found: found[1] + policy, page["index.html"])
    html = _replaced(html, _STYLE, "")
    return _replaced(html, _SCRIPT, "".join(_element(*block) for block in blocks)).encode()


def _joined(page: Mapping[str, str], entry: str) -> str:
    """A module and everything it imports as one script, in the order in which they need each other."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        text = page[f"{name}.js"]
        for needed in (*(found[1] for found in _IMPORT.findall(text)), *_LATER.findall(text)):
            add(needed)
        body = _IMPORT.sub(lambda found: f"const {{{found[1]}}} = {found[2]}Module;\n", text)
        body = _LATER.sub(lambda found: f"Promise.resolve({found[1]}Module)", body)
        if name == entry:
            done[name] = body
            return
        names = ", ".join(_EXPORT.findall(body))
        done[name] = f"const {name}Module = (() => {{\n{_EXPORT.sub('', body)}return {{ {names} }};\n}})();\n"

    add(entry)
    return '"use strict";\n' + "".join(done.values())


def _element(tag: str, attributes: str, text: str) -> str:
    if _BREAKS.search(text):
        raise RecordRefused("the page holds a text that would end its element", where=BUNDLE_JS)
    return f"<{tag}{attributes}>{text}</{tag}>\n"


def _allowed(text: str) -> str:
    """A source expression of the Content Security Policy (level 3, section 2.3.1) that lets exactly this text run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _replaced(html: str, old: str, new: str) -> str:
    before, found, after = html.partition(old)
    if not found:
        raise RecordRefused(f"the page has no {old.strip()}", where="index.html")
    return before + new + after
