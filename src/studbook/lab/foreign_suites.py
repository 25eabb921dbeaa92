"""Tasks of other evaluation tools, written as suite folders that a person can read, change and freeze."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from studbook.errors import StudbookError, UsageError
from studbook.evaluation.suites import read_suite_folder
from studbook.exchange.lm_eval_task import read_task, suite_files
from studbook.files import move, write_new
from studbook.lab.words import plain_name
from studbook.records.evaluation import Role

__all__ = ["Imported", "import_task"]


class Imported(NamedTuple):
    """A suite folder that was written.

    Attributes:
        folder: Where it lies.
        name: Name of the suite.
        scorer: Its kind of scorer.
        items: How many items it has.
    """

    folder: Path
    name: str
    scorer: str
    items: int


def import_task(
    task: Path, folder: Path, *, role: Role, cluster: str, licence: str, name: str | None = None
) -> Imported:
    """Write a task of lm-eval-harness as a suite folder; all of it or nothing.

    Args:
        task: The task's YAML file; its data lies in the same folder.
        folder: A new folder.
        role: Role of the suite.
        cluster: The skill it asks for.
        licence: SPDX identifier of the data.
        name: Name of the suite; the task's by default.

    Raises:
        UsageError: if a file is missing or no task, the folder exists, or the one above it does not.
        OutsideAllowlist: if a suite would not give the harness's verdicts.
        ManifestRefused: if this program has no scorer of the kind.
        RecordRefused: if a row is no item, such as one whose prompt is too long.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError("exists already", where=folder, advice="Name a new folder.", reason="usage.folder")
    if not folder.parent.is_dir():
        advice = "Make the folder it shall lie in first."
        raise UsageError("no such folder", where=folder.parent, advice=advice, reason="usage.folder")
    found = read_task(task)
    chosen = plain_name(name or found.name, "--name")
    files = suite_files(found, name=chosen, role=role, cluster=plain_name(cluster, "--cluster"), licence=licence)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".suite-") as above:
        made = Path(above) / "suite"
        made.mkdir()
        for file, data in files.items():
            write_new(made / file, data, 0o644)
        try:
            suite = read_suite_folder(made)
        except StudbookError as error:
            error.where = error.where.replace(str(made), str(folder))
            error.advice = "Change the task or its data, and import it again; nothing was written."
            raise
        move(made, folder)
    return Imported(folder, chosen, found.scorer, len(suite.items))
