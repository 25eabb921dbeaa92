"""Whatever lies where a file should be: every reader that opens one refuses it by type, at once, and names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import seeds
from studbook import files
from studbook.adapters.reader import read_adapter
from studbook.errors import BytesLie, StudbookError, UsageError
from studbook.evaluation.suites import read_suite_folder
from studbook.lab.founding import read_policy
from studbook.models.checkpoint import open_checkpoint
from studbook.models.checkpoint_checks import check_carried
from studbook.models.checkpoint_folder import list_folder
from studbook.models.peft import read_peft
from studbook.models.provenance import read_provenance
from studbook.models.safetensors import open_safetensors
from studbook.models.slm import read_slm
from studbook.models.trained_source import read_trained_source


def checkpoint(path: Path) -> None:
    for name, data in seeds.checkpoint_files().items():
        if name != path.name:
            (path.parent / name).write_bytes(data)
    found = list_folder(path.parent)
    check_carried(found)
    open_checkpoint(found)


def lora(path: Path) -> None:
    for name, data in seeds.lora_files().items():
        if name != path.name:
            (path.parent / name).write_bytes(data)
    read_peft({name: path.parent / name for name in seeds.lora_files()})


# Reader -> the name of what it opens, and good content of it.
READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "a container": ("model.slm", seeds.containers()[0], read_slm),
    "a package": ("change.adp", seeds.packages()[0], read_adapter),
    "weights": ("model.safetensors", seeds.tensor_files()[0], open_safetensors),
    "a source": ("source.manifest", seeds.sources()[0], read_trained_source),
    "a sidecar": ("model.slm.manifest", seeds.sidecars()[0], read_provenance),
    "a policy": ("policy.json", seeds.policies()[0], lambda path: read_policy(path, "ann")),
    "a suite": ("suite.manifest", b"name=x\n", lambda path: read_suite_folder(path.parent)),
    "a config": ("config.json", seeds.checkpoint_files()["config.json"], checkpoint),
    "a tokenizer": ("tokenizer.json", seeds.tokenizer_json(seeds.ROWS), checkpoint),
    "weights of a checkpoint": ("model.safetensors", seeds.tensor_files()[0], checkpoint),
    "a config of an adapter": ("adapter_config.json", seeds.lora_configs()[0], lora),
    "weights of an adapter": ("adapter_model.safetensors", seeds.lora_tensors(), lora),
    "a file to be hashed": ("any", b"x", files.hash_file),
    "a file to be copied": ("any", b"x", lambda path: files.copy_new(path, path.parent / "copy")),
}


def linked(path: Path, content: bytes) -> None:
    (path.parent / "elsewhere").write_bytes(content)
    path.symlink_to(path.parent / "elsewhere")


PLACES: dict[str, Callable[[Path, bytes], object]] = {
    "a link to the right content": linked,
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to nothing": lambda path, _: path.symlink_to(path.parent / "nowhere"),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a fifo nobody writes to": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_by_type(reader: str, place: str, tmp_path: Path) -> None:
    name, content, read = READERS[reader]
    path = tmp_path / name
    PLACES[place](path, content)
    with pytest.raises((BytesLie, UsageError)) as refused:
        read(path)
    assert name in refused.value.where
    assert not (tmp_path / "copy").exists(), "nothing half-written is left"


@pytest.mark.parametrize("reader", [r for r in READERS if not r.startswith("a file")])
def test_an_empty_file_is_refused_by_type(reader: str, tmp_path: Path) -> None:
    name, _, read = READERS[reader]
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(StudbookError) as refused:
        read(tmp_path / name)
    assert name in refused.value.where


@pytest.mark.parametrize("reader", [r for r in READERS if r != "a suite"])
def test_the_same_content_in_a_plain_file_is_read(reader: str, tmp_path: Path) -> None:
    name, content, read = READERS[reader]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)
