"""The tables of files in the docstrings of packages name every file, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from thalweg.engine import passes
from thalweg.losses import evaluation


@pytest.mark.parametrize("package", [passes, evaluation], ids=lambda p: p.__name__)
def test_every_file_is_in_the_table(package: ModuleType) -> None:
    assert package.__file__ is not None
    assert package.__doc__ is not None
    files = {path.name for path in Path(package.__file__).parent.glob("*.py")}
    named = re.findall(r"``(\w+\.py)``", package.__doc__)
    assert sorted(named) == sorted(files - {"__init__.py"})
