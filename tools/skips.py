"""Fail when a test was skipped that may not be: ``python tools/skips.py build/tests.xml .ci/allowed_skips.txt``.

Reads the JUnit report of a pytest run. A line of the list reads ``test file or test: beginning of the reason``; empty
lines and lines that begin with ``#`` do not count. Exit code 1 names every skip that no line allows, 2 says that the
report holds no test at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

__all__ = ["Skip", "allowed", "main", "skips_of"]


class Skip(NamedTuple):
    """A test, or a whole test file, that did not run.

    Attributes:
        test: Dotted path below the repository, such as ``tests.examples.test_founder_training``.
        reason: What pytest was told.
    """

    test: str
    reason: str


def main(arguments: list[str] | None = None) -> int:
    """Compare a report with the list; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fail when a test was skipped that may not be.")
    parser.add_argument("report", type=Path, help="a JUnit report, as pytest --junitxml writes it")
    parser.add_argument("allowed", type=Path, help="the list of skips that may be")
    options = parser.parse_args(arguments)
    # The report was written by our own run a moment ago; it is not input from outside.
    cases = ElementTree.parse(options.report).getroot().findall(".//testcase")
    if not cases:
        print(f"{options.report}: no test ran", file=sys.stderr)
        return 2
    found = skips_of(cases)
    lines = options.allowed.read_text(encoding="utf-8").splitlines()
    wrong = [skip for skip in found if not allowed(skip, lines)]
    for skip in wrong:
        print(f"skipped, and not on {options.allowed}: {skip.test}: {skip.reason}", file=sys.stderr)
    print(f"{len(cases)} tests, {len(found)} skipped, {len(found) - len(wrong)} of them allowed")
    return 1 if wrong else 0


def skips_of(cases: Iterable[ElementTree.Element]) -> list[Skip]:
    """Every skip of a report; an expected failure (xfail) counts as one, since it hides a result the same way."""
    found = []
    for case in cases:
        for mark in case.findall("skipped"):
            name = ".".join(part for part in (case.get("classname", ""), case.get("name", "")) if part)
            found.append(Skip(name, f"{mark.get('message', '')} {mark.text or ''}"))
    return found


def allowed(skip: Skip, lines: Iterable[str]) -> bool:
    """Whether a line of the list names this test (or its file) and its reason."""
    for line in lines:
        test, separator, reason = line.partition(": ")
        if not separator or line.startswith("#"):
            continue
        dotted = test.strip().replace(".py::", ".").removesuffix(".py").replace("/", ".")
        if (skip.test == dotted or skip.test.startswith(dotted + ".")) and reason.strip() in skip.reason:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
