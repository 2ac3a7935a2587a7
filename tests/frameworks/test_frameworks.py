"""Lightning, Accelerate and transformers train alike with our optimizers and with torch's.

With the clipping that each of them does itself, and with ours in the optimizer. They run in a
process of their own, where they are installed: `make test-all` has them in a folder of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg

FOLDER = os.environ.get("THALWEG_FRAMEWORKS", "")
PROGRAM = Path(__file__).with_name("curves.py")
# As far apart as bfloat16 or a norm that was summed up otherwise leaves two curves.
NEAR = 2e-3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="THALWEG_FRAMEWORKS is not set"),
]


def curves(framework: str) -> dict[str, list[float]]:
    """Losses step by step, by how they were come by."""
    source = str(Path(thalweg.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), framework],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, os.path.abspath(FOLDER)])},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("framework", ["lightning", "accelerate", "transformers"])
def test_curves_are_those_of_torchs_optimizers(framework: str) -> None:
    found = curves(framework)
    wanted = found.pop("torch, the framework clips")
    assert len(wanted) == 12
    unclipped = found.pop("torch, nobody clips")
    assert unclipped != pytest.approx(wanted, rel=NEAR), "clipping makes no difference here"
    assert set(found) >= {"ours, the framework clips", "ours clips"}
    for how, curve in found.items():
        assert curve == pytest.approx(wanted, rel=NEAR), how
