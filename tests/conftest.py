"""What every test shares: one thread for linear algebra, and the small lab's fixtures."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Workers pin this themselves; a test that calls one in its own process needs it before numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A run in the background of a shell inherits a deaf ear for Ctrl-C, and so would every process the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.append(str(Path(__file__).parent))

pytest_plugins = [
    "serve_fixtures",
    "lab_fixtures",
    "release_fixtures",
    "trial_fixtures",
    "consumer_fixtures",
    "population_fixtures",
    "experiment_fixtures",
    "bundle_fixtures",
    "package_fixtures",
]
