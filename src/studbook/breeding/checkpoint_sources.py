"""From a recipe and the files of its models to an operator's inputs, and to everything the child will consist of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from studbook.breeding.checkpoint_files import CONFIG, child_config
from studbook.breeding.checkpoint_recipe import CheckpointRecipe, View
from studbook.breeding.operators import AnyOperator, Inputs
from studbook.breeding.operators.crossover import unit_name
from studbook.errors import ParentsDoNotFit, UsageError
from studbook.files import read_file
from studbook.models.checkpoint import TOKENIZER_FILES, Checkpoint, is_weights, open_checkpoint
from studbook.models.peft import LoraView, read_peft
from studbook.models.safetensors_writer import TensorSpec
from studbook.models.vocabulary import read_vocabulary
from studbook.models.vocabulary_policy import Arrangement, arrange, arranged
from studbook.tensors.sources import TensorSource
from studbook.tensors.storage import Storage
from studbook.tensors.views import Restacked, layer_count

__all__ = ["Files", "Opened", "open_recipe"]

Files = Mapping[str, Path]
_SMALL = 64 << 20
# Carried by no child: they speak of the donor, not of what was made from it.
_NOT_CARRIED = ("README.md", "LICENSE", "LICENCE", "NOTICE", "adapter_")
_HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")


class Opened(NamedTuple):
    """A recipe whose models are open.

    Attributes:
        operator: What is done.
        inputs: Base and parents as the operator reads them.
        specs: The child's tensors, with the storage they are written in.
        carried: Tensors of the config's donor that are no weights (positions, masks), copied as they are.
        files: Every other file of the child: relative path -> bytes.
        vocabulary: How rows were arranged, where vocabularies differ or are padded.
    """

    operator: AnyOperator
    inputs: Inputs
    specs: tuple[TensorSpec, ...]
    carried: Mapping[str, Checkpoint]
    files: Mapping[str, bytes]
    vocabulary: Arrangement | None


def open_recipe(recipe: CheckpointRecipe, stored: Mapping[str, Files], *, mapped: bool = False) -> Opened:
    """Open every model and adapter a recipe names.

    Args:
        recipe: What is to be done.
        stored: Digest of a checkpoint or adapter -> its files by relative path, wherever they lie.
        mapped: See `open_checkpoint`.

    Raises:
        BytesLie: if a file breaks a rule of its format.
        ParentsDoNotFit: if the models do not fit each other or the operator.
        OutsideAllowlist: if a parameter is out of its range.
    """
    room = _Room(stored, mapped)
    donor = room.model(recipe.config_from)
    arrangement = room.arrange(recipe)
    views = [room.view(view) for view in (recipe.base, *recipe.parents)]
    operator = recipe.decoded()
    if operator.storage is not None:
        raise ParentsDoNotFit(
            f"stores a model as {operator.storage}, which is a storage of SLM1 containers",
            where=operator.tag(),
            advice="Say how a checkpoint is to be stored with `dtype`: f32, f16 or bf16.",
            reason="parents.storage",
        )
    inputs = Inputs(base=views[0], parents=tuple(views[1:]))
    operator.check(inputs)
    reference = operator.reference(inputs)
    _check_head(donor, reference)
    specs = tuple(TensorSpec(n, _storage(recipe, donor, views, n), reference.dims(n)) for n in reference.names)
    return Opened(
        operator=operator,
        inputs=inputs,
        specs=specs,
        carried=dict.fromkeys(donor.others, donor),
        files=_files(recipe, room, donor, reference, arrangement),
        vocabulary=arrangement,
    )


class _Room:
    """The models that are open, each once, with one vocabulary."""

    def __init__(self, stored: Mapping[str, Files], mapped: bool) -> None:
        self._stored, self._mapped = stored, mapped
        self._models: dict[str, Checkpoint] = {}
        self._arranged: dict[str, TensorSource] = {}

    def files(self, digest: str) -> Files:
        """Where the files of a checkpoint or adapter lie."""
        if digest not in self._stored:
            raise UsageError(f"the files of {digest[:12]}... were not given", reason="recipe.files")
        return self._stored[digest]

    def model(self, digest: str) -> Checkpoint:
        """A checkpoint as it is."""
        if digest not in self._models:
            self._models[digest] = open_checkpoint(self.files(digest), digest, mapped=self._mapped)
        return self._models[digest]

    def arrange(self, recipe: CheckpointRecipe) -> Arrangement | None:
        """Give every model one vocabulary; None where they have one already and no padding is asked for."""
        wanted, donor = recipe.vocabulary, recipe.tokenizer_from
        used = [m for view in (recipe.base, *recipe.parents) for m in view.models()]
        digests = [donor, *(m for m in dict.fromkeys(used) if m != donor)]
        models = [self.model(d) for d in digests]
        alike = len({(m.tokenizer_sha256, m.vocab_size) for m in models}) == 1
        if wanted.multiple_of is None and alike:
            return None
        if not all(m.vocab_size for m in models):
            raise ParentsDoNotFit(
                "tokenizers differ, or rows are to be padded, and a config states no vocab_size",
                where="vocabulary",
                advice="Write vocab_size into the config of every model, and register them again.",
                reason="vocabulary.size",
            )
        sizes = [m.vocab_size or 0 for m in models]
        base, *others = [read_vocabulary(self.files(d), size, d[:12]) for d, size in zip(digests, sizes, strict=True)]
        found = arrange(wanted.policy, base, others, wanted.multiple_of, lacking=wanted.lacking, storage="f32")
        self._arranged = dict(zip(digests, arranged(found, models, sizes), strict=True))
        return found

    def view(self, view: View) -> TensorSource:
        """An input of the operator."""
        if view.layers is None:
            return self._fused(view.model, view.adapter)
        return Restacked(tuple((self._fused(s.model, s.adapter), s.first, s.last) for s in view.layers))

    def _fused(self, model: str, adapter: str | None) -> TensorSource:
        base = self._arranged.get(model) or self.model(model)
        return base if adapter is None else LoraView(base, read_peft(self.files(adapter), adapter))


def _check_head(donor: Checkpoint, reference: TensorSource) -> None:
    """A config that promises an output projection of its own, or a tied one, must find what it promises."""
    there = any(name in reference.names for name in _HEADS)
    if there != (donor.head is not None):
        has = "has an output projection of its own" if there else "has none and uses its embedding"
        raise ParentsDoNotFit(
            f"the child {has}; the model that donates the config is made the other way",
            where="config donor",
            advice="Name a config donor whose head is tied as the child's is.",
            reason="parents.head",
        )


def _rows(recipe: CheckpointRecipe, room: _Room, donor: Checkpoint, arrangement: Arrangement | None) -> int | None:
    """Rows of the child's embedding where the config's donor states another number; None where it is right."""
    rows = arrangement.size if arrangement is not None else room.model(recipe.tokenizer_from).vocab_size
    return rows if rows and rows != donor.vocab_size else None


def _storage(recipe: CheckpointRecipe, donor: Checkpoint, views: Sequence[TensorSource], name: str) -> Storage:
    if recipe.dtype != "keep":
        return recipe.dtype
    if name in donor.names:
        return donor.storage(name)
    # A layer the donor does not have: as its first layer of the same kind, else as the first input stores it.
    unit = unit_name(name)
    twin = next((n for n in donor.names if unit != name and n.endswith(name[len(unit) :]) and unit_name(n) != n), None)
    return donor.storage(twin) if twin else views[0].storage(name)


def _files(
    recipe: CheckpointRecipe,
    room: _Room,
    donor: Checkpoint,
    reference: TensorSource,
    arrangement: Arrangement | None,
) -> dict[str, bytes]:
    carried = room.files(recipe.config_from)
    found = {
        path: read_file(file, _SMALL)
        for path, file in carried.items()
        if not (is_weights(path) or path in TOKENIZER_FILES or path.startswith(_NOT_CARRIED))
    }
    for path, file in room.files(recipe.tokenizer_from).items():
        if path in TOKENIZER_FILES:
            found[path] = read_file(file, _SMALL)
    if CONFIG not in found:
        raise ParentsDoNotFit("has no config.json", where="config donor", reason="parents.config")
    if arrangement is not None and arrangement.tokenizer_json is not None:
        found["tokenizer.json"] = arrangement.tokenizer_json
        for legacy in ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "tokenizer.model"):
            found.pop(legacy, None)
    layers = layer_count(reference.names)
    found[CONFIG] = child_config(
        found[CONFIG],
        f"{CONFIG} of the config donor",
        vocab_size=_rows(recipe, room, donor, arrangement),
        layers=layers if layers != layer_count(donor.names) else None,
        dtype=None if recipe.dtype == "keep" else recipe.dtype,
    )
    return found
