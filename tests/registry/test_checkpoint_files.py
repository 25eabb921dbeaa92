"""What breeding will need of a checkpoint's small files is read at registration: a typed refusal names file and field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from checkpoint_fixtures import CONFIG, tokenizer_json, write_llama
from studbook.errors import BytesLie, OverBudget, StudbookError
from studbook.models.checkpoint_checks import CARRIED_LIMIT
from studbook.records import CheckpointSource, Header, SourceManifest
from studbook.registry.checkpoints import read_checkpoint

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint to change."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    return write_llama(tmp_path_factory.mktemp("models") / "llama", 0)


def register(folder: Path, tmp_path: Path) -> SourceManifest:
    """The manifest of a folder, as registration reads it."""
    staging = tmp_path / "staging"
    staging.mkdir()
    return read_checkpoint(HEADER, folder, staging)[-1].manifest


def refusal(folder: Path, tmp_path: Path) -> StudbookError:
    with pytest.raises(StudbookError) as caught:
        register(folder, tmp_path)
    assert str(tmp_path / "staging") not in str(caught.value), "the owner knows the folder, not the copy"
    assert caught.value.advice
    return caught.value


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def config(**changes: Any) -> Mapping[str, Any]:
    return {k: v for k, v in {**CONFIG, **changes}.items() if v is not ...}


@pytest.mark.parametrize(
    ("name", "value", "field", "reason"),
    [
        ("config.json", "[]", "", "checkpoint.config"),
        ("config.json", '{"model_type": "llama", "model_type": "llama"}', "", "checkpoint.config"),
        ("config.json", config(architectures=..., model_type=...), "", "checkpoint.config"),
        ("config.json", config(architectures="LlamaForCausalLM"), "architectures", "checkpoint.config"),
        ("config.json", config(architectures=[]), "architectures", "checkpoint.config"),
        ("config.json", config(architectures=[3]), "architectures", "checkpoint.config"),
        ("config.json", config(model_type=3), "model_type", "checkpoint.config"),
        ("config.json", config(model_type=""), "model_type", "checkpoint.config"),
        ("config.json", config(vocab_size="32"), "vocab_size", "checkpoint.config"),
        ("config.json", config(vocab_size=0), "vocab_size", "checkpoint.config"),
        ("config.json", config(vocab_size=True), "vocab_size", "checkpoint.config"),
        ("config.json", config(tie_word_embeddings=1), "tie_word_embeddings", "checkpoint.config"),
        ("config.json", config(text_config={"vocab_size": -1}), "text_config.vocab_size", "checkpoint.config"),
        ("tokenizer_config.json", "{", "", "checkpoint.tokenizer"),
        ("tokenizer_config.json", {"tokenizer_class": 1}, "tokenizer_class", "checkpoint.tokenizer"),
        ("tokenizer_config.json", {"chat_template": {}}, "chat_template", "checkpoint.tokenizer"),
        ("tokenizer_config.json", {"chat_template": [{"name": "tools"}]}, "chat_template", "checkpoint.tokenizer"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder", "checkpoint.tokenizer"),
        ("special_tokens_map.json", "[]", "", "checkpoint.tokenizer"),
        ("added_tokens.json", "3", "", "checkpoint.tokenizer"),
        ("vocab.json", "not json", "", "checkpoint.tokenizer"),
        ("chat_template.json", {}, "chat_template", "checkpoint.tokenizer"),
        ("generation_config.json", '{"temperature": NaN}', "", "checkpoint.generation"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id", "checkpoint.generation"),
        ("generation_config.json", {"eos_token_id": [2, None]}, "eos_token_id", "checkpoint.generation"),
        ("tokenizer.json", "{}", "", "vocabulary.shape"),
        ("tokenizer.json", {"model": {"type": "Magic"}}, "", "vocabulary.kind"),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {"a": -1}}}, "", "vocabulary.id"),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {"a": 1, "b": 1}}}, "", "vocabulary.id"),
    ],
)
def test_a_small_file_that_could_not_be_used_later_is_refused_with_file_and_field(
    folder: Path, tmp_path: Path, name: str, value: object, field: str, reason: str
) -> None:
    write(folder, name, value)
    found = refusal(folder, tmp_path)
    assert isinstance(found, BytesLie)
    assert found.reason == reason
    assert found.where.startswith(str(folder / name))
    assert found.where.endswith(f": field {field}") or not field


@pytest.mark.parametrize("name", ["merges.txt", "chat_template.jinja"])
def test_text_that_is_not_utf8_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes(b"ab\xff")
    found = refusal(folder, tmp_path)
    assert (found.reason, found.where) == ("checkpoint.tokenizer", str(folder / name))
    assert "byte 2 is not UTF-8" in found.message


def test_a_small_file_that_no_child_could_carry_is_refused(folder: Path, tmp_path: Path) -> None:
    with (folder / "special_tokens_map.json").open("wb") as file:
        file.truncate(CARRIED_LIMIT + 1)
    found = refusal(folder, tmp_path)
    assert isinstance(found, OverBudget)
    assert found.where == str(folder / "special_tokens_map.json")


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": config(architectures=...)},
        {"config.json": config(model_type=...)},
        {"config.json": config(vocab_size=..., tie_word_embeddings=None)},
        {"generation_config.json": {"eos_token_id": [1, 2], "pad_token_id": None, "bos_token_id": -1}},
        {
            "tokenizer_config.json": {
                "chat_template": "{{ messages }}",
                "added_tokens_decoder": {"0": {"content": "t0"}},
            }
        },
        {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}]}},
        {"chat_template.jinja": "{% for m in messages %}{{ m }}{% endfor %}", "merges.txt": "#version: 0.2\na b\n"},
        {"chat_template.json": {"chat_template": "x"}, "special_tokens_map.json": {}, "added_tokens.json": {"t40": 40}},
    ],
)
def test_what_transformers_writes_is_taken(folder: Path, tmp_path: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        write(folder, name, value)
    assert isinstance(register(folder, tmp_path).source, CheckpointSource)


def test_a_folder_without_a_tokenizer_is_fine(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).unlink()
    assert isinstance(register(folder, tmp_path).source, CheckpointSource)


def test_a_tokenizer_model_alone_is_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    assert isinstance(register(folder, tmp_path).source, CheckpointSource)


def test_more_ids_than_rows_is_a_matter_of_breeding(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_bytes(tokenizer_json(40))
    assert isinstance(register(folder, tmp_path).source, CheckpointSource)
