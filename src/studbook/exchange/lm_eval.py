"""Studbook's engine as a model of lm-eval-harness (extra ``lm-eval``), so that foreign tasks can be put to an artifact.

Nothing here touches the network, and the harness's response cache is refused: its keys hold the request and not the
model, so one file answers for whatever model comes next. Interface: lm_eval.api.model.LM of lm-eval 0.4.13. Importing
this module imports the harness, which takes seconds; no other module of the package does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from studbook.errors import BytesLie, TokenizerRefused, UsageError
from studbook.models.engine import Engine
from studbook.models.forward import Forward, Pair
from studbook.models.sampling import GREEDY, MAX_TOP_K, Sampling
from studbook.models.slm import Slm, assemble_slm, read_slm
from studbook.models.tokenizers import BOS, EOS

try:
    import lm_eval.api.model as api
except ImportError:
    api = None

__all__ = ["StudbookLM", "rolling_windows"]

_KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "seed")
_NEW_TOKENS = 256  # what the harness asks of a model where a task names no limit
_BATCH = 256
_N = TypeVar("_N", int, float)
_LM: Any = object if api is None else api.LM


class StudbookLM(_LM):  # type: ignore[misc]
    """A model that the harness can ask.

    Prompts begin with the begin token. Prompt and answer are encoded apart, as in Studbook's own scorecards; what is
    longer than the model's context is refused, never cut. Device and batch size are the engine's own.

    Args:
        artifact: An SLM1 model, or the path of one.
        ending: Score the end token as a part of every continuation. Studbook's scorecards do: an answer is right only if
            the model stops after it. The harness does not by itself.
        batch_size: Most sequences in one pass, or ``auto``.
        max_batch_size: Taken and not used, as the harness hands it to every model.
        device: ``cpu``.

    Raises:
        UsageError: ``lm-eval.extra``, if the harness is not installed; ``lm-eval.device``, for another device; if there
            is no such file.
        BytesLie: if it is no SLM1 container.
    """

    def __init__(
        self,
        artifact: Slm | Path | str,
        *,
        ending: bool = False,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        if api is None:
            raise UsageError(
                "the adapter needs lm-eval-harness, which is not installed",
                advice="Install the extra: pip install 'studbook[lm-eval]'",
                reason="lm-eval.extra",
            )
        del max_batch_size
        if device not in (None, "cpu"):
            advice = "Leave device out."
            raise UsageError(f"device {device!r}; the engine runs on cpu", reason="lm-eval.device", advice=advice)
        super().__init__()
        self.model = artifact if isinstance(artifact, Slm) else read_slm(Path(artifact))
        self.ending = ending
        self._batch = _BATCH if batch_size == "auto" else _number({"batch_size": batch_size}, "batch_size", int, _BATCH)
        self._forward = Forward(self.model)
        self._engine: Engine | None = None

    @property
    def tokenizer_name(self) -> str:
        """Digest of the tokenizer section, by which the harness tells tokenizers apart."""
        return self.model.tokenizer_sha256

    def set_cache_hook(self, cache_hook: object) -> NoReturn:
        """Refuse the response cache.

        Raises:
            UsageError: ``lm-eval.cache``, always.
        """
        del cache_hook
        raise UsageError(
            "the harness's response cache is not keyed by model: it would hand out another model's answers",
            where="use_cache",
            advice="Run without use_cache; Studbook keeps its own scorecards by the digest of the artifact.",
            reason="lm-eval.cache",
        )

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood (nats) of each continuation, and whether greedy decoding would write it.

        Args:
            requests: The harness's instances, ``args`` = (context, continuation).
            disable_tqdm: Taken and not used.

        Raises:
            UsageError: if a continuation is empty, or a sequence longer than the context.
            BytesLie: ``lm-eval.finite``, if a logit is not finite: no verdict may come from a broken model.
        """
        del disable_tqdm
        encode = self.model.tokenizer.encode
        asked = (request.args for request in requests)
        return self._scored([(encode(c, bos=True, eos=False), encode(a, bos=False, eos=self.ending)) for c, a in asked])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood (nats) of each whole text after the begin token, every token predicted once.

        Args:
            requests: The harness's instances, ``args`` = (text,).
            disable_tqdm: Taken and not used.

        Raises:
            BytesLie: ``lm-eval.finite``, if a logit is not finite.
        """
        del disable_tqdm
        texts = [self.model.tokenizer.encode(r.args[0], bos=False, eos=self.ending) for r in requests]
        windows = [list(rolling_windows(ids, self.model.shape.max_context)) for ids in texts]
        found = iter(self._scored([pair for pairs in windows for pair in pairs]))
        return [math.fsum(next(found)[0] for _ in pairs) for pairs in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt, up to its end token, a stop text or the limit.

        Bytes that are no text end as one replacement character: such an answer is wrong, not an error.

        Args:
            requests: The harness's instances, ``args`` = (prompt, settings); known settings are ``until``,
                ``max_gen_toks``, ``do_sample``, ``temperature``, ``top_k``, ``top_p`` and ``seed``.
            disable_tqdm: Taken and not used.

        Raises:
            UsageError: ``lm-eval.generation``, for a setting that is not known; if a prompt is longer than the context.
        """
        del disable_tqdm
        texts = [""] * len(requests)
        groups: dict[tuple[Sampling, int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_settings(request.args[1]), []).append(place)
        # As in a scorecard: numpy scores in batches, and the engine writes.
        self._engine = self._engine or Engine(assemble_slm(self.model.shape, self.model.tokenizer, self.model.tensors))
        for (sampling, limit), places in groups.items():
            prompts = [self.model.tokenizer.encode(requests[p].args[0], bos=True, eos=False) for p in places]
            for place, ids in zip(places, self._engine.generate(prompts, limit, sampling), strict=True):
                texts[place] = _cut(self._text(ids), requests[place].args[1].get("until"))
        return texts

    def _scored(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        scores = self._forward.score(pairs, batch=self._batch)
        if not scores.finite.all():
            message = f"{int((~scores.finite).sum())} of {len(pairs)} sequences gave logits that are not finite"
            raise BytesLie(message, where=self.model.sha256, reason="lm-eval.finite")
        return list(zip(scores.loglik.tolist(), scores.exact.tolist(), strict=True))

    def _text(self, ids: Sequence[int]) -> str:
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        for stop in range(len(ids), 0, -1):
            try:
                return self.model.tokenizer.decode(ids[:stop]) + "\N{REPLACEMENT CHARACTER}" * (stop < len(ids))
            except TokenizerRefused:
                continue
        return "\N{REPLACEMENT CHARACTER}" * bool(ids)


def rolling_windows(ids: Sequence[int], context: int) -> Iterator[Pair]:
    """Prompts and answers that predict every token once, each window with as much context as fits.

    The first window begins with the begin token; a later one overlaps the one before it only as far as it has room.

    Args:
        ids: Ids of the text.
        context: Most tokens that are fed at once.
    """
    whole = [BOS, *ids]
    for start in range(0, len(ids), context):
        stop = min(start + context, len(ids))
        yield whole[max(0, stop - context) : start + 1], whole[start + 1 : stop + 1]


def _settings(asked: Mapping[str, Any]) -> tuple[Sampling, int]:
    """How to pick tokens, and how many, from the harness's settings; greedy unless a temperature is asked for."""
    if unknown := sorted(set(asked) - set(_KNOWN)):
        advice = f"Known are {', '.join(_KNOWN)}."
        message = f"{', '.join(unknown)}: not a setting of this engine"
        raise UsageError(message, where="generation_kwargs", advice=advice, reason="lm-eval.generation")
    limit = _number(asked, "max_gen_toks", int, _NEW_TOKENS)
    temperature = _number(asked, "temperature", float, 1.0 if asked.get("do_sample") else 0.0)
    if not asked.get("do_sample", temperature > 0) or temperature == 0:
        return GREEDY, limit
    top_k, top_p = _number(asked, "top_k", int, MAX_TOP_K), _number(asked, "top_p", float, 1.0)
    return Sampling(temperature, top_k, top_p, _number(asked, "seed", int, 1)), limit


def _number(asked: Mapping[str, Any], name: str, kind: type[_N], default: _N) -> _N:
    try:
        return kind(asked.get(name, default))
    except (TypeError, ValueError, OverflowError) as error:
        message = f"{asked[name]!r} is no number"
        raise UsageError(message, where=name, advice="Write a plain number.", reason="lm-eval.number") from error


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first stop text that stands in it."""
    stops = [until] if isinstance(until, str) else until or ()
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=len(text))]
