"""CONTRIBUTING's path to a new optimizer, followed in a copy of the repository: Lion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("src", "tests", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md")

# Tests of each optimizer, which carry its name; and of all of them at once.
OF_EACH = ("tests/optim", "tests/race/test_racers.py", "tests/checkpoint/convert/test_torch.py")
OF_ALL = (
    *("tests/test_structure.py", "tests/optim/test_catalogue.py", "tests/optim/test_one_text.py"),
    *("tests/race/test_racers.py", "tests/race/test_presets.py", "tests/test_choosing.py"),
    "tests/checkpoint/convert/test_torch.py",
)


def insert(path: Path, before: str, text: str) -> None:
    whole = path.read_text(encoding="utf-8")
    assert whole.count(before) == 1, f"{path}: {before!r}"
    path.write_text(whole.replace(before, text), encoding="utf-8")


# What the path adds, as it stands in this repository: the file is the optimizer's, in the others
# these are its lines.
FILE = "src/thalweg/optim/lion.py"
LINES = {
    "src/thalweg/optim/__init__.py": r"from thalweg\.optim\.lion import Lion\n|    \"Lion\",\n",
    "tests/references/optimizers.py": r"def lion\(.*?\n\n\n|    \"Lion\": lion,\n",
    "docs/optimizers.md": r"::: thalweg\.optim\.Lion\n",
}


def copied(folder: Path) -> None:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "images", "pictures")
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)


def without_lion(folder: Path) -> None:
    (folder / FILE).unlink()
    for name, lines in LINES.items():
        path = folder / name
        text, count = re.subn(lines, "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert count == lines.count("|") + 1, name
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def copy_with_lion(tmp_path: Path) -> Path:
    copied(tmp_path)
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """pytest in the copy; its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_lion_is_all_that_contributing_says(tmp_path: Path) -> None:
    """Without these lines nothing is amiss, and with them the optimizer is there: nothing else."""
    fast = ("--ignore=tests/optim/lr_scheduler", "-m", "not slow")
    copied(tmp_path)
    status, text = run(tmp_path, *OF_EACH, *fast, "-k", "Lion")
    assert status == 0, text[-6000:]
    assert int(re.search(r"(\d+) passed", text)[1]) > 10
    without_lion(tmp_path)
    status, text = run(tmp_path, *OF_ALL, *fast)
    assert status == 0, text[-6000:]


@pytest.mark.slow
def test_a_lion_that_is_not_the_papers_is_found(copy_with_lion: Path) -> None:
    insert(
        copy_with_lion / "src/thalweg/optim/lion.py",
        "lerp(s.exp_avg, g, 1 - h.beta2)",
        "lerp(s.exp_avg, g, 1.01 - h.beta2)",
    )
    status, text = run(copy_with_lion, "tests/optim/test_conformance.py", "-k", "Lion-")
    assert status == 1, text[-6000:]
    assert "FAILED tests/optim/test_conformance.py::test_float64_agrees[Lion-default]" in text
