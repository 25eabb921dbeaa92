from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook import files as file_layer
from studbook.breeding.operators import Inputs, decode_operator
from studbook.breeding.operators.run import compute, stream
from studbook.errors import BytesLie, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.models import safetensors as reader
from studbook.models import safetensors_layout, safetensors_sink, safetensors_writer
from studbook.models.digests import TensorRoot, layout_sha256, leaf_digest, model_root, tensor_root
from studbook.models.safetensors import open_safetensors
from studbook.models.safetensors_layout import TensorSpec, index_bytes, plan_shards
from studbook.models.safetensors_sink import ShardSink
from studbook.models.safetensors_writer import JOURNAL, write_shards
from studbook.tensors.sinks import Sink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import RAW, Raw, narrow

LEAF = 1 << 10
RECIPE = "5" * 64
Tensors = dict[str, Raw]


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of a few KiB, so that small tensors have several."""
    monkeypatch.setattr(safetensors_sink, "LEAF_ELEMENTS", LEAF)
    monkeypatch.setattr(safetensors_writer, "LEAF_ELEMENTS", LEAF)


def tensors_of(sizes: Mapping[str, tuple[str, int]], seed: int = 0) -> Tensors:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 1 << 14, size, dtype=np.uint16).astype(RAW[storage])
        for name, (storage, size) in sizes.items()
    }


SIZES = {"b.weight": ("bf16", 3 * LEAF + 5), "a.weight": ("bf16", 7), "c": ("f32", 2 * LEAF), "ä": ("f16", LEAF)}


def specs_of(sizes: Mapping[str, tuple[str, int]]) -> list[TensorSpec]:
    return [TensorSpec(name, storage, (size,)) for name, (storage, size) in sizes.items()]  # type: ignore[arg-type]


def feed(sink: Sink, tensors: Tensors) -> None:
    for name in sink.names:
        whole = tensors[name]
        for start in range(0, whole.size, sink.piece or whole.size):
            part = whole[start : start + (sink.piece or whole.size)]
            sink.put(name, start, part)
            sink.passed(name, start, part)


def written(folder: Path, sizes: Mapping[str, tuple[str, int]] = SIZES, shard_bytes: int = 1 << 30) -> Any:
    tensors = tensors_of(sizes)
    return write_shards(plan_shards(specs_of(sizes), shard_bytes), lambda sink: feed(sink, tensors), folder, RECIPE)


def test_what_is_written_reads_back_from_any_range(tmp_path: Path) -> None:
    (shard,) = written(tmp_path).shards
    tensors = tensors_of(SIZES)
    with open_safetensors(tmp_path / shard.name) as file:
        assert file.metadata == {"format": "pt"}
        assert file.sha256() == shard.sha256 == hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest()
        for name, whole in tensors.items():
            out = np.empty(whole.size // 2 + 1, whole.dtype)
            file.fill(name, whole.size // 3, out)
            assert np.array_equal(out, whole[whole.size // 3 :][: out.size])
            assert file.read_bytes(name) == whole.tobytes()


def test_a_file_holds_sorted_keys_fixed_metadata_and_aligned_elements(tmp_path: Path) -> None:
    written(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    text = data[8 : 8 + length].decode()
    header = json.loads(text)
    assert (8 + length) % 64 == 0
    assert header.pop("__metadata__") == {"format": "pt"}
    assert list(header) == ["a.weight", "b.weight", "c", "ä"]
    assert text.rstrip(" ") == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    item = {"F32": 4, "BF16": 2, "F16": 2}
    assert all((8 + length + e["data_offsets"][0]) % item[e["dtype"]] == 0 for e in header.values())


@given(
    sizes=st.dictionaries(st.text("abc_é", min_size=1, max_size=4), st.integers(1, 40), min_size=1, max_size=12),
    limit=st.integers(1, 200),
    order=st.randoms(),
)
def test_shards_follow_the_names_and_stay_below_the_limit(sizes: dict[str, int], limit: int, order: Any) -> None:
    specs = [TensorSpec(name, "bf16", (size,)) for name, size in sizes.items()]
    shards = plan_shards(specs, limit)
    order.shuffle(specs)
    assert plan_shards(specs, limit) == shards
    names = [p.name for s in shards for p in s.placed]
    assert names == sorted(sizes, key=str.encode)
    for shard, after in zip(shards, [*shards[1:], None], strict=True):
        data = shard.size - len(shard.header)
        assert data <= limit or len(shard.placed) == 1
        assert after is None or data + 2 * sizes[after.placed[0].name] > limit


def test_shards_and_their_index_are_named_as_on_the_hub() -> None:
    specs = specs_of({"b": ("bf16", 4), "a": ("f32", 3), "c": ("bf16", 8)})
    shards = plan_shards(specs, 20)
    assert [s.name for s in shards] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert [s.name for s in plan_shards(specs, 100)] == ["model.safetensors"]
    index = json.loads(index_bytes(shards))
    assert index == {
        "metadata": {"total_size": 36},
        "weight_map": {"a": shards[0].name, "b": shards[0].name, "c": shards[1].name},
    }
    assert index_bytes(shards).startswith(b'{\n  "metadata": {\n    "total_size": 36\n  },\n')


@pytest.mark.parametrize(
    ("specs", "limit"),
    [
        ([], 10),
        ([TensorSpec("a", "f32", (1,))], 0),
        ([TensorSpec("a", "f32", (0,))], 10),
        ([TensorSpec("__metadata__", "f32", (1,))], 10),
        ([TensorSpec("a", "f32", (1,)), TensorSpec("a", "f32", (1,))], 10),
    ],
)
def test_a_plan_that_could_not_be_read_back_is_refused(specs: list[TensorSpec], limit: int) -> None:
    with pytest.raises(UsageError):
        plan_shards(specs, limit)


def test_names_the_reader_refuses_are_not_written() -> None:
    with pytest.raises(BytesLie):
        plan_shards([TensorSpec("../a", "f32", (1,))], 10)


def test_a_header_beyond_the_cap_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_layout, "HEADER_CAP", 100)
    with pytest.raises(UsageError):
        plan_shards(specs_of(SIZES), 1 << 30)


def by_the_letter(sizes: Mapping[str, tuple[str, int]], tensors: Tensors) -> str:
    """The model root from the definition, with nothing shared with the writer."""

    def text(t: str) -> bytes:
        return len(t.encode()).to_bytes(8, "little") + t.encode()

    whole = b"studbook/model/1\0" + len(sizes).to_bytes(8, "little")
    for name in sorted(sizes, key=lambda n: n.encode()):
        storage, size = sizes[name]
        data = tensors[name].tobytes()
        step = LEAF * tensors[name].itemsize
        leaves = [hashlib.sha256(b"studbook/leaf/1\0" + data[i : i + step]).digest() for i in range(0, len(data), step)]
        root = hashlib.sha256(b"studbook/tensor/1\0" + len(data).to_bytes(8, "little") + b"".join(leaves)).digest()
        whole += text(name) + text(storage) + (1).to_bytes(8, "little") + size.to_bytes(8, "little") + root
    return hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("shard_bytes", [1, 5000, 1 << 30])
def test_the_model_root_is_as_defined_and_does_not_depend_on_shards(tmp_path: Path, shard_bytes: int) -> None:
    assert written(tmp_path, shard_bytes=shard_bytes).root == by_the_letter(SIZES, tensors_of(SIZES))


def test_roots_differ_where_name_storage_shape_or_bytes_do() -> None:
    leaf = leaf_digest(b"abcd")
    root = tensor_root(4, [leaf])
    one = TensorRoot("n", "bf16", (2,), root)
    others = [
        one._replace(name="m"), one._replace(storage="f16"), one._replace(dims=(2, 1)),
        one._replace(root=tensor_root(5, [leaf])), one._replace(root=tensor_root(4, [leaf, leaf])),
    ]  # fmt: skip
    assert len({model_root([o]) for o in [one, *others]}) == 6
    assert model_root([one, others[0]]) == model_root([others[0], one]) != model_root([one])
    assert layout_sha256({"a": (1,), "b": (2, 3)}) == layout_sha256({"b": (2, 3), "a": (1,)})
    assert layout_sha256({"a": (1, 2), "b": (3,)}) != layout_sha256({"a": (1,), "b": (2, 3)})


def test_pieces_may_come_from_any_thread_in_any_order(tmp_path: Path) -> None:
    sizes = {"w": ("bf16", 20 * LEAF + 1)}
    whole = tensors_of(sizes)["w"]
    (shard,) = plan_shards(specs_of(sizes), 1 << 30)
    with ShardSink(shard, tmp_path) as sink:
        starts = list(range(0, whole.size, LEAF))[::-1]
        threads = [
            threading.Thread(
                target=lambda part: [sink.put("w", s, whole[s : s + LEAF]) for s in part], args=(starts[i::3],)
            )
            for i in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for start in sorted(starts):
            sink.passed("w", start, whole[start : start + LEAF])
        digest = sink.finish()
    assert digest == written(tmp_path / "other", sizes).shards[0]
    assert (tmp_path / shard.name).read_bytes() == (tmp_path / "other" / shard.name).read_bytes()


def test_a_piece_that_is_no_leaf_or_out_of_order_is_refused(tmp_path: Path) -> None:
    (shard,) = plan_shards(specs_of(SIZES), 1 << 30)
    tensors = tensors_of(SIZES)
    whole = tensors["b.weight"]
    with ShardSink(shard, tmp_path) as sink:
        for start, part in (
            (1, whole[:LEAF]),
            (0, whole[: LEAF - 1]),
            (0, whole[:LEAF].view(np.int16)),
            (-LEAF, whole[:LEAF]),
        ):
            with pytest.raises(UsageError):
                sink.put("b.weight", start, part)
        with pytest.raises(OutOfOrder):
            sink.passed("b.weight", 0, whole[:LEAF])
        first = sink.names[0]
        with pytest.raises(OutOfOrder):
            sink.passed(first, LEAF, tensors[first][LEAF : 2 * LEAF])
        with pytest.raises(OutOfOrder):
            sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_without_digests_the_bytes_are_the_same(tmp_path: Path) -> None:
    (shard,) = plan_shards(specs_of(SIZES), 1 << 30)
    with ShardSink(shard, tmp_path, digests=False) as sink:
        feed(sink, tensors_of(SIZES))
        digest = sink.finish()
    assert (digest.sha256, digest.roots) == ("", {})
    assert hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest() == written(tmp_path / "o").shards[0].sha256


@pytest.mark.parametrize("room", [0, 100, 1 << 20])
def test_a_slot_is_written_in_place_whatever_its_length_was(tmp_path: Path, room: int) -> None:
    (shard,) = plan_shards(specs_of(SIZES), 1 << 30)
    slot = tmp_path / "slot"
    slot.write_bytes(b"\xff" * room)
    inode = slot.stat().st_ino
    with ShardSink(shard, tmp_path, slot=slot) as sink:
        feed(sink, tensors_of(SIZES))
        digest = sink.finish()
    assert slot.stat().st_ino == inode
    assert hashlib.sha256(slot.read_bytes()).hexdigest() == digest.sha256 == written(tmp_path / "o").shards[0].sha256
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["slot"]


def test_a_slot_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "slot").symlink_to(tmp_path / "precious")
    with pytest.raises(StudbookError):
        ShardSink(plan_shards(specs_of(SIZES), 1 << 30)[0], tmp_path, slot=tmp_path / "slot")
    assert (tmp_path / "precious").read_bytes() == b"kept"


class Positions:
    """Tensors that are no weights."""

    def dtype(self, name: str) -> str:
        return {"ids": "I64", "z.mask": "BOOL"}[name]

    def dims(self, name: str) -> tuple[int, ...]:
        return {"ids": (1, 3 * LEAF + 1), "z.mask": (5,)}[name]

    def whole(self, name: str) -> bytes:
        return np.arange(3 * LEAF + 1, dtype=np.int64).tobytes() if name == "ids" else b"\1\0\1\1\0"

    def read_bytes(self, name: str, start: int, stop: int) -> bytes:
        return self.whole(name)[start:stop]


def test_tensors_that_are_no_weights_are_carried_as_they_are(tmp_path: Path) -> None:
    carrier = Positions()
    shards = plan_shards(specs_of(SIZES), 9000, {"ids": carrier, "z.mask": carrier})
    tensors = tensors_of(SIZES)
    done = write_shards(shards, lambda sink: feed(sink, tensors), tmp_path, RECIPE)
    seen = {}
    for shard in done.shards:
        assert hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest() == shard.sha256
        with open_safetensors(tmp_path / shard.name) as file:
            seen |= {name: file.read_bytes(name) for name in file.entries}
    assert seen == {n: t.tobytes() for n, t in tensors.items()} | {n: carrier.whole(n) for n in ("ids", "z.mask")}
    again = write_shards(shards, lambda sink: pytest.fail(f"{sink.names} again"), tmp_path, RECIPE)
    assert again == done._replace(resumed=len(shards))


def test_fill_refuses_other_types_and_ranges(tmp_path: Path) -> None:
    written(tmp_path)
    with open_safetensors(tmp_path / "model.safetensors") as file:
        for out, start in (
            (np.empty(4, np.int16), 0),
            (np.empty(8, np.uint16), 0),
            (np.empty(4, np.uint16), 4),
            (np.empty(4, np.uint16), -1),
            (np.empty(8, np.uint16)[::2], 0),
        ):
            with pytest.raises(UsageError):
                file.fill("a.weight", start, out)
        with pytest.raises(UsageError):
            file.fill("nobody", 0, np.empty(1, np.uint16))
        with pytest.raises(UsageError):
            file.read_bytes("a.weight", 0, 15)
    with pytest.raises(UsageError):
        file.fill("a.weight", 0, np.empty(1, np.uint16))


def test_integers_are_bytes_and_no_weights(tmp_path: Path) -> None:
    carrier = Positions()
    write_shards(plan_shards([], 1 << 30, {"ids": carrier}), lambda _: None, tmp_path, RECIPE)
    with open_safetensors(tmp_path / "model.safetensors") as file:
        assert file.read_bytes("ids", 8, 16) == (1).to_bytes(8, "little")
        with pytest.raises(UsageError) as caught:
            file.storage("ids")
    assert caught.value.reason == "safetensors.storage"
    assert "I64" in caught.value.message


def test_a_file_that_is_cut_while_it_is_open_is_a_typed_error(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    path.chmod(0o644)
    with open_safetensors(path) as file:
        os.truncate(path, file.size - 10)
        last = list(file.entries)[-1]
        with pytest.raises(BytesLie) as caught:
            file.read_bytes(last)
        assert caught.value.reason == "safetensors.short-read"
        assert last in caught.value.where
        with pytest.raises(BytesLie):
            file.sha256()


def test_what_was_opened_is_what_is_read_though_the_name_is_another_file_now(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    before = path.read_bytes()
    with open_safetensors(path) as file:
        (tmp_path / "new").write_bytes(b"x")
        (tmp_path / "new").rename(path)
        assert file.sha256() == hashlib.sha256(before).hexdigest()


def test_a_failing_disk_is_a_typed_error_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    written(tmp_path)
    with open_safetensors(tmp_path / "model.safetensors") as file:
        monkeypatch.setattr(reader.os, "preadv", broken)
        with pytest.raises(StudbookError) as caught:
            file.read_bytes("c")
    assert caught.value.reason == "file.disk"
    assert "model.safetensors: c" in caught.value.where


def test_many_short_reads_make_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    real = os.preadv
    monkeypatch.setattr(reader.os, "preadv", lambda fd, buffers, at: real(fd, [buffers[0][:100]], at))
    with open_safetensors(tmp_path / "model.safetensors") as file:
        assert file.read_bytes("b.weight") == tensors_of(SIZES)["b.weight"].tobytes()


def test_many_short_writes_make_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = written(tmp_path / "o").shards[0].sha256
    real = os.pwrite
    monkeypatch.setattr(safetensors_sink.os, "pwrite", lambda fd, data, at: real(fd, data[:100], at))
    written(tmp_path)
    assert hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest() == expected


@pytest.mark.parametrize("call", ["pwrite", "fsync", "posix_fallocate"])
def test_a_full_disk_is_a_typed_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    (shard,) = plan_shards(specs_of(SIZES), 1 << 30)
    monkeypatch.setattr(safetensors_sink.os, call, full)
    with pytest.raises(OverBudget) as caught, ShardSink(shard, tmp_path) as sink:
        feed(sink, tensors_of(SIZES))
        sink.finish()
    assert caught.value.reason == "disk.full"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_reserve_room_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    expected = written(tmp_path / "o").shards[0]
    monkeypatch.setattr(safetensors_sink.os, "posix_fallocate", cannot)
    assert written(tmp_path).shards[0] == expected


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from studbook.errors import OverBudget
from studbook.models.safetensors_writer import TensorSpec, plan_shards, write_shards
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
called = []
try:
    write_shards(plan_shards([TensorSpec("a", "f32", (50_000,))], 1 << 30), called.append, Path(sys.argv[1]), "5" * 64)
except OverBudget as error:
    print(error.reason, len(called))
"""


