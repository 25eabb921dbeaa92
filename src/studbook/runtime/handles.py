"""What a caller holds of a model, each with a life of its own: runtime, artifact, module, session.

A *runtime* is the engine and how it is run. An *artifact* is a file whose bytes were compared with their digest; it is
never changed and counts who refers to it. A *module* is an artifact decoded in the memory of one engine, packages on top.
A *session* is the keys and values of one text. `Session.reset` forgets keys and values, `Session.clear` forgets what was
said, `Module.free` gives the model's memory back: three acts, none of which does another's work.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, UsageError
from studbook.files import read_file
from studbook.models import engine as engines
from studbook.models.engine import MOST_LINES, Engine, Line, begin, step
from studbook.models.sampling import GREEDY, Sampling
from studbook.models.slm import MAX_FILE_BYTES
from studbook.models.tokenizers import EOS
from studbook.records import LogitDigest
from studbook.runtime.sizes import Use

__all__ = ["ENGINE", "Artifact", "Artifacts", "Module", "Runtime", "Session"]

F32 = NDArray[np.float32]
ENGINE: Final = engines.ENGINE_SHA256
_DRAWN: Final = Sampling(temperature=1.0)


class Runtime(NamedTuple):
    """What runs models.

    Attributes:
        metered: Whether fuel is counted; it costs a fifth to a third of the speed.
        engine: Digest of the engine.
    """

    metered: bool = False
    engine: str = ENGINE


class Artifact(NamedTuple):
    """One file of the store, compared with its digest.

    Attributes:
        sha256: Its digest.
        size: Its length in bytes.
        path: Where it lies.
    """

    sha256: str
    size: int
    path: Path


class Artifacts:
    """The files that something refers to, by digest; from any thread.

    Bytes stay on disk: they are compared when a file is first held and again whenever they are read, so that what is
    decoded is what was promised.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Artifact, int]] = {}

    def hold(self, path: Path, sha256: str) -> Artifact:
        """Refer to a file once more.

        Raises:
            DigestDiffers: if its bytes are not those of the digest.
            UsageError: if there is no such file.
            BytesLie: if it is no plain file.
        """
        with self._lock:
            held = self._held.get(sha256)
        artifact = held[0] if held else Artifact(sha256, len(_read(path, sha256)), path)
        with self._lock:
            first, count = self._held.get(sha256, (artifact, 0))
            self._held[sha256] = (first, count + 1)
            return first

    def drop(self, artifact: Artifact) -> None:
        """Refer to it once less; with the last reference it is forgotten. The file stays in the store."""
        with self._lock:
            first, count = self._held[artifact.sha256]
            if count > 1:
                self._held[artifact.sha256] = (first, count - 1)
            else:
                del self._held[artifact.sha256]

    def references(self, sha256: str) -> int:
        """How often it is referred to."""
        with self._lock:
            return self._held.get(sha256, (None, 0))[1]

    def read(self, artifact: Artifact) -> bytes:
        """Its bytes.

        Raises:
            DigestDiffers: if they changed since it was held.
            BytesLie: if it is no plain file any more.
        """
        return _read(artifact.path, artifact.sha256)


def _read(path: Path, sha256: str) -> bytes:
    data = read_file(path, MAX_FILE_BYTES)
    if hashlib.sha256(data).hexdigest() != sha256:
        message = f"is not the artifact {sha256[:12]}... that was promised"
        raise DigestDiffers(message, where=path, reason="resident.artifact")
    return data


