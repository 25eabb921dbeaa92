from __future__ import annotations

import sys
from pathlib import Path

# The founders' scripts are plain files that import each other by name, as they do when they are run.
sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "founders"))