def test_a_limit_on_file_sizes_is_met_before_anything_is_computed(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["disk.full", "0"]
    assert [p.name for p in tmp_path.iterdir()] == [JOURNAL]


def counting(tensors: Tensors, seen: list[str]) -> Callable[[Sink], None]:
    def compute(sink: Sink) -> None:
        seen.extend(sink.names)
        feed(sink, tensors)

    return compute


def test_finished_shards_are_skipped_and_damaged_ones_made_again(tmp_path: Path) -> None:
    tensors, seen = tensors_of(SIZES), list[str]()
    shards = plan_shards(specs_of(SIZES), 5000)
    first = write_shards(shards, counting(tensors, seen), tmp_path, RECIPE)
    assert sorted(seen) == sorted(SIZES)
    seen.clear()
    assert write_shards(shards, counting(tensors, seen), tmp_path, RECIPE) == first._replace(resumed=len(shards))
    assert seen == []
    damaged = tmp_path / shards[0].name
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert write_shards(shards, counting(tensors, seen), tmp_path, RECIPE).shards == first.shards
    assert seen == [p.name for p in shards[0].placed]


def test_a_header_that_was_changed_is_noticed(tmp_path: Path) -> None:
    first = written(tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes().replace(b'"pt"', b'"tf"')
    path.chmod(0o644)
    path.write_bytes(data)
    again = written(tmp_path)
    assert again.resumed == 0
    assert again.shards == first.shards


def test_another_recipe_or_plan_starts_anew(tmp_path: Path) -> None:
    tensors, seen = tensors_of(SIZES), list[str]()
    write_shards(plan_shards(specs_of(SIZES), 5000), counting(tensors, seen), tmp_path, RECIPE)
    for shard_bytes, recipe in ((5000, "6" * 64), (1 << 30, "6" * 64)):
        seen.clear()
        plan = plan_shards(specs_of(SIZES), shard_bytes)
        assert write_shards(plan, counting(tensors, seen), tmp_path, recipe).resumed == 0
        assert sorted(seen) == sorted(SIZES)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([JOURNAL, *(s.name for s in plan)])


@pytest.mark.parametrize(
    "tail",
    [
        b"{",
        b'{"name":"model-00001',
        b"\n",
        b"[]\n",
        b'{"name":[1],"sha256":1,"size":{}}\n',
        b"\xff\xff\n",
        b"[" * 5000 + b"\n",
    ],
)
def test_a_journal_with_a_broken_tail_is_read_up_to_it(tmp_path: Path, tail: bytes) -> None:
    shards = plan_shards(specs_of(SIZES), 5000)
    tensors = tensors_of(SIZES)
    first = write_shards(shards, lambda sink: feed(sink, tensors), tmp_path, RECIPE)
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(tail)
    again = write_shards(shards, lambda sink: feed(sink, tensors), tmp_path, RECIPE)
    assert again == first._replace(resumed=len(shards))


def test_a_journal_that_lies_is_not_believed(tmp_path: Path) -> None:
    first = written(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(first.shards[0].sha256.encode(), b"0" * 64))
    again = written(tmp_path)
    assert again == first


def test_weights_nobody_wrote_down_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(UsageError) as caught:
        written(tmp_path)
    assert caught.value.reason == "safetensors.folder"
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_what_goes_wrong_while_computing_keeps_finished_shards_and_nothing_else(tmp_path: Path) -> None:
    shards = plan_shards(specs_of(SIZES), 5000)
    tensors, seen = tensors_of(SIZES), list[str]()

    def stumbling(sink: Sink) -> None:
        seen.extend(sink.names)
        feed(sink, {n: tensors[n] for n in sink.names if len(seen) < 3})

    with pytest.raises(KeyError):
        write_shards(shards, stumbling, tmp_path, RECIPE)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert JOURNAL in left
    assert not [name for name in left if name.endswith(".partial")]
    done = write_shards(shards, lambda sink: feed(sink, tensors), tmp_path, RECIPE)
    assert 0 < done.resumed < len(shards)
    assert done.root == by_the_letter(SIZES, tensors)


class Stop(BaseException):
    """A crash."""


def test_a_crash_at_any_step_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = written(tmp_path / "whole", shard_bytes=5000)
    steps = 0

    def counted(_: str) -> None:
        nonlocal steps
        steps += 1

    monkeypatch.setattr(file_layer, "boundary", counted)
    monkeypatch.setattr(safetensors_sink, "boundary", counted)
    written(tmp_path / "count", shard_bytes=5000)
    assert steps > 15
    for stop in range(1, steps + 1):
        left = [stop]

        def crash(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Stop

        folder = tmp_path / f"crash-{stop}"
        monkeypatch.setattr(file_layer, "boundary", crash)
        monkeypatch.setattr(safetensors_sink, "boundary", crash)
        with pytest.raises(Stop):
            written(folder, shard_bytes=5000)
        again = written(folder, shard_bytes=5000)
        assert (again.shards, again.root) == (expected.shards, expected.root)
        assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from studbook.models.safetensors_writer import TensorSpec, plan_shards, write_shards
specs = [TensorSpec(f"t{i:02d}", "f32", (30_000,)) for i in range(24)]
def compute(sink):
    for name in sink.names:
        whole = np.full(30_000, int(name[1:]), np.float32)
        sink.put(name, 0, whole)
        print(name, flush=True)
        sink.passed(name, 0, whole)
done = write_shards(plan_shards(specs, 480_000), compute, Path(sys.argv[1]), "5" * 64)
print("root", done.root, done.resumed, *(s.sha256 for s in done.shards), flush=True)
"""


def test_a_run_killed_at_random_moments_ends_with_the_same_digests(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    whole = subprocess.run([*command, tmp_path / "whole"], capture_output=True, text=True, check=True).stdout
    expected = whole.splitlines()[-1].split()
    random = np.random.default_rng(7)
    folder = tmp_path / "killed"
    resumed = 0
    for wait in random.integers(2, 12, 3):
        with subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(wait):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    last = (
        subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    )
    resumed = int(last[2])
    assert resumed > 0
    assert [last[1], *last[3:]] == [expected[1], *expected[3:]]
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def test_the_descriptor_is_closed_with_the_object(tmp_path: Path) -> None:
    written(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    opened = [open_safetensors(tmp_path / "model.safetensors") for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 5
    del opened
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_too_many_open_files_is_no_lie_of_the_file(tmp_path: Path) -> None:
    written(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(tmp_path, os.O_RDONLY)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1, hard))
        with pytest.raises(StudbookError) as caught:
            open_safetensors(tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken)
    assert not isinstance(caught.value, BytesLie)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.dictionaries(
        st.text("xyz_", min_size=1, max_size=3),
        st.tuples(st.sampled_from(["f32", "f16", "bf16"]), st.integers(1, 3 * LEAF)),
        min_size=1,
        max_size=6,
    ),
    limit=st.integers(1, 20_000),
)
def test_any_plan_writes_what_it_promised(
    sizes: dict[str, tuple[str, int]], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    done = written(folder, sizes, limit)
    tensors = tensors_of(sizes)
    found = {}
    for planned, shard in zip(plan_shards(specs_of(sizes), limit), done.shards, strict=True):
        with open_safetensors(folder / shard.name) as file:
            assert file.size == planned.size == shard.size
            found |= {name: file.read_bytes(name) for name in file.entries}
    assert found == {name: whole.tobytes() for name, whole in tensors.items()}
    assert done.root == by_the_letter(sizes, tensors)


@pytest.mark.parametrize(("threads", "chunk", "shard_bytes"), [(1, 1 << 18, 1 << 30), (3, 700, 1 << 30), (2, 1, 5000)])
def test_an_operator_streams_between_files_to_one_root(
    tmp_path: Path, threads: int, chunk: int, shard_bytes: int
) -> None:
    shapes = {"a": (3, LEAF), "b": (LEAF + 3,), "c": (2, 5)}
    sources = [
        ArraySource(str(i) * 64, {n: np.random.default_rng(i).standard_normal(s) for n, s in shapes.items()})
        for i in range(3)
    ]
    inputs = Inputs(base=sources[0], parents=tuple(sources[1:]))
    operator = decode_operator({"operator": "task-delta/1", "scales": [0.5, 0.25], "skip": []})
    plan = plan_shards([TensorSpec(n, "bf16", s) for n, s in shapes.items()], shard_bytes)
    done = write_shards(
        plan, lambda sink: stream(operator, inputs, sink, threads=threads, chunk=chunk), tmp_path, RECIPE
    )
    expected = {n: narrow(values.reshape(-1), "bf16") for n, values in compute(operator, inputs).items()}
    for shard in done.shards:
        with open_safetensors(tmp_path / shard.name) as file:
            assert all(file.read_bytes(n) == expected[n].tobytes() for n in file.entries)
    sizes = {n: ("bf16", whole.size) for n, whole in expected.items()}
    roots = {r for shard in done.shards for r in shard.roots.values()}
    assert {r.name: r.dims for r in roots} == shapes
    flat = [r._replace(dims=(sizes[r.name][1],)) for r in roots]
    assert model_root(flat) == by_the_letter(sizes, expected)


@pytest.mark.train
def test_the_format_s_own_library_reads_ours_and_we_read_theirs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    sizes = {"odd": ("bf16", 7), "wide": ("f32", 9), "half": ("f16", 11)}
    tensors = tensors_of(sizes)
    written(tmp_path, sizes)
    theirs = library.load_file(tmp_path / "model.safetensors")
    types = {"odd": torch.bfloat16, "wide": torch.float32, "half": torch.float16}
    assert {name: t.dtype for name, t in theirs.items()} == types
    for name, tensor in theirs.items():
        bits = tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16).numpy()
        assert bits.tobytes() == tensors[name].tobytes()
    library.save_file(theirs, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    with open_safetensors(tmp_path / "theirs.safetensors") as file:
        assert {name: file.read_bytes(name) for name in file.entries} == {n: t.tobytes() for n, t in tensors.items()}
