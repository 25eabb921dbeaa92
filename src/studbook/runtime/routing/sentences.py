"""A sentence encoder from a local folder (extras ``train`` and ``hf``): held against its digests, then run apart.

Three files are read and nothing else in the folder: ``config.json``, ``tokenizer.json`` and ``model.safetensors``. What was
hashed is what is run: the same bytes go to a process of its own (`sentence_worker`), which has no network and opens no
file of the model. Nothing is ever fetched, and no format that can run code is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from studbook import errors
from studbook.errors import BytesLie, DigestDiffers, OverBudget, StudbookError, UsageError, printable
from studbook.files import read_file
from studbook.models.safetensors_header import HEADER_CAP, parse_header
from studbook.models.strict_json import read_object
from studbook.records import Blob, Header, SentenceModel
from studbook.runtime.routing.ngrams import I16
from studbook.sandbox.limits import THREADS

__all__ = ["SentenceEncoder", "sentence_model"]

_FILES = {"config.json": 1 << 16, "tokenizer.json": 64 << 20, "model.safetensors": 2 << 30}
_RUNS_CODE = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5")
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")
# Seconds to load libraries and model, for one text, and to end.
_LOAD, _TEXT, _END = 300.0, 30.0, 2.0
_LONGEST_LINE = 1 << 20
_REASON = "route.encoder"
_WORKER = "studbook.runtime.routing.sentence_worker"


def sentence_model(header: Header, folder: Path, *, longest: int = 128, reach: int = 2048) -> SentenceModel:
    """The record of the sentence encoder in a folder, as its files are now.

    Args:
        header: The header of the record.
        folder: The folder of a BERT model.
        longest: Most tokens read, those included that the tokenizer adds.
        reach: Most characters looked at.

    Raises:
        UsageError: if a file is missing, or there are only weights in a format that can run code; ``route.encoder``.
        BytesLie: if a file is a link or no regular one, the weights are no safetensors, or the config names no dimension.
        OverBudget: if a file is too large.
    """
    config, tokenizer, weights = _read(folder)
    dimension = read_object(config, folder / "config.json", _REASON).get("hidden_size")
    if type(dimension) is not int or not 0 < dimension <= 4096:
        raise BytesLie("hidden_size is not between 1 and 4096", where=folder / "config.json", reason=_REASON)
    return SentenceModel(
        header=header,
        config=_blob(config),
        tokenizer=_blob(tokenizer),
        weights=_blob(weights),
        dimension=dimension,
        pooling="mean",
        longest=longest,
        reach=reach,
    )


class SentenceEncoder:
    """A sentence encoder that is open: a process that has the model, until it is closed.

    Texts are answered one at a time, whoever asks. The rounded vectors are the same in every process on one machine with
    the same libraries; see `embeddings` for what holds elsewhere.

    Args:
        folder: The folder of the model.
        model: Its record.

    Attributes:
        model: Its record.
        measures: What the process gave up before it saw the model, as it says itself, sorted.

    Raises:
        UsageError: if the extras are not installed (``usage.extra``), or a file is missing.
        DigestDiffers: if a file is not the one of the record.
        BytesLie: if the files are no such model.
        OverBudget: if loading took too long.
    """

    def __init__(self, folder: Path, model: SentenceModel) -> None:
        _require_libraries()
        self.model = model
        self.measures: tuple[str, ...] = ()
        files = _read(folder)
        for name, data, blob in zip(_FILES, files, (model.config, model.tokenizer, model.weights), strict=True):
            if hashlib.sha256(data).hexdigest() != blob.sha256:
                text = "is not the file that the encoder's record names"
                raise DigestDiffers(text, where=folder / name, reason=_REASON)
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="studbook-encoder-")
        self._process = self._started()
        try:
            head = {"sizes": [len(data) for data in files], "longest": model.longest}
            self.measures = tuple(self._ask((json.dumps(head).encode() + b"\n", *files), "measures", _LOAD))
            self.embed("")
        except BaseException:
            self.close()
            raise

    def embed(self, text: str) -> I16:
        """The rounded vector of a text, i16 (dimension,); of a long one the beginning is read.

        Raises:
            OverBudget: if it took too long; the encoder is closed then.
            StudbookError: if the process has ended; ``route.encoder``.
        """
        # What no UTF-8 can hold, a lone surrogate, is read as a question mark.
        plain = text[: self.model.reach].encode("utf-8", "replace").decode()
        with self._lock:
            found = np.array(self._ask((json.dumps(plain).encode() + b"\n",), "embedding", _TEXT), dtype=np.int16)
        if found.shape != (self.model.dimension,) or not found.any():
            raise BytesLie("gives no vector of the record's length", where="encoder", reason=_REASON)
        return found

    def close(self) -> None:
        """End the process; closing twice is fine."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        # Nothing of the caller's environment: no key, no proxy, no folder of downloads.
        own = dict.fromkeys(("HOME", "TMPDIR"), self._folder.name)
        return subprocess.Popen(
            [sys.executable, "-I", "-B", "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **dict.fromkeys(THREADS, "1"), **own},
            start_new_session=True,
            close_fds=True,
        )

    def _ask(self, pieces: tuple[bytes, ...], wanted: str, seconds: float) -> list[Any]:
        """Write, and read the one line that answers; the process is ended if that takes too long."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or stdin.closed:
            raise _ended()
        deadline, line = time.monotonic() + seconds, b""
        patience = threading.Timer(seconds, self._process.kill)
        patience.start()
        try:
            # Where it has ended already, its last word still lies in the other pipe.
            with suppress(BrokenPipeError):
                stdin.writelines(pieces)
                stdin.flush()
            line = stdout.readline(_LONGEST_LINE)
        finally:
            patience.cancel()
        if not line:
            self.close()
            if time.monotonic() >= deadline:
                advice = "Open the encoder again where the machine has time for it."
                raise OverBudget(f"took longer than {seconds:.0f} s", where="encoder", advice=advice, reason=_REASON)
            raise _ended()
        told = json.loads(line)
        if "error" in told:
            self.close()
            raise _as_error(told["error"])
        found: list[Any] = told[wanted]
        return found


def _require_libraries() -> None:
    """Refuse where the extras are missing; nothing is imported for that."""
    for name in _LIBRARIES:
        try:
            version(name)
        except PackageNotFoundError as error:
            raise UsageError(
                f"a sentence encoder needs {name}, which is not installed",
                where="encoder",
                advice="Install the extras: pip install 'studbook[train,hf]'. n-grams need nothing more.",
                reason="usage.extra",
            ) from error


def _read(folder: Path) -> tuple[bytes, bytes, bytes]:
    weights = folder / "model.safetensors"
    if not os.path.lexists(weights) and any(next(folder.glob(pattern), None) for pattern in _RUNS_CODE):
        text = "holds weights only in a format that can run code when it is read"
        advice = "Take the model as model.safetensors."
        raise UsageError(text, where=printable(folder), reason=_REASON, advice=advice)
    config, tokenizer, data = (read_file(folder / name, most) for name, most in _FILES.items())
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 0 < length <= min(len(data) - 8, HEADER_CAP):
        raise BytesLie("is no safetensors file", where=printable(weights), reason=_REASON)
    parse_header(data[8 : 8 + length], len(data) - 8 - length, printable(weights))
    return config, tokenizer, data


def _blob(data: bytes) -> Blob:
    return Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _ended() -> StudbookError:
    return StudbookError(
        "the sentence encoder's process has ended",
        where="encoder",
        advice="Open the encoder again; if it ends again, this machine has too little memory for it.",
        reason=_REASON,
    )


def _as_error(fields: dict[str, str]) -> StudbookError:
    kind = getattr(errors, fields["type"], StudbookError)
    more = {name: printable(fields[name]) for name in ("where", "advice", "reason")}
    found: StudbookError = kind(printable(fields["message"]), **more)
    return found
