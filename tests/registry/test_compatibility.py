"""Parents are held against both tokenizers, and checkpoints against each other: the first difference is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_fixtures import CONFIG, tokenizer_json, write_llama
from studbook.models.bpe import BpeTokenizer
from studbook.models.checkpoint import list_folder, open_checkpoint
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import Tokenizer
from studbook.policy import default_policy
from studbook.records import Check, CompatibilityReport, Header, canonical, digest, read_record
from studbook.registry.checkpoint_compatibility import CheckpointParent, compare_checkpoints
from studbook.registry.compatibility import Parent, compare, tokenizer_change
from studbook.sandbox import Limits

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
POLICY = default_policy(HEADER)
T, H, E, X = b"thex"
# th, the, he, hex; "the" outranks "he", and "hex" is made of "he".
TOKENIZER = BpeTokenizer.build(
    (b"th", b"the", b"he", b"hex"),
    ((T, H, 260, 0), (260, E, 261, 1), (H, E, 262, 7), (262, X, 263, 9)),
)
PRUNED = BpeTokenizer.build((b"th", b"the"), ((T, H, 260, 0), (260, E, 261, 1)))
EXTENDED = TOKENIZER.extended(((E, X),))


def slm(tokenizer: Tokenizer) -> Slm:
    shape = SlmShape(tokenizer.vocab_size, 8, 1, 2, 1, 4, 12, 32, 10000.0, 1e-5, True)
    random = np.random.default_rng(0)
    tensors = {s.name: random.standard_normal(s.dims).astype(np.float32) for s in shape.tensors()}
    return parse_slm(write_slm(shape, tokenizer, tensors), "a model")


def parent(name: str, model: Slm, base: Slm) -> Parent:
    return Parent(name, model, Path(name), "Apache-2.0", base.sha256, True)


# -- containers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("child", "numbers"),
    [
        # kept, moved, dropped, added; "the" stays one token, "hex" is one, three, and (he)(x) outranks (e)(x).
        (PRUNED, (262, 0, 2, 0, 1 + 1, 1 + 3)),
        (EXTENDED, (264, 0, 0, 1, 1 + 1, 1 + 1)),
    ],
)
def test_a_child_with_another_vocabulary_is_held_against_both_tokenizers(
    child: BpeTokenizer, numbers: tuple[int, ...]
) -> None:
    change = tokenizer_change(slm(TOKENIZER), slm(child), ["the", "hex"])
    found = (change.kept, change.moved, change.dropped, change.added, change.base_tokens, change.parent_tokens)
    assert found == numbers
    assert (change.parent, change.text_bytes, change.failed) == (slm(child).sha256, 6, 0)
    assert f"{change.kept} tokens kept" in change.detail
    assert change.differing == (numbers[4] != numbers[5])


def test_the_report_counts_the_rows_under_both_tokenizers_and_is_a_record(tmp_path: Path) -> None:
    base, child = slm(TOKENIZER), slm(PRUNED)
    herd = [parent("same", base, base), parent("pruned", child, base)]
    rows = [("the hex", "hex"), ("é", "x")]
    limits = Limits(seconds=1, memory_bytes=1, file_bytes=1)
    report = compare(HEADER, POLICY, parent("base", base, base), herd, digest([]), rows, tmp_path, limits)
    assert not report.passed
    assert not report.pairs, "nothing is measured where parents do not fit"
    (change,) = report.tokenizers
    assert change == tokenizer_change(base, child, ["the hex", "hex", "é", "x"])
    assert change.text_bytes == len("the hexhexéx".encode())
    assert change.base_tokens < change.parent_tokens
    assert read_record(canonical(report)) == report


def test_without_rows_only_the_ids_are_told() -> None:
    change = tokenizer_change(slm(TOKENIZER), slm(EXTENDED), [])
    assert (change.added, change.text_bytes, change.base_tokens, change.parent_tokens) == (1, 0, 0, 0)


# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and one that was tuned from it."""
    folder = tmp_path_factory.mktemp("llamas")
    write_llama(folder / "base", 0)
    write_llama(folder / "tuned", 1, folder / "base")
    return folder


def checkpoint(folder: Path, licence: str | None = "Apache-2.0") -> CheckpointParent:
    files = list_folder(folder)
    return CheckpointParent(folder.name, open_checkpoint(files), files, licence)


