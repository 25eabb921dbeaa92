from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import DigestDiffers, ManifestRefused, StudbookError
from studbook.models.bpe import BpeTokenizer
from studbook.models.manifests import (
    ManifestRule,
    Provenance,
    check_trained_source,
    convert_trained_source,
    format_manifest,
    parse_manifest,
    parse_provenance,
    read_provenance,
    read_trained_source,
    trained_source_manifest,
    write_trained_source,
)
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.records.base import Rung

Tensors = dict[str, np.ndarray]
MakeShape = Callable[..., SlmShape]
MakeTensors = Callable[..., Tensors]

keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
TURNING = "\ufeff\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
texts = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=TURNING), max_size=30)


@settings(deadline=None)
@given(st.dictionaries(keys, texts, min_size=1, max_size=8))
def test_what_is_written_is_read_back_in_order(values: dict[str, str]) -> None:
    again = parse_manifest(format_manifest(values))
    assert list(again.items()) == list(values.items())


def test_a_line_splits_at_its_first_equals_sign() -> None:
    assert parse_manifest(b"a=b=c\nempty=\n") == {"a": "b=c", "empty": ""}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_written_back_unchanged(data: bytes) -> None:
    try:
        values = parse_manifest(data)
    except ManifestRefused:
        return
    assert format_manifest(values) == data


@pytest.mark.parametrize("values", [{"a=b": "c"}, {"a": "b\nc=d"}, {"": "x"}, {"a": "\ud800"}])
def test_what_could_not_be_read_back_is_not_written(values: dict[str, str]) -> None:
    with pytest.raises(ManifestRefused):
        format_manifest(values)


def test_provenance_says_what_is_claimed(tmp_path: Path) -> None:
    smoke = {"source_kind": "deterministic-smoke", "quality_claim": "runtime-execution-smoke-only"}
    trained = {"source_kind": "converted-trained", "trained_quality_claim": "not-claimed", "model": "rev"}
    accepted = {**trained, "quality_decision": "accepted-for-assistant-quality"}
    for values, rung in ((smoke, Rung.SMOKE), (trained, Rung.TRAINED), (accepted, Rung.ASSISTANT)):
        (tmp_path / "m.slm.manifest").write_bytes(Provenance(values).encode())
        again = read_provenance(tmp_path / "m.slm.manifest")
        assert again.values == values
        assert again.source_kind == values["source_kind"]
        assert again.claimed_rung is rung


@pytest.mark.parametrize(
    "line",
    ["source_kind=trained", "quality_claim=excellent", "selector_model_byte_budget=33554433", "quality_decision="],
)
def test_a_known_key_takes_known_values_only(line: str) -> None:
    text = line if line.startswith("source_kind") else f"source_kind=converted-trained\n{line}"
    with pytest.raises(ManifestRefused) as refused:
        parse_provenance(f"{text}\n".encode(), "m.slm.manifest")
    assert refused.value.reason == ManifestRule.VALUE
    assert refused.value.where == f"m.slm.manifest: field {line.split('=')[0]}"


def test_provenance_without_a_source_kind_says_nothing() -> None:
    with pytest.raises(ManifestRefused) as refused:
        parse_provenance(b"trained_quality_claim=not-claimed\n")
    assert refused.value.reason == ManifestRule.MISSING


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_source_becomes_the_container_of_its_values(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors, tied: bool
) -> None:
    shape = make_shape(tied=tied)
    tensors = make_tensors(shape)
    path = write_trained_source(tmp_path / "rev", "rev", shape, ByteTokenizer(), tensors, {"base_sha256": "0" * 64})
    source = read_trained_source(path)
    assert (source.name, source.shape, source.notes) == ("rev", shape, {"base_sha256": "0" * 64})
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    data = convert_trained_source(source)
    assert data == write_slm(shape, ByteTokenizer(), tensors)
    check_trained_source(source, parse_slm(data))


