"""Every name of a command is looked up before anything is measured, bred or recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import CLUSTER, PARENTS, Place, run_cli
from studbook.errors import UsageError
from studbook.lab import Lab


@pytest.fixture(scope="module")
def place(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The prepared lab with an adapter package and a checkpoint in it; nothing here adds to it."""
    folder = tmp_path_factory.mktemp("names")
    found = prepared_lab.copy(folder)
    with found.open() as lab:
        lab.register(lab.adapters.make("base", "cap-rot", folder / "package").folder / "source.manifest")
        lab.register(write_llama(folder / "llama", 0))
    return found


def refusal(place: Place, words: str, *arguments: object, verb: str) -> UsageError:
    """What a verb says that a slip of the pen stops; the ledger stays as it is."""
    with place.open() as lab:
        before = len(lab.desk.entries())
        with pytest.raises(UsageError, match=words) as caught:
            getattr(lab, verb)(*arguments)
        assert len(lab.desk.entries()) == before
    return caught.value


ADAPTER = "cap-rot-dense"


@pytest.mark.parametrize(
    ("words", "verb", "arguments"),
    [
        ("'nope' is not the name of a model", "round", (CLUSTER, None, None, "nope")),
        ("is an adapter package, not a model", "round", (CLUSTER, None, None, ADAPTER)),
        ("llama: is a checkpoint or LoRA folder", "round", (CLUSTER, None, None, "llama")),
        ("'nope' is not the name of a model", "round", (CLUSTER, None, ["cap-rot", "nope"])),
        ("is an adapter package, not a model", "round", (CLUSTER, None, ["cap-rot", ADAPTER])),
        ("'cap-rot' is named twice", "round", (CLUSTER, None, ["cap-rot", "cap-rot"])),
        ("no frozen suite has the label 'nope'", "round", ("nope",)),
        ("no frozen suite has the label 'nope'", "breed", ("nope", {"operator": "blend/1", "weights": "uniform"})),
        ("'nope' is not the name of a model", "decide", (CLUSTER, ["nope"])),
        ("cap-rot was not bred here", "decide", (CLUSTER, ["cap-rot"])),
        ("'nope' is not the name of a model", "evaluate", (["base", "nope"],)),
        ("is an adapter package, not a model", "evaluate", (["base", ADAPTER],)),
        ("llama: is a checkpoint or LoRA folder", "evaluate", (["base", "llama"],)),
        ("is an adapter package, not a model", "compare", ("base", [ADAPTER])),
        ("is an adapter package, not a model", "compare", (ADAPTER, ["cap-rot"])),
    ],
)
def test_a_name_that_cannot_stand_there_is_told_first(
    place: Place, words: str, verb: str, arguments: tuple[object, ...]
) -> None:
    refusal(place, words, *arguments, verb=verb)


def test_two_names_of_one_model_are_told_with_both(place: Place) -> None:
    with place.open(writer=False) as lab:
        start = lab.desk.find_model(PARENTS[0])[:12]
    found = refusal(
        place, f"'{start}' is named twice, as {PARENTS[0]}", CLUSTER, None, [PARENTS[0], start], verb="round"
    )
    assert found.reason == "usage.twice"


def test_an_adapter_is_told_to_be_fused_first(place: Place) -> None:
    ended = run_cli(place, "evaluate", ADAPTER)
    assert ended.returncode == 2
    assert f"{ADAPTER}: is an adapter package, not a model" in ended.stderr
    assert "Fuse it into its base first: studbook breed CLUSTER" in ended.stderr
    assert f"--parent {ADAPTER}" in ended.stderr


def test_checkpoints_are_compared_on_the_command_line(place: Place, tmp_path: Path) -> None:
    other = place.copy(tmp_path / "copy")
    with other.open() as lab:
        lab.register(write_llama(tmp_path / "tall", 1, layers=3))
    ended = run_cli(other, "compare", "llama", "tall")
    assert ended.returncode == 5
    assert "FAIL  layout" in ended.stdout
    assert "ok    tokenizer" in ended.stdout
    with Lab(other.path, other.keys, writer=False) as lab:
        assert lab.verify().ok
