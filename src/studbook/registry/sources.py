"""Reading sources from disk: models, trained-source manifests, data manifests, licences, adapter-source manifests.

A *founder folder* holds one model and the manifests beside it; each file may also be registered alone. What is read
becomes a draft: a SourceManifest and the bytes that enter the store with it, licences first, then data, then models.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from studbook.adapters.reader import parse_adapter
from studbook.errors import BytesLie, ClaimRefused, ManifestRefused, UsageError
from studbook.models.manifests import (
    check_trained_source,
    convert_trained_source,
    parse_manifest,
    parse_provenance,
    parse_trained_source,
)
from studbook.models.slm import Slm, parse_slm
from studbook.records import (
    AdapterSource,
    Blob,
    DataFile,
    DataSource,
    Header,
    LicenceSource,
    ModelSource,
    Rung,
    SourceManifest,
    canonical,
    decode_json,
    digest,
    read_struct,
)
from studbook.registry.shelf import Shelf

__all__ = ["Draft", "read_source"]

_MODEL_LIMIT = 134_217_728
_TEXT_LIMIT = 1 << 20
_SLICE_LIMIT = 64 << 20


class Draft(NamedTuple):
    """A source that may be registered.

    Attributes:
        manifest: Its record.
        blobs: SHA-256 -> bytes of every file that enters the store with it.
    """

    manifest: SourceManifest
    blobs: dict[str, bytes]


def read_source(header: Header, path: Path, name: str | None = None, shelf: Shelf | None = None) -> tuple[Draft, ...]:
    """Read a founder folder, a container or a manifest.

    Args:
        header: Record header.
        path: A folder with one ``*.slm`` (or ``source.manifest``) and its manifests, or one such file.
        name: What to call the model; the file's name by default.
        shelf: Reads the files, each once; it knows afterwards which.

    Returns:
        Drafts in the order they must be registered.

    Raises:
        UsageError: if nothing there can be registered.
        StudbookError: any of its kinds, naming the file and field that is wrong.
    """
    shelf = shelf or Shelf(path)
    if path.is_dir():
        return _folder(header, shelf, path, name)
    if path.suffix == ".slm":
        return (_model(header, shelf, path, None, None, (), name),)
    if path.name.endswith("source.manifest"):
        if _is_adapter(shelf, path):
            return (_adapter(header, shelf, path),)
        return (_converted(header, shelf, path, None, (), name),)
    if path.name.endswith("licence.manifest"):
        return (_licence(header, shelf, path),)
    if path.name.endswith("data.manifest"):
        return (_data(header, shelf, path, None),)
    raise UsageError(
        "is not a model, a founder folder or a known manifest",
        where=path,
        advice="Register a .slm file, a source.manifest, data.manifest or licence.manifest, or a folder of them.",
    )


def _folder(header: Header, shelf: Shelf, path: Path, name: str | None) -> tuple[Draft, ...]:
    drafts: list[Draft] = []
    licence = data = None
    if (path / "licence.manifest").is_file():
        drafts.append(_licence(header, shelf, path / "licence.manifest"))
        licence = digest(drafts[-1].manifest)
    if (path / "data.manifest").is_file():
        drafts.append(_data(header, shelf, path / "data.manifest", licence))
        data = digest(drafts[-1].manifest)
    inherited = (data,) if data else ()
    models = sorted(path.glob("*.slm"))
    trained = path / "source.manifest"
    if len(models) == 1:
        drafts.append(
            _model(header, shelf, models[0], trained if trained.is_file() else None, licence, inherited, name)
        )
    elif not models and trained.is_file():
        if _is_adapter(shelf, trained):
            drafts.append(_adapter(header, shelf, trained))
        else:
            drafts.append(_converted(header, shelf, trained, licence, inherited, name))
    else:
        raise UsageError(f"holds {len(models)} models; one is needed", where=path, advice="Name one .slm file.")
    return tuple(drafts)


def _is_adapter(shelf: Shelf, path: Path) -> bool:
    return _settings(shelf, path).get("kind") == "adapter"


def _model(
    header: Header,
    shelf: Shelf,
    path: Path,
    trained: Path | None,
    licence: str | None,
    data: tuple[str, ...],
    name: str | None,
) -> Draft:
    content = shelf.read(path, _MODEL_LIMIT)
    model = parse_slm(content, str(path))
    files: list[bytes] = []
    sidecar = path.with_name(path.name + ".manifest")
    if sidecar.is_file():
        _check_sidecar(shelf.read(sidecar, _TEXT_LIMIT), sidecar, trained is not None)
    if trained is not None:
        files.append(shelf.read(trained, _TEXT_LIMIT))
        check_trained_source(parse_trained_source(files[0], trained), model)
    receipt = _receipt(shelf, path.parent) if files else None
    return _model_draft(header, name or path.stem, model, content, files, receipt, licence, data)


def _check_sidecar(data: bytes, path: Path, trained: bool) -> None:
    """A provenance sidecar may claim no more than what lies beside it shows.

    Raises:
        ClaimRefused: if it claims trained weights without a trained-source manifest, or assistant quality at all.
    """
    claimed = parse_provenance(data, path).claimed_rung
    reached = Rung.TRAINED if trained else Rung.SMOKE
    if claimed.height > reached.height:
        raise ClaimRefused(
            f"claims {claimed.value}; what lies beside the model shows {reached.value} at most",
            where=path,
            advice="Register the model with its source.manifest, or lower the claim in the sidecar.",
        )


def _converted(
    header: Header, shelf: Shelf, path: Path, licence: str | None, data: tuple[str, ...], name: str | None
) -> Draft:
    manifest = shelf.read(path, _TEXT_LIMIT)
    content = convert_trained_source(parse_trained_source(manifest, path))
    model = parse_slm(content, str(path))
    receipt = _receipt(shelf, path.parent)
    return _model_draft(header, name or path.parent.name, model, content, [manifest], receipt, licence, data)


def _receipt(shelf: Shelf, folder: Path) -> tuple[Path, bytes] | None:
    """The training receipt beside a model, where there is one."""
    path = folder / "training.json"
    return (path, shelf.read(path, _TEXT_LIMIT)) if path.is_file() else None


def _model_draft(
    header: Header,
    name: str,
    model: Slm,
    content: bytes,
    trained: list[bytes],
    receipt: tuple[Path, bytes] | None,
    licence: str | None,
    data: tuple[str, ...],
) -> Draft:
    source = ModelSource(
        label=model.label,
        parameters=model.shape.parameter_count,
        tokenizer_sha256=model.tokenizer_sha256,
        layout_sha256=model.layout_sha256,
        base=_base(receipt[1], model, receipt[0]) if receipt else None,
        trained_manifest=_sha(trained[0]) if trained else None,
        licence=licence,
        data=data,
        claim=Rung.STRUCTURAL,
    )
    files = [*trained, *([receipt[1]] if receipt else [])]
    return _draft(header, name, content, {_sha(f): f for f in files}, source)


def _base(receipt: bytes, model: Slm, path: Path) -> str | None:
    """The model a training receipt says it started from; the receipt must be this model's own.

    Raises:
        ManifestRefused: if the receipt speaks of another model.
    """
    fields = decode_json(receipt, path)
    if not isinstance(fields, dict) or fields.get("result_sha256") != model.sha256:
        raise ManifestRefused("result_sha256 is not the digest of the model beside it", where=path)
    start = fields.get("start_sha256")
    if start is not None and not (isinstance(start, str) and re.fullmatch("[0-9a-f]{64}", start)):
        raise ManifestRefused("start_sha256 is not a SHA-256", where=path)
    return start


def _licence(header: Header, shelf: Shelf, path: Path) -> Draft:
    settings = _settings(shelf, path)
    text = _listed(shelf, path, _need(settings, "text_path", path), _need(settings, "text_sha256", path), _TEXT_LIMIT)
    source = LicenceSource(
        spdx=_need(settings, "spdx", path),
        text_sha256=_sha(text),
        declared_in=_need(settings, "declared_in", path),
    )
    return _draft(header, source.spdx, text, {}, source)


def _data(header: Header, shelf: Shelf, path: Path, licence: str | None) -> Draft:
    settings = _settings(shelf, path)
    files: dict[str, bytes] = {}
    listed: list[DataFile] = []
    while (stem := f"file.{len(listed)}") + ".path" in settings:
        relative = settings[f"{stem}.path"]
        content = _listed(shelf, path, relative, _need(settings, f"{stem}.sha256", path), _SLICE_LIMIT)
        rows = content.count(b"\n")
        if _need(settings, f"{stem}.rows", path) != str(rows):
            raise ManifestRefused(f"{stem}.rows is not the {rows} rows of the file", where=path)
        files[_sha(content)] = content
        label = settings.get(f"{stem}.label", Path(relative).stem)
        listed.append(DataFile(label=label, sha256=_sha(content), rows=rows))
    source = DataSource(
        split=_need(settings, "split", path),
        split_rule=_need(settings, "split_rule", path),
        seed=_need(settings, "seed", path),
        rows=_whole(settings, "rows", path),
        files=tuple(listed),
        licence=licence,
    )
    return _draft(header, _need(settings, "name", path), shelf.read(path, _TEXT_LIMIT), files, source)


def _adapter(header: Header, shelf: Shelf, path: Path) -> Draft:
    settings = _settings(shelf, path)
    adapter = _listed(shelf, path, _need(settings, "path", path), _need(settings, "sha256", path), _MODEL_LIMIT)
    package = _need(settings, "package", path)
    found = parse_adapter(adapter, path.parent / settings["path"])
    stated = {
        "package": found.head.magic,
        "base_sha256": found.meta.base_sha256,
        "tokenizer_sha256": found.head.tokenizer_sha256,
    }
    for key, value in stated.items():
        if _need(settings, key, path) != value:
            raise ManifestRefused(f"{key}={settings[key]!r}; the package itself says {value}", where=path)
    source = AdapterSource(
        package=package,  # type: ignore[arg-type]
        base=_need(settings, "base_sha256", path),
        tokenizer_sha256=_need(settings, "tokenizer_sha256", path),
        adapter_sha256=_sha(adapter),
        licence=None,
    )
    name, content = _need(settings, "name", path), shelf.read(path, _TEXT_LIMIT)
    return _draft(header, name, content, {_sha(adapter): adapter}, source)


def _draft(
    header: Header,
    name: str,
    content: bytes,
    files: Mapping[str, bytes],
    source: ModelSource | AdapterSource | DataSource | LicenceSource,
) -> Draft:
    manifest = SourceManifest(
        header=header,
        name=name,
        artifact=Blob(sha256=_sha(content), size=len(content)),
        files=tuple(Blob(sha256=d, size=len(c)) for d, c in sorted(files.items())),
        source=source,
        unsupported=(),
    )
    try:
        checked = read_struct(canonical(manifest), SourceManifest, f"source {name!r}")
    except BytesLie as error:
        raise ManifestRefused(error.message, where=error.where) from error
    return Draft(checked, {_sha(content): content, **files})


def _settings(shelf: Shelf, path: Path) -> dict[str, str]:
    return parse_manifest(shelf.read(path, _TEXT_LIMIT), path)


def _listed(shelf: Shelf, manifest: Path, relative: str, sha256: str, limit: int) -> bytes:
    """A file a manifest names, below its folder or the one above, which founders share; exactly the promised bytes."""
    named = Path(relative)
    if named.is_absolute() or "\\" in relative or "\0" in relative or ".." in named.parts:
        raise ManifestRefused(f"path {relative!r} leaves the manifest's place", where=manifest)
    near, above = manifest.parent / named, manifest.parent.parent / named
    content = shelf.read(near if near.exists() or not above.exists() else above, limit)
    if _sha(content) != sha256:
        raise ManifestRefused(f"{relative} is not the file with the digest the manifest gives", where=manifest)
    return content


def _need(settings: Mapping[str, str], key: str, path: Path) -> str:
    if not settings.get(key):
        raise ManifestRefused(f"key {key} is missing or empty", where=path)
    return settings[key]


def _whole(settings: Mapping[str, Any], key: str, path: Path) -> int:
    text = _need(settings, key, path)
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ManifestRefused(f"{key}={text!r} is not a whole number", where=path)
    return int(text)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
