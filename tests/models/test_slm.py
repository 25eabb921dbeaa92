from __future__ import annotations

import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import BytesLie, SlmRefused, UsageError
from studbook.models.bpe import BpeTokenizer
from studbook.models.checksum import checksum64
from studbook.models.rules import SlmRule
from studbook.models.shape import SlmShape
from studbook.models.slm import MAX_FILE_BYTES, Slm, assemble_slm, parse_slm, read_slm, write_slm
from studbook.models.slm_layout import parse_header
from studbook.models.tokenizers import ByteTokenizer

Tensors = dict[str, np.ndarray]
MakeShape = Callable[..., SlmShape]
MakeTensors = Callable[..., Tensors]


def sealed(data: bytearray | bytes) -> bytes:
    sealed_data = bytearray(data)
    struct.pack_into("<Q", sealed_data, 100, checksum64(bytes(data), 100))
    return bytes(sealed_data)


@pytest.fixture(scope="module")
def published() -> tuple[SlmShape, Tensors]:
    shape = SlmShape(260, 512, 4, 8, 8, 64, 2048, 512, 10000.0, 1e-5, False)
    random = np.random.default_rng(7)
    return shape, {spec.name: random.standard_normal(spec.dims, dtype=np.float32) for spec in shape.tensors()}


@pytest.mark.parametrize(("dtype", "size"), [("q8_0", 17_160_000), ("q4_0", 10_657_728)])
def test_a_file_of_the_published_shape_has_its_published_size(
    published: tuple[SlmShape, Tensors], dtype: str, size: int
) -> None:
    shape, tensors = published
    data = write_slm(shape, ByteTokenizer(), tensors, dtype)
    assert len(data) == size
    slm = parse_slm(data)
    assert slm.size == size
    assert slm.label == dtype
    assert assemble_slm(slm.shape, slm.tokenizer, slm.tensors) == data


