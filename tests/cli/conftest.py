"""Every command runs in a folder of its own: in it a module with tasks and models, and weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.running import TASK_MODULE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(TASK_MODULE, encoding="utf-8")
    save_file({"weight": torch.ones(2)}, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path
