"""How many bytes a model takes in the engine, to the byte and before any is taken.

Everything a module needs for its whole life is taken while it is staged, in one order: the file and what is decoded of
it, packages on top, the room of a logit digest, its sessions, once the largest text it may encode or decode, and once a
step of all its sessions side by side.
`measure` follows that order on a `Heap`; what it says is what `Engine.memory_bytes` says afterwards. Sizes are those of
``models/engine/source``; a changed engine changes them, and the tests compare over many shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from studbook.adapters.reader import Adapter
from studbook.errors import UsageError
from studbook.models.bpe import BpeTokenizer
from studbook.models.engine import MOST_LINES
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm
from studbook.models.stored import Dtype
from studbook.models.tokenizers import MAX_DECODED_BYTES
from studbook.runtime.heap import Heap, block_bytes

__all__ = ["Change", "Model", "Sizes", "Use", "change_of", "kv_bytes", "measure", "model_of"]

_BLOCK = 32  # tokens that go through the layers together
_MODEL, _TOKENIZER, _TENSOR, _ADAPTER, _FUSED = 216, 28, 104, 176, 40
_DIGEST = 32
_CHOICES = 1024 * 24  # what the sampler sorts
_LINE = 40  # of a step, each
_STACK = 1 << 18  # of the engine's own code, of which a few pages are ever written


class Use(NamedTuple):
    """What a module may be asked to do; nothing beyond it is served, so nothing beyond it is taken.

    Attributes:
        positions: Most tokens of one session, 1 to the model's context.
        sessions: Sessions open at a time, 1..64.
        text_bytes: Longest text that is encoded, in UTF-8.
        smoke: Positions of the logit digest it is smoked with.
    """

    positions: int
    sessions: int
    text_bytes: int
    smoke: int


class Model(NamedTuple):
    """What of a file decides about memory.

    Attributes:
        shape: Dimensions.
        file_bytes: Length of the file.
        quantised: Elements of every tensor that has to be decoded, in canonical order.
        words: Words of the tokenizer beyond the 260 that all have; None for a byte tokenizer.
        merges: Its merges.
        merges_in_order: Whether ranks, and whether pairs, ascend in the file: no room to sort them is taken then.
    """

    shape: SlmShape
    file_bytes: int
    quantised: tuple[int, ...]
    words: int | None
    merges: int
    merges_in_order: tuple[bool, bool]


class Change(NamedTuple):
    """What of a package decides about memory.

    Attributes:
        file_bytes: Length of the file.
        places: Which tensors it changes, as places in canonical order, ascending.
        sorted_names: Whether the name hashes of its entries ascend.
    """

    file_bytes: int
    places: tuple[int, ...]
    sorted_names: bool


@dataclass(frozen=True)
class Sizes:
    """Bytes of one module; the classes add up to the memory it holds.

    Attributes:
        file: Of the artifact.
        decoded: Of the tensors decoded to f32; 0 where all are f32 in the file.
        stack: Of the tensors that packages changed.
        weights: Engine, file, decoded and changed tensors, and their tables.
        kv: Keys and values of all its sessions.
        scratch: Room to work in, passing blocks, rounding to pages.
        unwritten: Of all that, estimated: the engine's stack, and room for texts that none ever fills.
    """

    file: int
    decoded: int
    stack: int
    weights: int
    kv: int
    scratch: int
    unwritten: int

    @property
    def resident(self) -> int:
        """Bytes that the system has to find for it, estimated: pages that are never written cost nothing."""
        return self.total - self.unwritten

    @property
    def total(self) -> int:
        """Bytes of memory held: whole pages, equal to `Engine.memory_bytes` once staged."""
        return self.weights + self.kv + self.scratch


def model_of(slm: Slm) -> Model:
    """What of a checked file decides about memory."""
    words, merges, order = None, 0, (True, True)
    if isinstance(slm.tokenizer, BpeTokenizer):
        found = slm.tokenizer.merges
        ranks, pairs = [m.rank for m in found], [(m.left, m.right) for m in found]
        words, merges, order = len(slm.tokenizer.words), len(found), (ranks == sorted(ranks), pairs == sorted(pairs))
    quantised = [spec.elements for spec in slm.shape.tensors() if slm.tensors[spec.name].dtype is not Dtype.F32]
    return Model(slm.shape, slm.size, tuple(quantised), words, merges, order)


def change_of(adapter: Adapter, shape: SlmShape) -> Change:
    """What of a checked package decides about memory."""
    places = {spec.name_hash: place for place, spec in enumerate(shape.tensors())}
    hashes = [name for name, _ in adapter.changes]
    return Change(adapter.size, tuple(places[name] for name in hashes), hashes == sorted(hashes))


def kv_bytes(shape: SlmShape, positions: int) -> int:
    """Bytes of the keys and values of a session: heads padded to whole vectors of four, f32."""
    return shape.layer_count * 2 * shape.kv_head_count * _padded(shape.head_dim) * 4 * positions


def measure(model: Model, use: Use, stack: Sequence[Change] = ()) -> Sizes:
    """Bytes that a module takes from staging to the end of its life.

    Args:
        model: The file.
        use: What may be asked of it.
        stack: Packages on top, in order.

    Raises:
        UsageError: if the use is out of range for the model.
    """
    _check(model.shape, use)
    heap = Heap()
    weights = heap.take(0)  # where the first block lies is what the engine itself takes
    heap.give(weights)
    weights += _load(heap, model) + _stack(heap, model.shape, stack)
    work = _Work(model.shape)
    work.smoke(heap, use.smoke)
    for _ in range(use.sessions):
        work.session(heap, use.positions)
    unwritten = _STACK + _texts(heap, model, use)
    kv = use.sessions * block_bytes(kv_bytes(model.shape, use.positions))
    fused = {place for change in stack for place in change.places}
    tensors = model.shape.tensors()
    return Sizes(
        file=model.file_bytes,
        decoded=4 * sum(model.quantised),
        stack=4 * sum(tensors[place].elements for place in fused),
        weights=weights,
        kv=kv,
        scratch=heap.memory_bytes - weights - kv,
        unwritten=unwritten,
    )


def _check(shape: SlmShape, use: Use) -> None:
    if not 1 <= use.positions <= shape.max_context or not 1 <= use.smoke <= shape.max_context:
        message = f"{use.positions} positions and {use.smoke} for the smoke; the context has 1..{shape.max_context}"
        raise UsageError(message, reason="resident.positions", advice="Ask for shorter sessions.")
    if not 1 <= use.sessions <= 64 or not 0 <= use.text_bytes < 1 << 26:
        message = f"{use.sessions} sessions, texts of {use.text_bytes} bytes; 1..64 and less than 64 MiB"
        raise UsageError(message, reason="resident.use", advice="Ask for less.")


def _load(heap: Heap, model: Model) -> int:
    """slm.c: checks with passing blocks, then what stays; returns the bytes that stay."""
    count = model.shape.tensor_count
    stays = [model.file_bytes, _MODEL, _TOKENIZER]
    heap.take(model.file_bytes)
    heap.pass_through(8 * (3 + 2 * count))
    heap.take(_MODEL)
    heap.take(_TOKENIZER)
    if model.words is not None:
        for size in (8 * model.words, 8 * model.merges, 4 * model.merges):
            heap.take(size)
            stays.append(size)
        if not all(model.merges_in_order):
            heap.pass_through(12 * model.merges)
    keys, places = heap.take(8 * count), heap.take(4 * count)
    heap.take(count * _TENSOR)
    heap.pass_through(12 * count)
    heap.give(keys)
    heap.give(places)
    for elements in model.quantised:
        heap.take(4 * elements)
    stays += [count * _TENSOR, *(4 * elements for elements in model.quantised)]
    return sum(map(block_bytes, stays))


def _stack(heap: Heap, shape: SlmShape, stack: Sequence[Change]) -> int:
    """stack.c: `Engine.apply` of all packages in one call; returns the bytes that stay."""
    if not stack:
        return 0
    count, tensors = shape.tensor_count, shape.tensors()
    heap.pass_through(_DIGEST)  # which f32 model a quantised build was made of
    files = [heap.take(change.file_bytes) for change in stack]
    table = heap.take(8 * len(stack))
    sizes = (len(stack) * _ADAPTER, 8 * count, 4 * count, 4 * count)
    passing = [heap.take(size) for size in sizes]
    heap.take(_DIGEST * len(stack))
    heap.pass_through(12 * count)
    for change in stack:
        entries = len(change.places)
        heap.pass_through(8 * entries, 4 * entries, *(() if change.sorted_names else (12 * entries,)))
        heap.pass_through(8 * (2 + entries))
    fused = list(dict.fromkeys(place for change in stack for place in change.places))
    stays = [_DIGEST * len(stack), *(4 * tensors[place].elements for place in fused)]
    for size in stays[1:]:
        heap.take(size)
    heap.take(_FUSED * len(fused))
    for at in (*passing, *files, table):
        heap.give(at)
    return sum(map(block_bytes, [*stays, _FUSED * len(fused)]))


class _Work:
    """forward.c and kernels.c: room that grows with the longest session so far."""

    def __init__(self, shape: SlmShape) -> None:
        self._shape, self._positions = shape, 0
        self._panels = self._all = self._turns = -1

    def session(self, heap: Heap, positions: int) -> int:
        """A session of so many positions; returns the block of its keys and values."""
        if positions > self._positions:
            self._grow(heap, positions)
        return heap.take(kv_bytes(self._shape, positions))

    def smoke(self, heap: Heap, positions: int) -> None:
        """session.c: the logit digest, and the 32 bytes it comes back in."""
        out, cache = heap.take(_DIGEST), self.session(heap, positions)
        heap.pass_through(4 * _BLOCK * self._shape.vocab_size)
        heap.give(cache)
        heap.give(out)

    def _grow(self, heap: Heap, positions: int) -> None:
        shape = self._shape
        if self._panels < 0:
            self._panels = heap.take(4 * (4 + _BLOCK) * (-(-max(shape.ffn_size, shape.hidden_size) // 16) * 16))
        hidden, kv, ffn = _padded(shape.hidden_size), _padded(shape.kv_size), _padded(shape.ffn_size)
        group = shape.head_count // shape.kv_head_count
        floats = _BLOCK * (4 * hidden + 2 * kv + 2 * ffn)
        floats += shape.head_count * _padded(shape.head_dim) + group * _padded(positions) + 4
        for name, size in (("_all", 4 * floats), ("_turns", positions * shape.head_dim * 4)):
            before, after = getattr(self, name), heap.take(size)
            if before >= 0:
                heap.give(before)
            setattr(self, name, after)
        self._positions = positions


def _texts(heap: Heap, model: Model, use: Use) -> int:
    """The largest of what passes through: texts, and sessions written on; returns what of it stays unwritten."""
    ids, logits = 4 * use.positions, 4 * model.shape.vocab_size
    coded = use.text_bytes, 4 * (use.text_bytes + 2), 36 * use.text_bytes
    decoded, written_on = (ids, MAX_DECODED_BYTES), (ids, 12, ids, logits, _CHOICES)
    lines = min(use.sessions, MOST_LINES)
    stepped = _LINE * lines, lines * logits, _CHOICES
    for sizes in (coded, decoded, written_on, stepped):
        heap.pass_through(*sizes)
    # Without merges most of the room to merge in is left alone, and so is most of what a decoded text is lent.
    touched = sum(coded) if model.merges else 9 * use.text_bytes
    return max(sum(coded), sum(decoded), sum(written_on), sum(stepped)) - max(touched, sum(written_on), sum(stepped))


def _padded(count: int) -> int:
    return -(-count // 4) * 4
