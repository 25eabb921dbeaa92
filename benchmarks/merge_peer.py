"""One merge by mergekit in this process, under any interpreter that has it; prints what it cost as JSON.

Started by `bench_merge.py`; needs nothing of Studbook.

    python merge_peer.py CONFIG.json OUT_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"})


def main() -> None:
    config, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    import mergekit
    import torch
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False, random_seed=1)
    cpu, wall = time.process_time(), time.perf_counter()
    run_merge(MergeConfiguration.model_validate(config), out, options=options)
    print(
        json.dumps(
            {
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "start_cpu_s": cpu,
                "versions": {"mergekit": getattr(mergekit, "__version__", "0.1.5"), "torch": torch.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
