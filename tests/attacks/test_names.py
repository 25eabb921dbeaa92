"""Names that do something to whoever reads them: escapes for a terminal, markup for a page, formulas for a table."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from checkpoint_fixtures import CONFIG, write_llama
from lab_fixtures import PERSON
from studbook.cli import main
from studbook.cli.progress import Shown
from studbook.lab import Lab
from studbook.lab.papers import Papers
from studbook.records import SourceManifest

LIES = {
    "clear-screen": "\x1b[2J\x1b[Hall well",
    "title": "\x1b]0;owned\x07",
    "carriage-return": "revoked\rapproved",
    "line": "a\nadmitted: yes",
    "right-to-left": "gnp\u202e.slm",
    "isolate": "a\u2066b",
    "c1-escape": "a\x9b2Jb",
    "line-separator": "a\u2028b",
    "null": "a\x00b",
    "html": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "formula": "=HYPERLINK(1)",
    "command-formula": "@SUM(1+1)|cmd",
    "path": "../../etc/passwd",
    "twin": "ba\u0455e",
    "full-width": "\uff42ase",
}
# What may be said in a sentence, where a name may not be so: printed as it is, and escaped in pages.
SENTENCES = ("html", "image", "formula", "command-formula", "path", "twin", "full-width")
lies = pytest.mark.parametrize("lie", LIES.values(), ids=LIES)


class Result(NamedTuple):
    """How a command ended and everything it printed."""

    code: int
    output: str


class Town:
    """A lab and the command line over it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, (folder / "lab", folder / "keys")

    def open(self) -> Lab:
        return Lab(*self.place)

    def run(self, *words: str) -> Result:
        shown = StringIO()
        with redirect_stdout(shown), redirect_stderr(shown), pytest.raises(SystemExit) as ended:
            main(["--lab", str(self.place[0]), "--keys", str(self.place[1]), *words])
        return Result(int(ended.value.code or 0), shown.getvalue())

    def entries(self) -> int:
        return (self.place[0] / "audit" / "ledger.jsonl").read_bytes().count(b"\n")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys")
    yield Town(tmp_path)


def refused(result: Result) -> None:
    """A typed refusal whose words can be printed anywhere."""
    assert result.code not in (0, 1), result.output
    assert all(c.isprintable() or c == "\n" for c in result.output), repr(result.output)


@lies
def test_a_lying_name_given_to_any_verb(town: Town, lie: str) -> None:
    write_llama(town.folder / "model", 1)
    if "\x00" in lie:  # no system passes such a word to a program
        return
    town.run("register", str(town.folder / "model"))
    before = town.entries()
    for words in (
        ("register", str(town.folder / "model"), "--name", lie),
        ("register", str(town.folder / "model"), "--licence", lie),
        ("approve", "model", "--as", lie),
        ("approve", "model", "--as", PERSON, "--for", lie),
        ("approve", lie, "--as", PERSON),
        ("key", "new", lie, "--kind", "policy/1", "--as", PERSON),
        ("key", "revoke", lie, "--as", PERSON),
        ("breed", '{"operator": "blend/1", "weights": "uniform"}', "--parent", lie),
        ("show", lie),
        ("rollback", lie),
        ("audit", lie),
    ):
        refused(town.run(*words))
        assert town.entries() == before, words


@lies
def test_a_reason_that_drives_a_terminal_is_refused_and_a_sentence_is_kept_as_it_is(town: Town, lie: str) -> None:
    write_llama(town.folder / "model", 1)
    with town.open() as lab:
        lab.register(town.folder / "model")
    before = town.entries()
    if "\x00" in lie:
        return
    result = town.run("approve", "model", "--as", PERSON, "--reason", lie)
    if lie in [LIES[name] for name in SENTENCES]:
        assert (result.code, town.entries()) == (0, before + 1)
        assert all(c.isprintable() or c == "\n" for c in town.run("log").output)
    else:
        refused(result)
        assert town.entries() == before


@lies
def test_a_checkpoint_whose_own_words_lie_about_it(town: Town, lie: str) -> None:
    """Folder name, licence and architecture: refused, or kept as text that no reader acts on."""
    words = {**CONFIG, "architectures": [lie], "_name_or_path": lie}
    folder = write_llama(town.folder / "model", 1, card=f"---\nlicense: {json.dumps(lie)}\n---\n# {lie}\n")
    (folder / "config.json").write_text(json.dumps(words))
    result = town.run("register", str(folder))
    assert all(c.isprintable() or c == "\n" for c in result.output), repr(result.output)
    with town.open() as lab:
        assert lab.verify().ok
        for _, manifest in lab.desk.all(SourceManifest):
            if getattr(manifest.source, "architecture", None) is None:
                continue
            lab.export(manifest.name, town.folder / "out", Papers(card=True, cyclonedx=True))
            made = (town.folder / "out" / "studbook-README.md").read_text()
            for text in (made, (town.folder / "out" / "bom.cdx.json").read_text()):
                assert all(c.isprintable() or c == "\n" for c in text)
            assert "<script" not in made
            assert "<img" not in made
    for verb in (("list",), ("log",), ("show", "model"), ("lineage", "model"), ("audit", "model")):
        assert all(c.isprintable() or c in "\n" for c in town.run(*verb).output), verb


@lies
def test_a_tensor_whose_name_lies(town: Town, lie: str) -> None:
    folder = write_llama(town.folder / "model", 1)
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header[lie] = header.pop("model.norm.weight")
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    result = town.run("register", str(folder))
    assert all(c.isprintable() or c == "\n" for c in result.output), repr(result.output)
    if any(not c.isprintable() for c in lie) or ".." in lie:
        refused(result)
    else:
        assert result.code == 0, result.output
    with town.open() as lab:
        assert lab.verify().ok


def test_a_folder_whose_name_is_hostile_must_be_given_another(town: Town) -> None:
    folder = write_llama(town.folder / "\x1b[2J<b>", 1)
    result = town.run("register", str(folder))
    refused(result)
    assert "--name" in result.output
    assert town.run("register", str(folder), "--name", "harmless").code == 0


def test_a_title_with_markup_is_shown_and_not_obeyed() -> None:
    shown = StringIO()
    progress = Shown(Console(file=shown, force_terminal=True, color_system=None, width=200))
    list(progress.track("[bold red]\x1b[2Jx[/bold red]", ["item"]))
    progress.say("\x9b2J[link=file:///etc]x[/link]")
    assert "[bold red]\N{REPLACEMENT CHARACTER}[2Jx[/bold red]" in shown.getvalue()
    assert "\N{REPLACEMENT CHARACTER}2J[link=file:///etc]x[/link]" in shown.getvalue()
    assert "\x1b[2J" not in shown.getvalue()