def test_what_is_written_in_f32_is_read_back_bit_for_bit(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    shape = make_shape(tied=False)
    tensors = make_tensors(shape) | {"norm.weight": np.array([-0.0, 1e-45, 3.4e38, *[1.0] * 13], dtype=np.float32)}
    data = write_slm(shape, ByteTokenizer(), tensors)
    slm = parse_slm(data, "m.slm")
    assert slm.shape == shape
    assert slm.sha256 == hashlib.sha256(data).hexdigest()
    assert slm.tokenizer_sha256 == ByteTokenizer().sha256
    assert slm.layout_sha256 == shape.layout_sha256()
    assert list(slm.tensors) == [spec.name for spec in shape.tensors()]
    for name, values in tensors.items():
        assert slm.dense(name).tobytes() == values.tobytes()
        assert slm.dense(name).shape == values.shape


@settings(deadline=None, max_examples=30)
@given(
    layers=st.integers(1, 3), shared=st.sampled_from([1, 2, 4]), ffn=st.integers(1, 20), tied=st.booleans(),
    seed=st.integers(0, 99), data=st.data(),
)  # fmt: skip
def test_reading_and_writing_again_gives_the_same_file(
    layers: int, shared: int, ffn: int, tied: bool, seed: int, data: st.DataObject
) -> None:
    shape = SlmShape(260, 8, layers, 4, shared, 2, ffn * 2, 16, 1e4, 1e-6, tied)
    random = np.random.default_rng(seed)
    tensors = {spec.name: random.standard_normal(spec.dims).astype(np.float32) for spec in shape.tensors()}
    dtypes = {name: data.draw(st.sampled_from(["f32", "q8_0", "q4_0"])) for name in tensors}
    file = write_slm(shape, ByteTokenizer(), tensors, dtypes)
    slm = parse_slm(file)
    assert len(file) % 64 == 0
    assert {name: str(tensor.dtype) for name, tensor in slm.tensors.items()} == dtypes
    assert slm.label == ("mixed" if len(set(dtypes.values())) > 1 else next(iter(dtypes.values())))
    assert assemble_slm(slm.shape, slm.tokenizer, slm.tensors) == file


def test_padding_written_is_zero_and_everything_is_aligned(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    shape = make_shape()
    data = write_slm(shape, ByteTokenizer(), make_tensors(shape), "q4_0")
    header = parse_header(data, "")
    assert header.length == header.tokenizer_offset == 108
    assert header.directory_offset == 192  # 108 + 28 bytes of tokenizer, rounded up to 64
    assert header.data_offset == 192 + 64 * 20
    assert data[136:192] == bytes(56)


def test_a_merging_tokenizer_travels_in_the_file(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    tokenizer = BpeTokenizer.build([b"th", b"the"], [(116, 104, 260, 0), (260, 101, 261, 1)])
    shape = make_shape(vocab_size=262)
    slm = parse_slm(write_slm(shape, tokenizer, make_tensors(shape)))
    assert slm.tokenizer.encode("the") == [256, 261, 257]
    assert slm.tokenizer_sha256 == tokenizer.sha256


def relaid(data: bytes, order: list[int], gap: int, extension: bytes) -> bytes:
    """The same model with another directory order, wider zero gaps and a longer header."""
    header = parse_header(data, "")
    entries = [bytearray(data[i : i + 64]) for i in range(header.directory_offset, header.directory_end, 64)]
    length = 108 + len(extension)
    directory = -(-(length + 28 + gap) // 64) * 64
    start = directory + 64 * len(entries) + gap
    body = b""
    for entry in entries:
        for at, size in ((32, struct.unpack_from("<Q", entry, 40)[0]), (48, 0)):
            offset = struct.unpack_from("<Q", entry, at)[0]
            if at == 48 and not offset:
                continue
            dims = struct.unpack_from("<2I", entry, 16)
            size = size or 4 * dims[0] if dims[1] else size or 4
            struct.pack_into("<Q", entry, at, start + len(body))
            body += data[offset : offset + size] + bytes(-size % 64)
    file = bytearray(data[:108]) + extension + data[108:136]
    file += bytes(directory - len(file)) + b"".join(entries[i] for i in order) + bytes(gap) + body
    struct.pack_into("<I", file, 8, length)
    struct.pack_into("<3Q", file, 64, length, 28, directory)
    struct.pack_into("<Q", file, 92, start)
    return sealed(file)


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_readers_take_any_order_zero_gaps_and_a_longer_header(
    make_shape: MakeShape, make_tensors: MakeTensors, dtype: str
) -> None:
    shape = make_shape()
    data = write_slm(shape, ByteTokenizer(), make_tensors(shape), dtype)
    other = relaid(data, list(range(shape.tensor_count))[::-1], 128, b"extension bytes")
    plain, changed = parse_slm(data), parse_slm(other)
    assert changed.sha256 != plain.sha256
    assert changed.layout_sha256 == plain.layout_sha256
    for name in plain.tensors:
        assert (changed.dense(name) == plain.dense(name)).all()


def test_extension_bytes_are_covered_by_the_checksum(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    shape = make_shape()
    data = write_slm(shape, ByteTokenizer(), make_tensors(shape))
    other = bytearray(relaid(data, list(range(shape.tensor_count)), 0, b"extension bytes"))
    other[110] ^= 1
    with pytest.raises(SlmRefused) as refused:
        parse_slm(bytes(other))
    assert refused.value.reason == SlmRule.CHECKSUM


def test_values_cannot_be_changed_through_a_model(make_shape: MakeShape, make_model: Callable[..., Slm]) -> None:
    for dtype in ("f32", "q8_0", "q4_0"):
        values = make_model(make_shape(), dtype=dtype).dense("layers.0.wq.weight")
        with pytest.raises(ValueError, match="read-only"):
            values[0, 0] = 1


def test_an_unknown_tensor_is_a_plain_error(make_shape: MakeShape, make_model: Callable[..., Slm]) -> None:
    with pytest.raises(UsageError, match=r"output\.weight"):
        make_model(make_shape()).dense("output.weight")


WRITE_REFUSALS: list[tuple[Callable[[Tensors], object], SlmRule]] = [
    (lambda t: t.pop("norm.weight"), SlmRule.TENSOR_MISSING),
    (lambda t: t.update({"output.weight": t["norm.weight"]}), SlmRule.TENSOR_UNKNOWN),
    (lambda t: t.update({"norm.weight": t["norm.weight"][:-1]}), SlmRule.TENSOR_SHAPE),
    (lambda t: t.update({"norm.weight": t["norm.weight"].reshape(1, -1)}), SlmRule.TENSOR_SHAPE),
    (lambda t: t.update({"norm.weight": t["norm.weight"] * np.float32("nan")}), SlmRule.PAYLOAD_NON_FINITE),
]


@pytest.mark.parametrize(("spoil", "rule"), WRITE_REFUSALS)
def test_only_a_whole_model_is_written(
    make_shape: MakeShape, make_tensors: MakeTensors, spoil: Callable[[Tensors], object], rule: SlmRule
) -> None:
    tensors = make_tensors(make_shape())
    spoil(tensors)
    with pytest.raises(SlmRefused) as refused:
        write_slm(make_shape(), ByteTokenizer(), tensors)
    assert refused.value.reason == rule


@pytest.mark.parametrize("dtype", ["q5_1", {"norm.weight": "f32"}, {}])
def test_a_dtype_is_one_of_three_for_every_tensor(make_shape: MakeShape, make_tensors: MakeTensors, dtype: str) -> None:
    with pytest.raises(UsageError) as refused:
        write_slm(make_shape(), ByteTokenizer(), make_tensors(make_shape()), dtype)
    assert refused.value.reason == "slm.write.dtype"


def test_values_must_be_float32(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    tensors = make_tensors(make_shape())
    tensors["norm.weight"] = tensors["norm.weight"].astype(np.float64)
    with pytest.raises(UsageError, match="float64"):
        write_slm(make_shape(), ByteTokenizer(), tensors)


def test_stored_tensors_of_another_shape_are_refused(make_shape: MakeShape, make_model: Callable[..., Slm]) -> None:
    slm = make_model(make_shape())
    with pytest.raises(SlmRefused) as refused:
        assemble_slm(replace(slm.shape, ffn_size=25), slm.tokenizer, slm.tensors)
    assert refused.value.reason == SlmRule.TENSOR_SHAPE


def test_tokenizer_and_shape_must_agree(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    shape = make_shape(vocab_size=261)
    with pytest.raises(SlmRefused) as refused:
        write_slm(shape, ByteTokenizer(), make_tensors(shape))
    assert refused.value.reason == SlmRule.VOCAB_TOKENIZER


def test_a_file_too_large_is_not_written(make_shape: MakeShape) -> None:
    shape = make_shape(layer_count=1, ffn_size=800_000)
    tensors = {spec.name: np.zeros(spec.dims, dtype=np.float32) for spec in shape.tensors()}
    with pytest.raises(SlmRefused) as refused:
        write_slm(shape, ByteTokenizer(), tensors)
    assert refused.value.reason == SlmRule.SIZE


def test_a_file_is_hashed_and_parsed_from_the_same_bytes(
    tmp_path: Path, make_shape: MakeShape, make_tensors: MakeTensors
) -> None:
    path = tmp_path / "m.slm"
    path.write_bytes(write_slm(make_shape(), ByteTokenizer(), make_tensors(make_shape())))
    slm = read_slm(path)
    before = slm.dense("norm.weight").tobytes()
    other = make_tensors(make_shape(), seed=5)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("r+b") as file:  # the same inode, written in place after it was read
        file.write(write_slm(make_shape(), ByteTokenizer(), other))
    assert slm.sha256 == digest
    assert slm.dense("norm.weight").tobytes() == before


def test_links_fifos_folders_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real.slm").write_bytes(b"SLM1")
    (tmp_path / "link.slm").symlink_to(tmp_path / "real.slm")
    os.mkfifo(tmp_path / "fifo.slm")
    (tmp_path / "folder.slm").mkdir()
    for name in ("link.slm", "fifo.slm", "folder.slm"):
        with pytest.raises(BytesLie) as refused:
            read_slm(tmp_path / name)
        assert name in refused.value.where
    with pytest.raises(UsageError):
        read_slm(tmp_path / "none.slm")


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.slm").touch()
    with pytest.raises(SlmRefused) as refused:
        read_slm(tmp_path / "empty.slm")
    assert refused.value.reason == SlmRule.SHORT
    assert "empty.slm" in str(refused.value)


def test_a_sparse_giant_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "giant.slm"
    path.touch()
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    with pytest.raises(SlmRefused) as refused:
        read_slm(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason == SlmRule.SIZE
    assert peak < 1 << 20


def test_bytes_over_the_limit_are_refused_before_the_checksum_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studbook.models.slm_layout.checksum64", lambda *_: pytest.fail("the pass began"))
    with pytest.raises(SlmRefused) as refused:
        parse_slm(bytes(MAX_FILE_BYTES + 64), "giant.slm")
    assert refused.value.reason == SlmRule.SIZE
