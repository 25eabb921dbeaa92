"""Running a model over many sequences: scores of known answers, and new tokens.

Sequences are sorted by length, then by their place in the input, and cut into batches of equal length. The layout
depends on lengths and order only, so equal input gives equal bits on one machine with one set of numerical libraries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studbook.errors import UsageError
from studbook.models.decoder import Cache, Decoder
from studbook.models.reference import forward64
from studbook.models.sampling import GREEDY, Sampler, Sampling, greedy
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm
from studbook.models.tokenizers import EOS

__all__ = ["Forward", "Generations", "Pair", "Scores", "check_sequence", "forward64", "keep_freed_memory"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ids = NDArray[np.int64]
Pair = tuple[Sequence[int], Sequence[int]]

_BATCH_TOKENS = 4096  # keeps one batch's activations in the processor's caches
_BATCH_LOGITS = 1 << 21  # bounds the f64 temporaries to some tens of MiB whatever the vocabulary
_KEPT_BYTES = 31 << 20  # just below the size up to which glibc's malloc learns to keep what was freed


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model makes of known answers; one entry a pair, in the order given.

    Attributes:
        loglik: Sum of log p over the answer's tokens, f64, nats; minus infinity where not finite.
        exact: Whether the largest logit (ties to the lowest id) is the answer's token at every answer position,
            which is what greedy decoding from the prompt would write.
        tokens: Number of answer tokens.
        fed: Number of tokens fed: prompt and answer without its last.
        brier: Mean over the answer's tokens of 1 - 2 p_y + sum p_k^2, 0..2; 2 where not finite. Brier 1950.
        finite: Whether every logit at the answer's positions is finite; if not, the model is broken.
        calls: How often the pair went through the model, counted as it did; 1 everywhere.
    """

    loglik: F64
    exact: NDArray[np.bool_]
    tokens: Ids
    fed: Ids
    brier: F64
    finite: NDArray[np.bool_]
    calls: Ids


@dataclass(frozen=True)
class Generations:
    """What a model wrote.

    Attributes:
        ids: New tokens of every prompt, the stop token included where it was written.
        finite: Whether all logits on the way were finite.
    """

    ids: list[list[int]]
    finite: list[bool]


class Forward:
    """A model ready to run, its weights decoded to f32.

    Args:
        slm: The model.
    """

    def __init__(self, slm: Slm) -> None:
        keep_freed_memory()
        self.slm = slm
        self.decoder = Decoder(slm)

    def score(self, pairs: Sequence[Pair], batch: int = 256) -> Scores:
        """Score answers after their prompts, feeding the true answer (teacher forcing).

        Args:
            pairs: Prompt ids and answer ids; neither may be empty.
            batch: Most sequences in one pass.

        Raises:
            UsageError: if a pair is empty, longer than the model's context, or holds an id outside the vocabulary.
        """
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in pairs]
        for index, (prompt, answer) in enumerate(pairs):
            check_sequence(self.slm.shape, prompt, answer, len(sequences[index]), index)
        count = len(pairs)
        scores = Scores(
            loglik=np.full(count, -np.inf),
            exact=np.zeros(count, dtype=np.bool_),
            tokens=np.array([len(answer) for _, answer in pairs], dtype=np.int64),
            fed=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
            brier=np.full(count, 2.0),
            finite=np.zeros(count, dtype=np.bool_),
            calls=np.zeros(count, dtype=np.int64),
        )
        for members in _batches([len(sequence) for sequence in sequences], batch):
            ids = np.array([sequences[index] for index in members], dtype=np.int64)
            self._score_batch(ids, [pairs[index][1] for index in members], np.array(members), scores)
        return scores

    def _score_batch(self, ids: Ids, answers: Sequence[Sequence[int]], members: Ids, scores: Scores) -> None:
        tokens = ids.shape[1]
        lengths = scores.tokens[members]
        ends = np.cumsum(lengths)
        firsts = ends - lengths
        # Row of the residual stream that predicts each answer token, sequence by sequence.
        offsets = np.arange(ends[-1]) - np.repeat(firsts, lengths)
        rows = np.repeat(np.arange(len(members)) * tokens + tokens - lengths, lengths) + offsets
        targets = np.concatenate([np.asarray(answer, dtype=np.int64) for answer in answers])
        loglik, brier, hit, finite = self._score_rows(self.decoder.run(ids, rows), targets)
        sound = np.logical_and.reduceat(finite, firsts)
        np.add.at(scores.calls, members, 1)
        scores.finite[members] = sound
        scores.exact[members] = np.logical_and.reduceat(hit, firsts) & sound
        scores.loglik[members] = np.where(sound, np.add.reduceat(loglik, firsts), -np.inf)
        scores.brier[members] = np.where(sound, np.add.reduceat(brier, firsts) / lengths, 2.0)

    def _score_rows(self, x: F32, targets: Ids) -> tuple[F64, F64, NDArray[np.bool_], NDArray[np.bool_]]:
        step = max(1, _BATCH_LOGITS // self.slm.shape.vocab_size)
        parts = [_judged(self.decoder.logits(x[i : i + step]), targets[i : i + step]) for i in range(0, len(x), step)]
        loglik, brier, hit, finite = (np.concatenate(column) for column in zip(*parts, strict=True))
        return loglik, brier, hit, finite

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling = GREEDY, stop: int = EOS
    ) -> list[list[int]]:
        """New tokens after every prompt; see `decode`."""
        return self.decode(prompts, max_new_tokens, sampling, stop).ids

    def decode(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling = GREEDY, stop: int = EOS
    ) -> Generations:
        """Write on after every prompt, with a key and value cache, until stop, limit or the end of the context.

        Args:
            prompts: Prompt ids, none empty.
            max_new_tokens: Most new tokens, at least 1.
            sampling: How to pick; every prompt starts its own generator from the seed.
            stop: Token that ends a sequence and is its last.

        Raises:
            UsageError: if a prompt is empty, longer than the context, or holds an id outside the vocabulary, or
                fewer than one token is asked for.
        """
        if max_new_tokens < 1:
            raise UsageError(f"{max_new_tokens} new tokens; at least 1", reason="forward.tokens")
        for index, prompt in enumerate(prompts):
            check_sequence(self.slm.shape, prompt, (stop,), len(prompt), index)
        done = Generations([[] for _ in prompts], [True for _ in prompts])
        for members in _batches([len(prompt) for prompt in prompts], 256):
            self._decode_batch(prompts, members, max_new_tokens, sampling, stop, done)
        return done

    def _decode_batch(
        self, prompts: Sequence[Sequence[int]], members: Sequence[int], limit: int, sampling: Sampling, stop: int,
        done: Generations,
    ) -> None:  # fmt: skip
        ids = np.array([prompts[index] for index in members], dtype=np.int64)
        count, length = ids.shape
        # The last token written is never fed, so one more fits than the context has room for.
        limit = min(limit, self.slm.shape.max_context - length + 1)
        cache = Cache(self.slm, count, length + limit - 1)
        samplers = [Sampler(sampling) for _ in members]
        alive: NDArray[np.bool_] = np.ones(count, dtype=np.bool_)
        rows = np.arange(count) * length + length - 1
        for _ in range(limit):
            logits = self.decoder.logits(self.decoder.run(ids, rows, cache))
            finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=1)
            chosen = _picked(logits, samplers, alive)
            for place in np.flatnonzero(alive).tolist():
                done.ids[members[place]].append(int(chosen[place]))
                done.finite[members[place]] &= bool(finite[place])
            alive &= chosen != stop
            if not alive.any():
                return
            ids, rows = chosen[:, np.newaxis], np.arange(count)


