"""A child with other words, or other layers, goes through template, worker and checks like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studbook.breeding.operators import AnyOperator, Passthrough, TokenizerExtend, TokenizerPrune
from studbook.breeding.operators.passthrough import LayerRange
from studbook.breeding.produce import check_output, produce
from studbook.breeding.recompute import recompute
from studbook.breeding.template import draft
from studbook.lab.desk import make_header
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.policy import default_policy

HEADER = make_header("ann")
DIGEST = "0" * 64
TOKENIZER = BpeTokenizer.build((b"th", b"the", b"he"), ((116, 104, 260, 0), (260, 101, 261, 1), (104, 101, 262, 7)))


def model(folder: Path, name: str, seed: int) -> Slm:
    """A model whose tokenizer has three words."""
    shape = SlmShape(TOKENIZER.vocab_size, 8, 2, 2, 1, 4, 12, 32, 10000.0, 1e-5, False)
    rng = np.random.default_rng(seed)
    tensors = {s.name: rng.normal(size=s.dims).astype(np.float32) for s in shape.tensors()}
    data = write_slm(shape, TOKENIZER, tensors)
    (folder / name).write_bytes(data)
    return parse_slm(data)


def bred(folder: Path, operator: AnyOperator, parents: int) -> tuple[Slm, list[Slm]]:
    """A child that was declared, bred, checked and recomputed; and its parents."""
    models = [model(folder, str(seed), seed) for seed in range(parents)]
    paths = {m.sha256: folder / str(seed) for seed, m in enumerate(models)}
    template = draft(HEADER, default_policy(HEADER), DIGEST, DIGEST, None, operator, models[0], models)
    (folder / "work").mkdir()
    made = produce(HEADER, template, paths, folder / "work")
    child = read_slm(made.path)
    failed = [c for c in check_output(template, made.receipt, child) if not c.passed]
    assert not failed
    (folder / "again").mkdir()
    assert recompute(template, made.receipt, paths, folder / "again", threads=2, chunk=13) == child.sha256
    return child, models


def test_a_pruned_vocabulary_leaves_the_rows_of_the_words_that_stay(tmp_path: Path) -> None:
    child, (base,) = bred(tmp_path, TokenizerPrune.of(TOKENIZER, 1), 1)
    assert child.tokenizer.vocab_size == child.shape.vocab_size == 261
    assert child.tokenizer.encode("the", bos=False, eos=False) == [260, 101]
    for name in ("tok_embeddings.weight", "output.weight"):
        assert np.array_equal(child.dense(name), base.dense(name)[:261])


def test_a_new_word_starts_as_the_mean_of_its_parts(tmp_path: Path) -> None:
    child, (base,) = bred(tmp_path, TokenizerExtend.of([(261, 32)]), 1)
    assert child.tokenizer.encode("the ", bos=False, eos=False) == [263]
    rows = base.dense("tok_embeddings.weight")
    assert np.array_equal(child.dense("tok_embeddings.weight")[:263], rows)
    assert child.dense("tok_embeddings.weight")[263] == pytest.approx((rows[261] + rows[32]) / 2)


def test_a_taller_stack_copies_its_layers(tmp_path: Path) -> None:
    ranges = ((0, 0, 2), (1, 0, 2))
    segments = tuple(LayerRange(parent=p, first=f, last=e) for p, f, e in ranges)
    child, parents = bred(tmp_path, Passthrough(segments=segments), 2)
    assert child.shape.layer_count == 4
    for layer, (parent, source) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        wanted = parents[parent].dense(f"layers.{source}.w2.weight")
        assert np.array_equal(child.dense(f"layers.{layer}.w2.weight"), wanted)
