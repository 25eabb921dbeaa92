"""A loaded model as the lab uses it: scored, continued, fed, changed by packages; all of it in one engine's memory."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.stack import Diagnostics
from studbook.errors import UsageError
from studbook.models.engine.compiled import ENGINE_SHA256
from studbook.models.engine.instance import Instance
from studbook.models.forward import Generations, Pair, Scores, check_sequence
from studbook.models.sampling import GREEDY, Sampling
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import EOS, MAX_DECODED_BYTES, byte_ids

__all__ = ["Engine", "Facts", "Session"]

F32 = NDArray[np.float32]
_INFO = struct.Struct("<8I2f2I2Q2I32s32s32s32s")
_STACK = struct.Struct("<4I32s2I")
_FUSED = struct.Struct("<Q32s")
_SCORE = struct.Struct("<2d2I")
_DIGEST = re.compile("[0-9a-f]{64}")


class Facts(NamedTuple):
    """What the engine found in the file.

    Attributes:
        shape: Dimensions.
        decoded_bytes: Bytes of all tensors in f32.
        size: Bytes of the file.
        sha256: SHA-256 of the file.
        tokenizer_sha256: SHA-256 of its tokenizer section.
        layout_sha256: Identity of names and shapes.
    """

    shape: SlmShape
    decoded_bytes: int
    size: int
    sha256: str
    tokenizer_sha256: str
    layout_sha256: str


class Engine:
    """One model in one memory; a context manager, not for several threads at once.

    Args:
        data: The bytes of a container; the engine checks every rule.
        memory_limit: Most bytes of memory: file, decoded weights, caches and all.
        fuel: Whether to count what is done, see `fuel_used`; it costs a fifth to a third of the speed.
        where: What to call the model in errors.

    Raises:
        SlmRefused: if the file breaks a rule.
        TokenizerRefused: if its tokenizer section does.
        OverBudget: if it does not fit the memory.
    """

    def __init__(self, data: bytes, *, memory_limit: int = 1 << 30, fuel: bool = False, where: object = "") -> None:
        self._instance = Instance(memory_limit, fuel=fuel, where=where)
        try:
            block = self._instance.take(len(data))
            self._instance.write(block, data)
            self._instance.call("sb_model_load", block, len(data))
            self.facts = self._read_facts()
        except BaseException:
            self.close()
            raise
        self._loaded = self._instance.fuel if fuel else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back; sessions end with it."""
        self._instance.close()

    @property
    def open(self) -> bool:
        """Whether it has its memory still: not closed, and not stopped by a defect."""
        return self._instance.open

    @property
    def shape(self) -> SlmShape:
        """Dimensions of the model."""
        return self.facts.shape

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return self.facts.sha256

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory in use, free blocks between others included."""
        return self._instance.memory_bytes

    @property
    def fuel_used(self) -> int:
        """Fuel burnt since the model was loaded: the same number on every machine for the same work.

        Raises:
            UsageError: if it is not counted.
        """
        return self._instance.fuel - self._loaded

    def accept(self, base_sha256: str) -> None:
        """Say which f32 model this quantised build was made of; whoever says so has verified the receipt.

        Raises:
            UsageError: if that is no SHA-256 of 64 hexadecimal digits.
        """
        if not _DIGEST.fullmatch(base_sha256):
            advice = "Name the f32 model by its SHA-256."
            raise UsageError(f"{base_sha256[:80]!r} is no digest", reason="engine.digest", advice=advice)
        with self._instance.holding(bytes.fromhex(base_sha256)) as digest:
            self._instance.call("sb_accept", digest)

    def apply(self, *packages: bytes) -> Diagnostics:
        """Put packages on top, in order: all of them or none. Sessions are empty afterwards.

        Raises:
            AdapterRefused: if one breaks a rule, does not fit, or would make a value that is not finite; nothing has
                changed then, and sessions are as they were.
        """
        with ExitStack() as stack:
            pairs = [(stack.enter_context(self._instance.holding(data)), len(data)) for data in packages]
            table = stack.enter_context(self._instance.holding(b"".join(struct.pack("<2I", *pair) for pair in pairs)))
            self._instance.call("sb_stack_apply", table, len(packages))
        return self.diagnostics()

    def detach(self) -> Diagnostics:
        """Take all packages off: the tensors are the file's own again. Sessions are empty afterwards."""
        self._instance.call("sb_stack_detach")
        return self.diagnostics()

    def diagnostics(self) -> Diagnostics:
        """What is in force."""
        at = self._instance.call("sb_stack_info")
        applied, fused, generation, _, state, digests, tensors = _STACK.unpack(self._instance.read(at, _STACK.size))
        names = {spec.name_hash: spec.name for spec in self.shape.tensors()}
        table = _FUSED.iter_unpack(self._instance.read(tensors, fused * _FUSED.size))
        raw = self._instance.read(digests, 32 * applied)
        return Diagnostics(
            base_sha256=self.sha256,
            applied=tuple(raw[i : i + 32].hex() for i in range(0, len(raw), 32)),
            fused={names[name]: digest.hex() for name, digest in table},
            state_sha256=state.hex(),
            generation=generation,
        )

    @property
    def cache_key(self) -> str:
        """What keys and values hold for: SHA-256 over the raw digests of engine, tokenizer, and base with packages in order.

        The last of the three is the assembly-state checksum. A cache that is kept under this key fits no other state.
        """
        parts = ENGINE_SHA256, self.facts.tokenizer_sha256, self.diagnostics().state_sha256
        return hashlib.sha256(b"".join(map(bytes.fromhex, parts))).hexdigest()

    def encode(self, text: str, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Ids of a text by the model's tokenizer.

        Raises:
            TokenizerRefused: if the text holds a lone surrogate.
        """
        data = bytes(byte_ids(text))
        room = len(data) + 2
        with self._instance.holding(data) as source, self._instance.lent(4 * room) as out:
            count = self._instance.call("sb_encode", source, len(data), out, room, bos, eos)
            return _ids(self._instance.read(out, 4 * count))

    def decode_text(self, ids: Sequence[int]) -> str:
        """Text of ids by the model's tokenizer.

        Raises:
            TokenizerRefused: if an id is out of range, the text exceeds 65,536 bytes, or its bytes are not UTF-8.
        """
        with self._instance.holding(_packed(ids)) as source, self._instance.lent(MAX_DECODED_BYTES) as out:
            size = self._instance.call("sb_decode", source, len(ids), out, MAX_DECODED_BYTES)
            return self._instance.read(out, size).decode()

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Score answers after their prompts, feeding the true answer; one pair is scored like another whatever is beside it.

        Args:
            pairs: Prompt ids and answer ids; neither may be empty.

        Raises:
            UsageError: as `models.forward.Forward.score`.
            OverBudget: if the longest does not fit the memory.
        """
        for index, (prompt, answer) in enumerate(pairs):
            check_sequence(self.shape, prompt, answer, len(prompt) + len(answer) - 1, index)
        longest = max((len(prompt) + len(answer) for prompt, answer in pairs), default=0)
        with self._instance.lent(4 * longest + _SCORE.size) as room:
            found = [self._score(pair, room + _SCORE.size, room) for pair in pairs]
        columns = zip(*found, strict=True) if found else ((), (), (), ())
        loglik, brier, exact, finite = columns
        return Scores(
            loglik=np.array(loglik, dtype=np.float64),
            exact=np.array(exact, dtype=np.bool_),
            tokens=np.array([len(answer) for _, answer in pairs], dtype=np.int64),
            fed=np.array([len(prompt) + len(answer) - 1 for prompt, answer in pairs], dtype=np.int64),
            brier=np.array(brier, dtype=np.float64),
            finite=np.array(finite, dtype=np.bool_),
            calls=np.ones(len(pairs), dtype=np.int64),
        )

    def _score(self, pair: Pair, ids: int, out: int) -> tuple[float, float, int, int]:
        prompt, answer = pair
        self._instance.write(ids, _packed((*prompt, *answer)))
        self._instance.call("sb_score", ids, len(prompt) + len(answer), len(answer), out)
        loglik, brier, exact, finite = _SCORE.unpack(self._instance.read(out, _SCORE.size))
        return loglik, brier, exact, finite

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling = GREEDY, stop: int = EOS
    ) -> list[list[int]]:
        """New tokens after every prompt; see `decode`."""
        return self.decode(prompts, max_new_tokens, sampling, stop).ids

    def decode(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling = GREEDY, stop: int = EOS
    ) -> Generations:
        """Write on after every prompt until stop, limit or the end of the context.

        Args:
            prompts: Prompt ids, none empty.
            max_new_tokens: Most new tokens, at least 1.
            sampling: How to pick; every prompt starts its own generator from the seed.
            stop: Token that ends a sequence and is its last.

        Raises:
            UsageError: as `models.forward.Forward.decode`.
            OverBudget: if the longest does not fit the memory.
        """
        if max_new_tokens < 1:
            raise UsageError(f"{max_new_tokens} new tokens; at least 1", reason="forward.tokens")
        for index, prompt in enumerate(prompts):
            check_sequence(self.shape, prompt, (stop,), len(prompt), index)
        # The last token written is never fed, so one more fits than the context has room for.
        limits = [min(max_new_tokens, self.shape.max_context - len(prompt) + 1) for prompt in prompts]
        done = Generations([], [])
        if not prompts:
            return done
        positions = max(len(prompt) + limit - 1 for prompt, limit in zip(prompts, limits, strict=True))
        with self.session(positions) as session:
            for prompt, limit in zip(prompts, limits, strict=True):
                session.reset()
                ids, finite = session.write_on(prompt, limit, sampling, stop)
                done.ids.append(ids)
                done.finite.append(finite)
        return done

    def session(self, positions: int) -> Session:
        """An empty session of its own; a context manager.

        Args:
            positions: Most tokens it may be fed, 1 to the model's context.

        Raises:
            UsageError: if that is out of range, or 64 are open.
            OverBudget: if it does not fit the memory.
        """
        return Session(self._instance, self.shape.vocab_size, positions)

    def logit_digest(self, positions: int = 0) -> str:
        """SHA-256 over the f32 logits of fixed pseudo-random tokens, with the packages in force.

        Args:
            positions: How many tokens; 0 stands for one less than the context holds.

        Raises:
            UsageError: if that is more than the context holds, or a logit is not finite.
        """
        with self._instance.lent(32) as out:
            self._instance.call("sb_logit_digest", positions, out)
            return self._instance.read(out, 32).hex()

    def _read_facts(self) -> Facts:
        raw = self._instance.read(self._instance.call("sb_model_info"), _INFO.size)
        *fields, decoded, size, _, sha, tokenizer, layout, _ = _INFO.unpack(raw)
        dimensions = [*fields[:10], bool(fields[10])]
        return Facts(SlmShape(*dimensions), decoded, size, sha.hex(), tokenizer.hex(), layout.hex())