def changed(llamas: Path, folder: Path, name: str, content: bytes) -> Path:
    path = Path(shutil.copytree(llamas / "tuned", folder / "other"))
    (path / name).write_bytes(content)
    return path


def told(llamas: Path, other: Path, licence: str | None = "Apache-2.0") -> tuple[CompatibilityReport, Check | None]:
    """The report on the base and one more, and the first check that failed."""
    report = compare_checkpoints(HEADER, POLICY, checkpoint(llamas / "base"), [checkpoint(other, licence)])
    failed = next((c for c in report.checks if not c.passed), None)
    assert report.passed == (failed is None)
    assert read_record(canonical(report)) == report
    return report, failed


def test_checkpoints_that_fit_pass_every_check(llamas: Path) -> None:
    report, failed = told(llamas, llamas / "tuned")
    assert failed is None
    assert [c.name for c in report.checks] == ["architecture", "config", "tokenizer", "layout", "licence"]
    assert (report.tokenizers, report.pairs) == ((), ())


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "architecture", "other is MistralForCausalLM, base is LlamaForC"),
        ({"num_attention_heads": 4}, "config", "other has num_attention_heads 4, base has 2"),
        ({"tie_word_embeddings": True}, "config", "other has tied head True, base has False"),
        ({"vocab_size": 48}, "tokenizer", "(48 rows)"),
    ],
)
def test_a_config_that_computes_something_else_is_named(
    llamas: Path, tmp_path: Path, change: dict[str, Any], name: str, words: str
) -> None:
    _, failed = told(llamas, changed(llamas, tmp_path, "config.json", json.dumps(CONFIG | change).encode()))
    assert failed is not None
    assert failed.name == name
    assert words in failed.detail


def test_a_constant_that_only_one_of_them_states_is_no_difference(llamas: Path, tmp_path: Path) -> None:
    path = changed(llamas, tmp_path, "config.json", json.dumps(CONFIG | {"rope_theta": 10000.0}).encode())
    assert told(llamas, path)[1] is None


def test_another_vocabulary_is_told_token_by_token(llamas: Path, tmp_path: Path) -> None:
    document = json.loads(tokenizer_json(30))
    document["model"]["vocab"] |= {"new": 30, "t1": 31, "t31": 1}
    report, failed = told(llamas, changed(llamas, tmp_path, "tokenizer.json", json.dumps(document).encode()))
    assert failed is not None
    assert failed.name == "tokenizer"
    assert "policy is base or union" in failed.detail
    (change,) = report.tokenizers
    assert (change.kept, change.moved, change.dropped, change.added) == (31, 2, 1, 1)
    assert "token 't30' (id 30 in base) is not in other" in change.detail


def test_another_chat_template_changes_no_token(llamas: Path, tmp_path: Path) -> None:
    report, failed = told(llamas, changed(llamas, tmp_path, "chat_template.jinja", b"{{ messages }}"))
    assert failed is not None
    assert failed.name == "tokenizer"
    (change,) = report.tokenizers
    assert (change.kept, change.moved, change.dropped, change.added) == (32, 0, 0, 0)
    assert change.detail == "the same tokens; another tokenizer file differs"


def test_a_vocabulary_that_cannot_be_read_is_told_as_that(llamas: Path, tmp_path: Path) -> None:
    path = changed(llamas, tmp_path, "tokenizer.model", b"opaque")
    (path / "tokenizer.json").unlink()
    (change,) = told(llamas, path)[0].tokenizers
    assert (change.kept, change.added) == (0, 0)
    assert "what changes is not known" in change.detail


def test_another_layout_is_named_by_its_first_tensor(llamas: Path, tmp_path: Path) -> None:
    _, failed = told(llamas, write_llama(tmp_path / "tall", 3, layers=3))
    assert failed is not None
    assert failed.name == "layout"
    assert failed.detail.startswith("tall: model.layers.2.")
    assert "is (16,), in base it is absent" in failed.detail


def test_a_checkpoint_without_a_licence_is_named(llamas: Path) -> None:
    _, failed = told(llamas, llamas / "tuned", licence=None)
    assert failed is not None
    assert failed.name == "licence"
    assert "register it with --licence" in failed.detail
