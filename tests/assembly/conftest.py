from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assembly.drifts import smoked
from studbook.assembly.rules import Refusal
from studbook.lab.bundles import Bundles

Refused = Callable[[Path], Refusal | None]


@pytest.fixture(scope="session")
def smoked_bundle(good_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good bundle with a BrowserSmoke; read it, or copy it."""
    folder = tmp_path_factory.mktemp("smoked") / "champion"
    smoked(good_bundle, folder)
    return folder


@pytest.fixture
def refused() -> Refused:
    """Why a folder is refused, or None."""
    return lambda folder: Bundles.verify(folder).refusal
