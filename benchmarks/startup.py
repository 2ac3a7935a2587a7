"""What a fresh process pays: the import, and the first step with an empty and a full cache."""

import os
import statistics
import subprocess
import sys
import tempfile

_PROBE = """
import time
import torch
start = time.perf_counter()
import thalweg.optim as optim
imported = time.perf_counter()
p = torch.nn.Parameter(torch.ones(1000))
p.grad = torch.ones(1000)
optimizer = optim.AdamW([p])
begin = time.perf_counter()
optimizer.step()
print(imported - start, time.perf_counter() - begin)
"""


def startup(rounds: int) -> dict[str, float]:
    """Seconds: the import beyond torch's, the first step with an empty and with a full cache."""
    empty, full, imports = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "THALWEG_CACHE": folder}
            for times in (empty, full):
                result = subprocess.run(
                    [sys.executable, "-c", _PROBE],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                imported, first = map(float, result.stdout.split())
                times.append(first)
                imports.append(imported)
    return {
        "import thalweg.optim, beyond import torch": statistics.median(imports),
        "first step, empty kernel cache": statistics.median(empty),
        "first step, full kernel cache": statistics.median(full),
    }
