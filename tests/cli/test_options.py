"""An option that nothing would read is refused before any work, with its name and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studbook.cli import main
from studbook.cli.session import check_new_folder, recipes_of, work_of
from studbook.errors import UsageError
from studbook.lab import Lab

BLEND = '{"operator": "blend/1", "weights": "uniform"}'


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that leaves with 2, in a folder that is no lab: it was refused before the lab was opened."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    found = capsys.readouterr().err
    assert "is not a lab" not in found
    assert "what to do:" in found
    return found


def lab_is_sound(path: Path) -> bool:
    """Whether a lab holds nothing but its own files."""
    with Lab(path, writer=False) as lab:
        return lab.verify().ok


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a mergekit file."""
    monkeypatch.delenv("STUDBOOK_LAB", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merge.yml").write_text("merge_method: linear\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "option", "words"),
    [
        (["breed", "rot", BLEND, "--base", "x"], "--base", "means something only for checkpoints"),
        (["breed", "rot", BLEND, "--threads", "1"], "--threads", "means something only for checkpoints"),
        (["breed", "rot", BLEND, "--seed", "0"], "--seed", "is for a mergekit file"),
        (["breed", BLEND, "--seed", "0"], "--seed", "is for a mergekit file"),
        (["breed", "--mergekit", "merge.yml", "--parent", "a"], "--parent", "a mergekit file names its models"),
        (["breed", "--mergekit", "merge.yml", "--base", "a"], "--base", "a mergekit file names its models"),
        (["breed", "rot", BLEND, "--mergekit", "merge.yml"], "--mergekit", "is the whole recipe"),
        (["breed", "rot", BLEND, "--parent", "a", "--parent", "b", "--parent", "a"], "--parent", "'a' is named twice"),
        (["breed", "rot", f"[{BLEND}, {BLEND}]"], "RECIPE", "holds 2 records, and one child is bred"),
        (["breed"], "names no recipe", "studbook breed CLUSTER RECIPE"),
        (["round", "rot", "--parent", "a", "--parent", "a"], "--parent", "named twice"),
        (["search", "rot", "--parent", "a", "--parent", "a"], "--parent", "named twice"),
        (["search", "rot", "--mix", "lerp"], "--mix", "only with --method m2n2"),
        (["search", "rot", "--method", "random", "--mix", "slerp"], "--mix", "only with --method m2n2"),
        (["release", "x", "--to", "shadow", "--as", "ann"], "--as", "only with --to champion"),
        (["adapter", "make", "a", "b", "c", "--share", "0.5"], "--share", "only with --kind top or random"),
        (["adapter", "make", "a", "b", "c", "--kind", "top", "--seed", "1"], "--seed", "only with --kind random"),
    ],
)
def test_an_option_that_nothing_would_read_is_refused_by_name(
    arguments: list[str], option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refused(arguments, capsys)
    assert option in found
    assert words in found


@pytest.mark.parametrize(
    "arguments",
    [
        ["breed", "rot", BLEND],
        ["breed", BLEND, "--parent", "a", "--base", "b", "--threads", "2", "-o", "new"],
        ["breed", f"[{BLEND}]", "--parent", "a"],
        ["breed", "--mergekit", "merge.yml", "--seed", "3", "--threads", "1"],
        ["search", "rot", "--method", "m2n2", "--mix", "slerp"],
        ["search", "rot", "--seed", "3"],
        ["release", "x", "--to", "champion", "--as", "ann"],
        ["adapter", "make", "a", "b", "c", "--kind", "random", "--share", "0.5", "--seed", "2"],
    ],
)
def test_an_option_that_is_read_goes_through_to_the_lab(
    arguments: list[str], nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(nowhere.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "is not a lab" in capsys.readouterr().err
    assert sorted(nowhere.iterdir()) == before


def test_a_mergekit_file_takes_the_seed_that_is_given_and_no_other(nowhere: Path) -> None:
    path = nowhere / "merge.yml"
    assert work_of((), path, 7).recipe == {"mergekit": path.read_text(), "where": str(path), "seed": 7}
    assert "seed" not in work_of((), path, None).recipe


def test_a_list_of_recipes_stays_a_list_for_a_round() -> None:
    assert recipes_of(f"[{BLEND}, {BLEND}]") == [json.loads(BLEND)] * 2


# -- where a child is written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("full", "is not empty"),
        ("file", "cannot be written to: File exists"),
        ("file/below", "cannot be written to: Not a directory"),
        ("missing/below", "cannot be written to: No such file or directory"),
        ("dangling", "cannot be written to: File exists"),
        ("a" * 300, "cannot be written to: File name too long"),
        ("lab/child", "lies in the lab"),
        ("lab", "lies in the lab"),
        ("inside", "lies in the lab"),
    ],
)
def test_a_folder_that_nothing_could_be_written_to_is_refused_before_any_work(
    nowhere: Path, path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (nowhere / "full").mkdir()
    (nowhere / "full" / "file").write_text("")
    (nowhere / "file").write_text("")
    (nowhere / "dangling").symlink_to(nowhere / "nothing")
    Lab.init(nowhere / "lab", "ann")
    (nowhere / "inside").symlink_to(nowhere / "lab")
    # Nobody is called a: the folder is looked at first.
    found = refused(["--lab", "lab", "breed", BLEND, "--parent", "a", "-o", path], capsys)
    assert f"--output {path}: {words}" in found
    assert f"FOLDER {path}: {words}" in refused(["--lab", "lab", "export", "a", path], capsys)
    assert lab_is_sound(nowhere / "lab")


@pytest.mark.parametrize("there", [False, True])
def test_a_new_or_empty_folder_is_fine_and_nothing_is_left_in_it(nowhere: Path, there: bool) -> None:
    path = nowhere / "out"
    if there:
        path.mkdir()
    check_new_folder(path, nowhere / "lab", "-o")
    assert path.exists() == there
    assert not there or not list(path.iterdir())


def test_the_refusal_of_a_folder_has_a_stable_reason(nowhere: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_new_folder(nowhere, nowhere / "lab", "-o")
    assert caught.value.reason == "usage.folder"
