from __future__ import annotations

import pytest

from runtime_fixtures import Shelf


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Small models, made once."""
    return Shelf(tmp_path_factory.mktemp("shelf"))
