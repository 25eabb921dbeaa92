"""The peer of bench_serve.py: llama.cpp's own server, run in an interpreter that has xllamacpp.

    python benchmarks/serve_peer.py MODEL THREADS SLOTS CONTEXT COMMAND ...

Serves the file and runs the command twice with HOST and PORT filled in; printed is what it said the second time, with the
CPU seconds that the server spent on that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import xllamacpp
from clocks import spent


def main() -> None:
    """Serve, have the load run, and go."""
    model, threads, slots, context, *command = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_batch, params.n_ubatch = int(context) * int(slots), 512, 512
    params.n_parallel = int(slots)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.n_gpu_layers, params.warmup, params.verbosity = 0, True, 0
    server = xllamacpp.Server(params)
    host, port = server.listening_address.split("//")[1].split(":")
    filled = [{"HOST": host, "PORT": port}.get(word, word) for word in command]
    for _ in range(2):
        before = spent()[0]
        told = json.loads(subprocess.run(filled, capture_output=True, text=True, check=True).stdout)
    print(json.dumps(told | {"cpu": spent()[0] - before, "version": xllamacpp.__version__}))
    sys.stdout.flush()
    os._exit(0)  # its server's threads do not end by themselves


main()