class Module:
    """A model in the memory of an engine, with all it may ever need taken; for one holder at a time.

    Args:
        engine: The model, packages on top.
        use: What may be asked of it; its sessions are opened here, moved on by a step, and the largest texts passed through.
        smoke: What the engine must compute of it.
        where: What to call it in errors.
        free: What gives the engine's memory back; the engine's own way if it is None.

    Raises:
        DigestDiffers: if the logits are others.
        UsageError: if a logit is not finite.
        OverBudget: if it needs more memory than the engine was allowed.
    """

    def __init__(
        self, engine: Engine, use: Use, smoke: LogitDigest, *, where: str, free: Callable[[], None] | None = None
    ) -> None:
        self.use, self.where = use, where
        self._engine, self._free = engine, free or engine.close
        found = engine.logit_digest(smoke.positions)
        if found != smoke.sha256:
            message = f"the engine computes {found[:12]}... of it; its smoke says {smoke.sha256[:12]}..."
            advice = "Do not run it: file, packages on top or engine are not those that were judged."
            raise DigestDiffers(message, where=where, reason="resident.smoke", advice=advice)
        self._idle = [engine.session(use.positions) for _ in range(use.sessions)]
        self._open: list[Session] = []
        engine.encode("x" * use.text_bytes)
        engine.decode_text([EOS] * use.positions)
        self._step_once()
        self.staged_bytes = engine.memory_bytes

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory it holds; `staged_bytes` is what it held when it was staged, and the same."""
        return self._engine.memory_bytes

    @property
    def vocab_size(self) -> int:
        """Ids that there are, and logits after a token."""
        return self._engine.shape.vocab_size

    @property
    def cache_key(self) -> str:
        """What keys and values of its sessions hold for; see `Engine.cache_key`."""
        return self._engine.cache_key

    @property
    def fuel_used(self) -> int:
        """Fuel burnt since it was loaded.

        Raises:
            UsageError: if the runtime does not count it.
        """
        return self._engine.fuel_used

    @property
    def sound(self) -> bool:
        """Whether it can be used: not freed, and not stopped by a defect of the engine."""
        return self._engine.open

    def session(self, positions: int = 0) -> Session:
        """An empty session; a context manager.

        Args:
            positions: Most tokens it may be fed; 0 for as many as a session of this module has.

        Raises:
            UsageError: if that is more than a session of this module has.
            OverBudget: if all of its sessions are open.
            OutOfOrder: if the model was freed.
        """
        self._require_sound()
        if not 0 <= positions <= self.use.positions:
            message = f"{positions} positions; its sessions have {self.use.positions}"
            raise UsageError(message, where=self.where, reason="resident.positions", advice="Ask for fewer.")
        if not self._idle:
            message = f"all {self.use.sessions} sessions are open"
            raise OverBudget(message, where=self.where, reason="resident.sessions", advice="Close one first.")
        session = Session(self, self._idle.pop(), positions or self.use.positions)
        self._open.append(session)
        return session

    def encode(self, text: str, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Ids of a text.

        Raises:
            OverBudget: if it is longer than the module's texts may be.
            TokenizerRefused: if it holds a lone surrogate.
        """
        size = len(text.encode(errors="surrogatepass"))
        if size > self.use.text_bytes:
            message = f"a text of {size} bytes; at most {self.use.text_bytes}"
            raise OverBudget(message, where=self.where, reason="resident.text", advice="Shorten the text.")
        return self._engine.encode(text, bos=bos, eos=eos)

    def decode_text(self, ids: Sequence[int]) -> str:
        """Text of ids; at most as many as a session has positions.

        Raises:
            OverBudget: if there are more.
            TokenizerRefused: as `Engine.decode_text`.
        """
        if len(ids) > self.use.positions:
            message = f"{len(ids)} ids; at most {self.use.positions}"
            raise OverBudget(message, where=self.where, reason="resident.text", advice="Decode them in parts.")
        return self._engine.decode_text(ids)

    def rest(self) -> None:
        """Close all sessions; the next holder finds it as it was staged."""
        for session in list(self._open):
            session.close()

    def free(self) -> None:
        """Free the model: its memory is given back, and its sessions end."""
        self._open.clear()
        self._free()

    def _step_once(self) -> None:
        step([begin(session, [EOS], _DRAWN) for session in self._idle[:MOST_LINES]])
        for session in self._idle:
            session.reset()

    def _require_sound(self) -> None:
        if not self.sound:
            raise OutOfOrder("the model was freed", where=self.where, advice="Activate it again.")

    def _closed(self, session: Session, kept: engines.Session) -> None:
        if session in self._open:
            self._open.remove(session)
            kept.reset()
            self._idle.append(kept)


class Session:
    """Keys and values of one text, and what was said; a context manager. Made by `Module.session`."""

    def __init__(self, module: Module, kept: engines.Session, positions: int) -> None:
        self._module, self._kept = module, kept
        self._closed = False
        self.positions = positions
        self.transcript: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def length(self) -> int:
        """Tokens in keys and values."""
        self._require_open()
        return self._kept.length

    def feed(self, ids: Sequence[int]) -> F32:
        """Feed tokens; they join the transcript.

        Returns:
            f32 (vocabulary,): logits after the last one.

        Raises:
            UsageError: if there is no token, one too many, or an id outside the vocabulary.
        """
        self._check(len(ids))
        logits = self._kept.feed(ids)
        self.transcript += ids
        return logits

    def write_on(
        self, ids: Sequence[int], most: int, sampling: Sampling = GREEDY, stop: int = EOS
    ) -> tuple[list[int], bool]:
        """Feed tokens and write on; both join the transcript. See `models.engine.Session.write_on`.

        Raises:
            UsageError: as `feed`, or if a sampling setting is out of range.
        """
        self._check(len(ids) + most - 1)
        written, finite = self._kept.write_on(ids, most, sampling, stop)
        self.transcript += [*ids, *written]
        return written, finite

    def begin(self, ids: Sequence[int], sampling: Sampling = GREEDY) -> Line:
        """Begin to write on beside other sessions of the module; see `models.engine.begin`. Nothing joins the transcript.

        Raises:
            UsageError: as `feed`, or if a sampling setting is out of range.
        """
        self._check(len(ids))
        return begin(self._kept, ids, sampling)

    def reset(self) -> None:
        """Reset the context: keys and values are forgotten, the transcript stays."""
        self._require_open()
        self._kept.reset()

    def clear(self) -> None:
        """Clear the transcript; keys and values stay."""
        self._require_open()
        self.transcript = []

    def close(self) -> None:
        """Give the session back to its module, empty; a second time is nothing."""
        if not self._closed and self._module.sound:
            self._module._closed(self, self._kept)
        self._closed = True

    def _check(self, more: int) -> None:
        if self.length + more > self.positions:
            message = f"{self.length} tokens and {more} more; the session has {self.positions} positions"
            raise UsageError(message, where=self._module.where, reason="engine.context", advice="Reset it first.")

    def _require_open(self) -> None:
        if self._closed or not self._module.sound:
            raise OutOfOrder("the session is closed", where=self._module.where, advice="Open another.")
