import inspect
import re
import shlex
from itertools import groupby
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from studbook.cli.commands import commands
from studbook.lab import Lab
from studbook.lab.adapters import Adapters
from studbook.lab.bundles import Bundles
from studbook.lab.evaluators import Evaluators
from studbook.lab.experiments import Experiments
from studbook.lab.keys import Keys
from studbook.lab.packages import Packages
from studbook.lab.partitions import Partitions
from studbook.lab.policies import Policies
from studbook.lab.proposals import Proposals
from studbook.lab.routes import Routes
from studbook.lab.serving import Servers
from studbook.lab.suites import Suites

ROOT = Path(__file__).resolve().parents[2]
LIFE = {"close"}
FACETS = {
    "suite": Suites,
    "adapter": Adapters,
    "bundle": Bundles,
    "key": Keys,
    "package": Packages,
    "partition": Partitions,
    "policy": Policies,
    "experiment": Experiments,
    "proposal": Proposals,
    "evaluator": Evaluators,
    "routes": Routes,
    "server": Servers,
}
ASKED_FOR = set(
    "init register approve compare breed evaluate decide round release rollback reproduce verify ready show lineage "  # noqa: SIM905
    "list diff demo export search doctor".split()
)
BLOCK = re.compile(r"^ *```[\w-]*\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)


def verbs(group: click.Group = commands, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= verbs(command, (*above, name))
        else:
            found[(*above, name)] = command
    return found


def methods(kind: type) -> set[str]:
    found = {name for name, value in inspect.getmembers(kind) if callable(value) and not name.startswith("_")}
    return {name.rstrip("_") for name in found}  # `import_`, where the verb is a word of the language


def sessions(path: Path) -> list[list[str]]:
    """Every call of the program in the code blocks of a page, as words."""
    found = []
    for block in BLOCK.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if "studbook" not in line:
                continue
            words = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
            words.commenters = "#"
            calls = [list(call) for _, call in groupby(words, key=lambda word: bool(set(word) <= set(";&|")))]
            found += [call[1:] for call in calls if call[0] == "studbook"]
    return found


def test_the_verbs_are_the_methods_of_the_lab():
    assert {words[0].replace("-", "_") for words in verbs() if len(words) == 1} == methods(Lab) - LIFE
    for facet, kind in FACETS.items():
        assert {words[1] for words in verbs() if words[0] == facet and len(words) == 2} == methods(kind)
    assert {words[0] for words in verbs() if len(words) == 2} == set(FACETS)
    assert {words[0] for words in verbs()} >= ASKED_FOR


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_every_verb_has_help_and_stands_in_the_verb_table(words):
    command = verbs()[words]
    assert command.help and command.help.endswith(".")
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option
    page = (ROOT / "docs" / "verbs.md").read_text(encoding="utf-8")
    assert f"| [`{' '.join(words)}`](#{'-'.join(words)}) |" in page
    assert f"\n## {' '.join(words)}\n" in page
    shown = CliRunner().invoke(commands, [*words, "--help"])
    assert shown.exit_code == 0
    assert command.help.splitlines()[0] in " ".join(shown.output.split())


@pytest.mark.parametrize("page", [p.relative_to(ROOT) for p in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))])
def test_every_call_in_a_page_is_a_verb_with_options_it_has(page):
    for words in sessions(ROOT / page):
        group: click.Command = commands
        for word in words:
            if word.startswith("-"):
                name = word.partition("=")[0]
                known = {n for option in group.params for n in option.opts} | {"--help", "-h"}
                assert name in known, f"{page}: {' '.join(words)}: {name}"
            elif isinstance(group, click.Group) and word in group.commands:
                group = group.commands[word]
        assert not isinstance(group, click.Group) or {"--help", "--version"} & set(words), f"{page}: {' '.join(words)}"


def test_the_readme_shows_a_session_in_its_first_lines():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    first = [number for number, line in enumerate(lines, 1) if re.match(r" *\$? ?(studbook|make) \w", line)]
    assert first and first[0] <= 40
