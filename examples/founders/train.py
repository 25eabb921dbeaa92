"""Train the founders again and compare them with the shipped ones, or write them anew (`make founders`).

The shipped digests in ``founders.lock`` are the truth. Without options the family is trained into a temporary folder
and each founder is reported as

* ``equal``: the same bytes came out;
* ``different machine class``: other bytes came out, and the shipped receipt names another torch, instruction set or
  platform than this machine's, so they had to (exit 0);
* ``DIFFERS``: other bytes came out on a machine of the same class (exit 1).

With ``--write`` the shipped files and the lock are replaced. Needs the extra ``train``; about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

try:
    import recipe
    import shipping
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing}: training needs the extra, install it with: pip install -e '.[train]'") from None

__all__ = ["SHIPPED_SEED", "compare", "main"]

SHIPPED_SEED = 1
"""The family that is shipped: the median of the studied seeds by the child's gain over the best parent."""


def compare(files: Mapping[str, bytes], shipped: Path) -> list[tuple[str, str]]:
    """Return (founder, verdict) for every founder in ``files``, against the lock in ``shipped``."""
    pins = shipping.read_lock(shipped)
    verdicts = []
    for path in sorted(path for path in files if path.endswith(".slm")):
        name = Path(path).stem
        there = json.loads((shipped / name / "training.json").read_bytes())["environment_class"]
        here = shipping.environment_class()
        if shipping.sha256_of(files[path]) == pins.get(path):
            verdicts.append((name, "equal"))
        elif here != there:
            verdicts.append((name, f"different machine class: shipped {_words(there)}; here {_words(here)}"))
        else:
            verdicts.append((name, f"DIFFERS on the same machine class {_words(here)}"))
    return verdicts


def main(argv: list[str] | None = None) -> int:
    """Train and compare, or write; return 0, or 1 if a shipped file or a retrained founder differs."""
    parser = argparse.ArgumentParser(description="Train the founders again and compare, or write them anew.")
    parser.add_argument("--write", action="store_true", help="replace the shipped files and their lock")
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED, help="seed of the family (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=shipping.HERE, help="the folder with the shipped founders")
    arguments = parser.parse_args(argv)
    files = shipping.family_files(recipe.train_family(arguments.seed, _say))
    if arguments.write:
        _write(files, arguments.out)
        return 0
    changed = _changed(arguments.out)
    for path in changed:
        print(f"{path}: does not have its pinned digest; restore it from the repository", file=sys.stderr)
    verdicts = compare(files, arguments.out)
    for name, verdict in verdicts:
        print(f"{name}: {verdict}")
    return 1 if changed or any(verdict.startswith("DIFFERS") for _, verdict in verdicts) else 0


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    slices = {f"data/{path.name}": path.read_bytes() for path in (shipping.HERE / "data").glob("*.jsonl")}
    (folder / shipping.LOCK).write_bytes(shipping.lock_text({**files, **slices}))
    print(f"wrote {len(files)} files and {shipping.LOCK} to {folder}")


def _changed(folder: Path) -> list[str]:
    """Return the pinned paths whose file is missing or has another digest."""
    pins = shipping.read_lock(folder)
    return [
        path
        for path, digest in pins.items()
        if not (folder / path).is_file() or shipping.sha256_of((folder / path).read_bytes()) != digest
    ]


def _words(environment: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(environment.items()))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
