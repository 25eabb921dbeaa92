"""Scoring by lm-eval-harness or by a hand-written loop over transformers, under any interpreter that has them.

Started by `bench_evaluate.py`; needs nothing of Studbook. Prints CPU seconds a pass, verdicts and log-likelihoods as JSON.

    python evaluate_peer.py feed-BATCH|generate-BATCH|task-BATCH|equal|padded FOLDER PASSES
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(
    {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
)

import numpy as np
import torch
import transformers

BOS, EOS = 256, 257
BATCH, BATCH_TOKENS = 256, 4096  # Studbook's own layout
LONGEST = 13  # an answer of a suite and its end
WARM = 300

Items = list[tuple[str, str]]
Scored = tuple[list[bool], list[float]]


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def far_from(model: Any, folder: Path) -> float:
    """Largest difference between the model's logits and Studbook's."""
    wanted = np.load(folder / "check.npz")
    with torch.inference_mode():
        logits = model(torch.tensor(wanted["ids"])).logits
    return float(np.abs(logits.reshape(-1, logits.shape[-1]).numpy() - wanted["logits"]).max())


# -- by hand -----------------------------------------------------------------------------------------------------------


def batches(lengths: list[int], *, equal: bool) -> Iterator[list[int]]:
    """Sorted by length; of equal lengths, or padded to the longest."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        full = len(batch) == BATCH or (len(batch) + 1) * lengths[index] > BATCH_TOKENS
        if batch and (full or (equal and lengths[index] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def by_hand(model: Any, items: Items, *, equal: bool) -> Scored:
    """One pass of a loop that somebody wrote for speed: logits of the answers' positions only, no loop over items."""
    pairs = [([BOS, *p.encode()], [*a.encode(), EOS]) for p, a in items]
    right, loglik = torch.zeros(len(items), dtype=torch.bool), torch.zeros(len(items), dtype=torch.float64)
    for members in batches([len(p) + len(a) - 1 for p, a in pairs], equal=equal):
        fed = [pairs[i][0] + pairs[i][1][:-1] for i in members]
        width = max(map(len, fed))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in fed])
        counts = torch.tensor([len(pairs[i][1]) for i in members])
        starts = [place * width + len(pairs[i][0]) - 1 for place, i in enumerate(members)]
        rows = torch.tensor([s + k for s, i in zip(starts, members, strict=True) for k in range(len(pairs[i][1]))])
        targets = torch.tensor([token for i in members for token in pairs[i][1]])
        hidden = model.model(ids, use_cache=False).last_hidden_state
        scores = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[rows]).log_softmax(-1)
        owner = torch.repeat_interleave(torch.arange(len(members)), counts)
        picked = scores.gather(1, targets[:, None])[:, 0].double()
        sums = torch.zeros(len(members), dtype=torch.float64).index_add_(0, owner, picked)
        misses = torch.zeros(len(members)).index_add_(0, owner, (scores.argmax(-1) != targets).float())
        right[members], loglik[members] = misses == 0, sums
    return right.tolist(), loglik.tolist()


# -- by the harness ----------------------------------------------------------------------------------------------------


def harness_of(folder: Path, batch: int, *, writes: bool) -> Callable[[Items], Scored]:
    """The harness's own transformers model; the requests are made beforehand and not counted."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=batch, add_bos_token=True, max_length=64)
    limit = {"until": [], "max_gen_toks": LONGEST, "do_sample": False}

    def fed(items: Items) -> Scored:
        asked = [Instance("loglikelihood", {}, (prompt, f"{answer}</s>"), 0) for prompt, answer in items]
        found = model.loglikelihood(asked, disable_tqdm=True)
        return [right for _, right in found], [loglik for loglik, _ in found]

    def written(items: Items) -> Scored:
        asked = [Instance("generate_until", {}, (prompt, dict(limit)), 0) for prompt, _ in items]
        found = model.generate_until(asked, disable_tqdm=True)
        return [text == answer for text, (_, answer) in zip(found, items, strict=True)], []

    return written if writes else fed


def task_of(folder: Path, batch: int) -> Callable[[Items], Scored]:
    """A whole run of the harness, as its command line makes it: one task, its requests, model and metric."""
    import datasets
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=batch, add_bos_token=True, max_length=64)
    config = {
        "task": "founders",
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }

    def run(items: Items) -> Scored:
        rows = [{"prompt": prompt, "answer": f"{answer}</s>"} for prompt, answer in items]
        data = {"test": datasets.Dataset.from_list(rows)}
        task = ConfigurableTask(config={**config, "custom_dataset": lambda **_: data})
        found = lm_eval.simple_evaluate(model=model, tasks=[task], bootstrap_iters=0, verbosity="ERROR")
        said = [sample["filtered_resps"][0] for sample in found["samples"]["founders"]]
        return [right for _, right in said], [loglik for loglik, _ in said]

    return run


def ways(way: str, folder: Path) -> Iterator[Callable[[Items], Scored]]:
    """One scorer a founder."""
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        kind, _, batch = way.partition("-")
        if kind == "task":
            yield task_of(place, int(batch))
        elif batch:
            yield harness_of(place, int(batch), writes=kind == "generate")
        else:
            model = loaded(place)
            yield lambda items, model=model: by_hand(model, items, equal=way == "equal")


def main() -> None:
    warnings.simplefilter("ignore")
    way, folder, passes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    items = [tuple(row) for row in json.loads((folder / "items.json").read_text())]
    scorers = list(ways(way, folder))
    far = max(far_from(loaded(p), p) for p in sorted(folder.iterdir()) if p.is_dir())
    found: list[Scored] = []
    spent = []
    with torch.inference_mode():
        for scored in scorers:
            scored(items[:WARM])
        for _ in range(passes):
            begun = time.process_time()
            found = [scored(items) for scored in scorers]
            spent.append(time.process_time() - begun)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    if "-" in way:
        from importlib.metadata import version

        versions["lm_eval"] = version("lm_eval")
    print(json.dumps({"cpu_s": spent, "found": found, "far": far, "versions": versions}))


if __name__ == "__main__":
    main()