def test_a_merging_tokenizer_is_one_of_the_listed_files(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors
) -> None:
    tokenizer = BpeTokenizer.build([b"th"], [(116, 104, 260, 0)])
    shape = make_shape(vocab_size=261)
    source = read_trained_source(write_trained_source(tmp_path, "th", shape, tokenizer, make_tensors(shape)))
    assert parse_slm(convert_trained_source(source)).tokenizer.encode("th") == [256, 260, 257]


def test_the_manifest_alone_is_the_one_that_is_written(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors
) -> None:
    tensors = make_tensors(make_shape())
    alone = trained_source_manifest("m", make_shape(), ByteTokenizer(), tensors)
    assert write_trained_source(tmp_path, "m", make_shape(), ByteTokenizer(), tensors).read_bytes() == alone
    assert b"tensor.0.dims=260x16\n" in alone
    assert b"source_kind=converted-trained\n" in alone


def test_a_trained_source_is_never_written_over_another(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors
) -> None:
    write_trained_source(tmp_path, "m", make_shape(), ByteTokenizer(), make_tensors(make_shape()))
    before = (tmp_path / "source.manifest").read_bytes()
    with pytest.raises(StudbookError):
        write_trained_source(tmp_path, "n", make_shape(), ByteTokenizer(), make_tensors(make_shape(), seed=1))
    assert (tmp_path / "source.manifest").read_bytes() == before


def test_one_changed_bit_in_a_container_is_found_from_the_manifest_alone(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors
) -> None:
    tensors = make_tensors(make_shape())
    source = read_trained_source(write_trained_source(tmp_path, "m", make_shape(), ByteTokenizer(), tensors))
    for name in tensors:
        changed = tensors | {name: tensors[name].copy()}
        changed[name].view(np.uint32).reshape(-1)[-1] ^= 1
        with pytest.raises(DigestDiffers) as differs:
            check_trained_source(source, parse_slm(write_slm(make_shape(), ByteTokenizer(), changed)))
        assert name in differs.value.where


def test_a_manifest_is_bound_to_shape_tokenizer_and_f32(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors, make_model: Callable[..., Slm]
) -> None:
    tensors = make_tensors(make_shape())
    source = read_trained_source(write_trained_source(tmp_path, "m", make_shape(), ByteTokenizer(), tensors))
    with pytest.raises(ManifestRefused) as refused:
        check_trained_source(source, make_model(make_shape(max_context=33)))
    assert refused.value.reason == ManifestRule.SHAPE
    assert "shape.max_context" in refused.value.where
    with pytest.raises(ManifestRefused) as refused:
        check_trained_source(source, make_model(make_shape(), dtype="q8_0"))
    assert refused.value.reason == ManifestRule.TENSOR_DTYPE
    merged = BpeTokenizer.build([b"th"], [(116, 104, 260, 0)])
    wide = make_shape(vocab_size=261)
    first = read_trained_source(write_trained_source(tmp_path / "a", "m", wide, merged, make_tensors(wide)))
    other = BpeTokenizer.build([b"ht"], [(104, 116, 260, 0)])
    with pytest.raises(DigestDiffers) as differs:
        check_trained_source(first, parse_slm(write_slm(wide, other, make_tensors(wide))))
    assert "tokenizer" in differs.value.where


@pytest.mark.parametrize("spoil", ["missing", "shape", "dtype", "nan"])
def test_only_whole_finite_float32_models_become_a_trained_source(
    make_shape: MakeShape, make_tensors: MakeTensors, spoil: str
) -> None:
    tensors = make_tensors(make_shape())
    norm = tensors.pop("norm.weight")
    wrong = {"shape": norm[:-1], "dtype": norm.astype(np.float64), "nan": norm * np.float32(np.nan)}
    if spoil in wrong:
        tensors["norm.weight"] = wrong[spoil]
    with pytest.raises(ManifestRefused, match=r"norm\.weight"):
        trained_source_manifest("m", make_shape(), ByteTokenizer(), tensors)
