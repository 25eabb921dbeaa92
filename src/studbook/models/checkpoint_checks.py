"""What must hold in and between the files of a checkpoint: index, shards, types, config, tokenizer, generation config.

Names and fields of the small files: transformers (configuration, tokenizer and generation configs).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from studbook.errors import BytesLie, UsageError, printable
from studbook.files import read_file
from studbook.models.checkpoint_folder import CONFIG, FileStore
from studbook.models.safetensors import STORAGE, SafetensorsFile
from studbook.models.safetensors_layout import INDEX
from studbook.models.strict_json import read_object
from studbook.models.vocabulary import read_vocabulary

__all__ = ["CARRIED_LIMIT", "check_carried", "check_dtypes", "check_index", "check_shards", "find_homes", "read_index"]

CARRIED_LIMIT: Final = 64 << 20
"""Bytes of the largest file, weights apart, that a child can carry."""
_MEND: Final = "Correct the file where it was made and register again; nothing was registered."
_GENERATION: Final = "generation_config.json"
_TOKENIZER: Final = "tokenizer_config.json"
_OBJECTS: Final = (
    _TOKENIZER,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
    _GENERATION,
)
_TEXTS: Final = ("merges.txt", "chat_template.jinja")
_VOCABULARIES: Final = ("tokenizer.json", "vocab.json", "vocab.txt")
# More rows than ids can have: whether they fit the embedding is asked when vocabularies are brought together.
_ANY_ROWS: Final = 2**31

_INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
# Integers under these names are weights somebody packed, and not positions or masks.
_PACKED = frozenset({"weight", "qweight", "qzeros", "scales", "weight_packed", "weight_scale", "weight_format"})


def read_index(store: FileStore) -> dict[str, str]:
    """Tensor -> file name, from the index.

    Raises:
        BytesLie: if it is not an index.
    """
    place = store.files[INDEX]
    found = read_object(store.read(INDEX), place, "checkpoint.index.json").get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BytesLie("has no weight_map of names", where=place, reason="checkpoint.index.weight-map")
    return found


def check_shards(named: set[str], there: set[str], where: Path) -> None:
    """Refuse an index that names files that are not there, or leaves some unnamed.

    Raises:
        BytesLie: naming one of them.
    """
    if missing := named - there:
        raise BytesLie(f"names {min(missing)[:80]!r}, which is missing", where=where, reason="checkpoint.index.shard")
    if extra := there - named:
        advice = "Move the file away if it is not part of the model."
        message = f"does not name {min(extra)!r}, which lies beside it"
        raise BytesLie(message, where=where, advice=advice, reason="checkpoint.index.extra")


def check_index(index: Mapping[str, str], weights: Mapping[str, SafetensorsFile], where: Path) -> None:
    """Refuse an index that disagrees with the headers of the shards.

    Raises:
        BytesLie: naming a tensor.
    """
    for name, path in index.items():
        if name not in weights[path].entries:
            raise BytesLie(f"says {name[:80]!r} is in {path}; it is not", where=where, reason="checkpoint.index.tensor")
    for path, file in weights.items():
        if unnamed := sorted(name for name in file.entries if index.get(name) != path):
            message = f"does not say that {unnamed[0][:80]!r} is in {path}"
            raise BytesLie(message, where=where, reason="checkpoint.index.unnamed")


def find_homes(weights: Mapping[str, SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """Which file holds a tensor; no two may.

    Raises:
        BytesLie: naming a tensor that two files hold.
    """
    found: dict[str, SafetensorsFile] = {}
    for file in weights.values():
        for name in file.entries:
            if name in found:
                message = f"is in {found[name].path.name} too"
                raise BytesLie(message, where=f"{file.path}: {name[:80]}", reason="checkpoint.twice")
            found[name] = file
    return found


def check_dtypes(found: Mapping[str, str], config: Mapping[str, Any], homes: Mapping[str, SafetensorsFile]) -> None:
    """Refuse early what cannot be combined: packed or quantised weights, and types nobody trains in.

    Args:
        found: Tensor -> dtype as the file spells it.
        config: config.json.
        homes: Which file holds a tensor.

    Raises:
        UsageError: naming a tensor.
    """
    for name, dtype in found.items():
        packed = name.rpartition(".")[2] in _PACKED or config.get("quantization_config") is not None
        if dtype not in STORAGE and (dtype not in _INTEGERS or packed):
            raise UsageError(
                f"is stored as {dtype}; only F32, F16 and BF16 weights can be combined",
                where=f"{homes[name].path}: {name[:80]}",
                advice="Use the checkpoint it was quantised from, or convert it to one of the three.",
                reason="checkpoint.storage",
            )
    if not any(dtype in STORAGE for dtype in found.values()):
        raise UsageError("holds no weights", where=next(iter(homes.values())).path, reason="checkpoint.weights")


def check_carried(files: Mapping[str, Path]) -> None:
    """Refuse now what breeding or a loader would refuse later: the config, the tokenizer, the generation config.

    A folder without a tokenizer is fine, and so is one whose only vocabulary is a ``tokenizer.model``: it can be bred
    with models that have the same one.

    Args:
        files: Relative path -> file of a whole checkpoint.

    Raises:
        BytesLie: naming file and field that are not as transformers writes them (``checkpoint.config``,
            ``checkpoint.tokenizer``, ``checkpoint.generation``), or the rule of a vocabulary (``vocabulary.<rule>``).
        OverBudget: if a file is larger than `CARRIED_LIMIT` bytes.
    """
    place = files[CONFIG]
    _check_config(_object(place, "checkpoint.config"), place)
    for name in _OBJECTS:
        if name in files:
            found = _object(files[name], _reason(name))
            for field, wanted, fits in _wrong(name, found):
                if not fits:
                    raise _misfit(files[name], field, wanted, _reason(name))
    for name in _TEXTS:
        if name in files:
            _check_text(files[name])
    if any(name in files for name in _VOCABULARIES):
        read_vocabulary(files, _ANY_ROWS, place.parent.name)


def _check_config(config: Mapping[str, Any], place: Path) -> None:
    reason, inner = "checkpoint.config", config.get("text_config")
    names, kind = config.get("architectures"), config.get("model_type")
    if names is None and kind is None:
        message = "states neither architectures nor model_type, so nothing could load it"
        raise BytesLie(message, where=place, advice=_MEND, reason=reason)
    if names is not None and not (isinstance(names, list) and names and all(_word(n) for n in names)):
        raise _misfit(place, "architectures", "a list of names", reason)
    if kind is not None and not _word(kind):
        raise _misfit(place, "model_type", "a name", reason)
    for part, stem in ((config, ""), (inner if isinstance(inner, dict) else {}, "text_config.")):
        if (size := part.get("vocab_size")) is not None and not (_whole(size) and size > 0):
            raise _misfit(place, f"{stem}vocab_size", "a positive whole number", reason)
        if not isinstance(part.get("tie_word_embeddings"), bool | None):
            raise _misfit(place, f"{stem}tie_word_embeddings", "true or false", reason)


def _wrong(name: str, found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Field, what it has to be, and whether it is, for every field of a small file that somebody reads later."""
    if name == _GENERATION:
        fields = [f for f in found if f.endswith("_token_id")]
        return [(f, "a token id, a list of them or null", _ids(found[f])) for f in fields]
    if name == "chat_template.json":
        return [("chat_template", "a text", _word(found.get("chat_template")))]
    if name != _TOKENIZER:
        return []
    template, decoder, kind = (found.get(f) for f in ("chat_template", "added_tokens_decoder", "tokenizer_class"))
    return [
        ("chat_template", "a text, or a list of objects with name and template", template is None or _chat(template)),
        ("added_tokens_decoder", "an object: id -> object with content", decoder is None or _decoder(decoder)),
        ("tokenizer_class", "a name", kind is None or _word(kind)),
    ]


def _chat(value: object) -> bool:
    if not isinstance(value, list):
        return _word(value)
    return all(isinstance(v, dict) and _word(v.get("name")) and _word(v.get("template")) for v in value)


def _decoder(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(k.isdecimal() and isinstance(v, dict) and isinstance(v.get("content"), str) for k, v in value.items())


def _ids(value: object) -> bool:
    return value is None or _whole(value) or (isinstance(value, list) and all(_whole(v) for v in value))


def _whole(value: object) -> bool:
    return type(value) is int


def _word(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _object(place: Path, reason: str) -> dict[str, Any]:
    return read_object(read_file(place, CARRIED_LIMIT), place, reason)


def _check_text(place: Path) -> None:
    try:
        read_file(place, CARRIED_LIMIT).decode()
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        raise BytesLie(message, where=place, advice=_MEND, reason="checkpoint.tokenizer") from error


def _reason(name: str) -> str:
    return "checkpoint.generation" if name == _GENERATION else "checkpoint.tokenizer"


def _misfit(place: Path, field: str, wanted: str, reason: str) -> BytesLie:
    where = f"{place}: field {printable(field)[:80]}"
    return BytesLie(f"is not {wanted}", where=where, advice=_MEND, reason=reason)
