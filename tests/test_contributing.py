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

OPTIMIZER = '''"""Lion.

Paper: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, Algorithm 2.
"""

from typing import Any

from thalweg.optim.optimizer import Number, Optimizer, Params, Transforms
from thalweg.optim.options import given
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import Rule, lerp, sign
from thalweg.transforms import decoupled_decay, maximized


def lion(p: Any, g: Any, s: Any, h: Any) -> Any:
    update = sign(lerp(s.exp_avg, g, 1 - h.beta1))
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    return p - h.lr * update


class Lion(Optimizer):
    """Lion: steps of lr in the direction of the sign of an interpolated momentum.

    ::

        p <- p * (1 - lr * weight_decay)
        p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g

    Args:
        params: the parameters; see :class:`Optimizer`, also for the options not listed here.
        lr: learning rate, >= 0.
        betas: shares of m in the update, and of its own decay, each >= 0 and < 1.
        weight_decay: decoupled weight decay, >= 0.

    States:
        step: updates made, 0-d.
        exp_avg: m, shape of the parameter.

    Raises:
        ValueError: an option out of range.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.tensor([3.0, -0.01])
    >>> Lion([p], lr=0.25).step()
    >>> p.tolist()
    [0.75, 1.25]
    """

    rule = Rule(lion, {"exp_avg": 0.0})
    transforms = (decoupled_decay(), maximized())
    ranges = {"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION)}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        transforms: Transforms = (),
    ) -> None:
        super().__init__(params, given(locals()), transforms)
'''

REFERENCE = '''def lion(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Chen et al., NeurIPS 2023, algorithm 2."""
    beta1, beta2 = h.betas
    m = s.get("exp_avg", 0.0)
    s["exp_avg"] = beta2 * m + (1 - beta2) * g
    return p - h.lr * (np.sign(beta1 * m + (1 - beta1) * g) + h.weight_decay * p)


RULES: dict'''

# Tests of each optimizer, which carry its name; and of all of them at once.
OF_EACH = ("tests/optim", "tests/race/test_racers.py", "tests/checkpoint/convert/test_torch.py")
OF_ALL = (
    *("tests/test_structure.py", "tests/optim/test_catalogue.py", "tests/optim/test_one_text.py"),
    *("tests/race/test_racers.py", "tests/race/test_presets.py", "tests/test_choosing.py"),
    *("tests/checkpoint/convert/test_torch.py", "src/thalweg/optim/lion.py"),
)


def insert(path: Path, before: str, text: str) -> None:
    whole = path.read_text(encoding="utf-8")
    assert whole.count(before) == 1, f"{path}: {before!r}"
    path.write_text(whole.replace(before, text), encoding="utf-8")


@pytest.fixture
def copy_with_lion(tmp_path: Path) -> Path:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "images", "pictures")
            shutil.copytree(source, tmp_path / part, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / part)
    optim = tmp_path / "src/thalweg/optim"
    (optim / "lion.py").write_text(OPTIMIZER, encoding="utf-8")
    line = "from thalweg.optim.nadam import NAdam\n"
    insert(optim / "__init__.py", line, f"from thalweg.optim.lion import Lion\n{line}")
    insert(optim / "__init__.py", '    "NAdam",\n', '    "Lion",\n    "NAdam",\n')
    references = tmp_path / "tests/references/optimizers.py"
    insert(references, "RULES: dict", REFERENCE)
    insert(references, '    "NAdam": nadam,\n', '    "Lion": lion,\n    "NAdam": nadam,\n')
    line = "::: thalweg.optim.NAdam\n"
    insert(tmp_path / "docs/optimizers.md", line, f"::: thalweg.optim.Lion\n{line}")
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
def test_lion_is_added_as_contributing_says(copy_with_lion: Path) -> None:
    fast = ("--ignore=tests/optim/lr_scheduler", "-m", "not slow")
    status, text = run(copy_with_lion, *OF_EACH, *fast, "-k", "Lion")
    assert status == 0, text[-6000:]
    assert int(re.search(r"(\d+) passed", text)[1]) > 50
    status, text = run(copy_with_lion, *OF_ALL, *fast)
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
