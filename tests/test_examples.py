"""Every example runs as a user would run it, and its results are those of a working optimizer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

# For each example: what is looked for in its output, how often it is there, and its range.
EXPECTED: dict[str, list[tuple[str, int, float, float]]] = {
    "own_optimizer": [
        (r"^\w+ +loss ([\d.]+)$", 2, 0.0, 0.15),
        (r"memory +(\d+) bytes per element", 1, 20, 20),
    ],
    "language_model": [
        (r"averaged weights on other text ([\d.]+)$", 2, 2.0, 3.1),
        (r"gradient norm at the end ([\d.]+)$", 2, 0.05, 1.5),
        (r"losses of a step differ by ([\d.]+) at most$", 1, 0.0, 0.01),
    ],
    "resume": [
        (r"loss of the last batch ([\d.]+), weights \w{16}$", 2, 0.0, 0.5),
        (r"killed before step (\d+)$", 2, 60, 333),
        (r"goes on from \d+.safetensors, step (\d+)$", 2, 50, 325),
    ],
    "weight_averaging": [
        (r"([\d.]+)% of the test images", 3, 94.0, 99.9),
        (r"^epoch +20 +rate at its start ([\d.]+)", 1, 0.02, 0.02),
    ],
}


def run(example: Path, folder: Path) -> str:
    """What an example prints, run on its own in an empty folder; a warning is an error."""
    # The package under test, however it was put on the path here.
    source = str(Path(thalweg.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "an example leaves nothing behind"
    return done.stdout


SLOW = ("language_model",)  # bfloat16 on a processor without it


@pytest.mark.parametrize(
    "example",
    [pytest.param(each, marks=pytest.mark.slow if each.stem in SLOW else ()) for each in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_example(example: Path, tmp_path: Path) -> None:
    printed = run(example, tmp_path)
    for pattern, count, low, high in EXPECTED[example.stem]:
        found = [float(number) for number in re.findall(pattern, printed, re.MULTILINE)]
        assert len(found) == count, printed
        assert all(low <= number <= high for number in found), printed


def test_every_example_has_expectations() -> None:
    assert set(EXPECTED) == {example.stem for example in EXAMPLES}