class Session:
    """Keys and values of what was fed, in the engine's memory; a context manager. Made by `Engine.session`."""

    def __init__(self, instance: Instance, vocab_size: int, positions: int) -> None:
        self._instance = instance
        self._vocab = vocab_size
        self._handle = instance.call("sb_session_open", positions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def door(self) -> tuple[Instance, int]:
        """The engine's memory, and the session's number in it."""
        return self._instance, self._handle

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        return self._instance.call("sb_session_length", self._handle)

    def feed(self, ids: Sequence[int], *, every: bool = False) -> F32:
        """Feed tokens.

        Args:
            ids: At least one token id.
            every: Whether the logits of all of them are wanted, and not of the last alone.

        Returns:
            f32 (tokens, vocabulary), or (vocabulary,) of the last; NaN and infinity where the model is broken.

        Raises:
            UsageError: if there is no token, or one too many, or an id outside the vocabulary.
            OverBudget: if the logits do not fit the memory.
        """
        rows = len(ids) if every else 1
        with self._instance.holding(_packed(ids)) as source, self._instance.lent(4 * rows * self._vocab) as out:
            self._instance.call("sb_feed", self._handle, source, len(ids), out, every)
            logits = np.frombuffer(self._instance.read(out, 4 * rows * self._vocab), dtype="<f4")
        return logits.reshape(rows, self._vocab) if every else logits

    def write_on(self, ids: Sequence[int], most: int, sampling: Sampling, stop: int) -> tuple[list[int], bool]:
        """Feed tokens and write on.

        Args:
            ids: At least one token id.
            most: Most new tokens; the last one written is not fed.
            sampling: How to pick.
            stop: Token that ends the writing and is its last.

        Returns:
            New tokens, and whether all logits on the way were finite.
        """
        state = struct.pack("<QI", sampling.seed, 1)
        with (
            self._instance.holding(_packed(ids)) as source,
            self._instance.holding(state) as drawn,
            self._instance.lent(4 * most) as out,
        ):
            settings = (sampling.temperature, sampling.top_k, sampling.top_p, drawn)
            count = self._instance.call(
                "sb_generate", self._handle, source, len(ids), most, stop, *settings, out, drawn + 8
            )
            (finite,) = struct.unpack("<I", self._instance.read(drawn + 8, 4))
            return _ids(self._instance.read(out, 4 * count)), bool(finite)

    def reset(self) -> None:
        """Forget what was fed."""
        self._instance.call("sb_session_reset", self._handle)

    def close(self) -> None:
        """Give its memory back; a second time is nothing."""
        # The engine gives the number to the next session: whoever still holds this one must not reach that.
        handle, self._handle = self._handle, 0
        if handle and self._instance.open:
            self._instance.call("sb_session_close", handle)


def _packed(ids: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error as error:
        message = f"holds a token id that is no 32-bit number: {error}"
        raise UsageError(message, reason="engine.id", advice="Encode the text with the model's tokenizer.") from error


def _ids(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 4}I", data))
