"""Every command runs in a folder of its own, which holds a module with tasks and models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.running import TASK_MODULE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(TASK_MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path
