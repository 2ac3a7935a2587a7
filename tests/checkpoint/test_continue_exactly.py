"""Saved at any step and continued in a new process: bit for bit as if never interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.continuing import ALL, AVERAGES, OPTIMIZERS, SCHEDULES, SOME

ROOT = Path(__file__).parent.parent.parent


def digests(what: str, folder: Path, names: list[str]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.checkpoint.continuing", what, folder, *names],
        capture_output=True, text=True, cwd=ROOT, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def assert_exact(folder: Path, names: list[str]) -> None:
    whole, continued = (digests(what, folder, names) for what in ("begin", "continue"))
    assert list(whole) == names
    assert [name for name in names if continued[name] != whole[name]] == []
    # A digest of nothing would be the same for all.
    assert len(set(whole.values())) > 0.9 * len(names)


@pytest.mark.slow
def test_some_of_all(tmp_path: Path) -> None:
    for i, each in enumerate((OPTIMIZERS, SCHEDULES, AVERAGES)):
        assert {name.split("/")[i] for name in SOME} == set(each)
    assert_exact(tmp_path, SOME)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_schedule_and_average(optimizer: str, tmp_path: Path) -> None:
    assert_exact(tmp_path, [name for name in ALL if name.startswith(f"{optimizer}/")])