def check_sequence(shape: SlmShape, prompt: Sequence[int], answer: Sequence[int], fed: int, index: int) -> None:
    """Check that a sequence can be fed to a model.

    Args:
        shape: Dimensions of the model.
        prompt: Prompt ids.
        answer: Answer ids, or what ends one.
        fed: Number of tokens that will be fed.
        index: Which sequence it is, for errors.

    Raises:
        UsageError: if prompt or answer is empty, the context too short, or an id outside the vocabulary.
    """
    where = f"sequence {index}"
    if not prompt or not answer:
        raise UsageError("prompt or answer has no tokens", where=where, reason="forward.empty")
    if fed > shape.max_context:
        message = f"{fed} tokens; the model's context holds {shape.max_context}"
        raise UsageError(message, where=where, reason="forward.context", advice="Shorten the prompt.")
    if min(*prompt, *answer) < 0 or max(*prompt, *answer) >= shape.vocab_size:
        message = f"holds a token id outside 0..{shape.vocab_size - 1}"
        advice = "Encode the text with the tokenizer of the same model."
        raise UsageError(message, where=where, reason="forward.id", advice=advice)


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed: it raises its thresholds to the largest block that it ever unmapped.

    Without it every pass of a model maps and unmaps its activations; page faults are then a sixth of the time. Nothing is
    touched here, so nothing is taken; other allocators than glibc's do as they please.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batch: list[int] = []
    for index in order:
        length = lengths[index]
        if batch and (length != lengths[batch[0]] or len(batch) == most or (len(batch) + 1) * length > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _judged(logits: F32, targets: Ids) -> tuple[F64, F64, NDArray[np.bool_], NDArray[np.bool_]]:
    rows = np.arange(len(targets))
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=1)
    hit: NDArray[np.bool_] = np.equal(greedy(logits), targets)
    with np.errstate(all="ignore"):
        shifted = logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        loglik = shifted[rows, targets]
        mass = np.exp(shifted, out=shifted)
        total = mass.sum(axis=1)
        loglik = loglik - np.log(total)
        brier = 1 - 2 * np.exp(loglik) + np.einsum("ij,ij->i", mass, mass) / (total * total)
    return loglik, brier, hit, finite


def _picked(logits: F32, samplers: Sequence[Sampler], alive: NDArray[np.bool_]) -> Ids:
    if samplers[0].sampling.temperature == 0:
        return greedy(logits)
    chosen = np.zeros(len(samplers), dtype=np.int64)
    for place in np.flatnonzero(alive).tolist():
        chosen[place] = samplers[place].pick(logits[place])
    return chosen
