from __future__ import annotations

import sys
from pathlib import Path

import pytest

from thalweg.page import needs


def test_a_module_that_is_there_is_given() -> None:
    assert needs("os.path").join("a", "b") == str(Path("a", "b"))


@pytest.mark.parametrize(
    ("module", "package"),
    [("matplotlib.figure", "matplotlib"), ("sklearn", "scikit-learn"), ("PIL.Image", "Pillow")],
)
def test_a_missing_package_is_named_with_its_remedy(
    module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == module.partition(".")[0]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ModuleNotFoundError, match=rf'^{package} .*install "thalweg\[race\]"$'):
        needs(module)


def test_what_an_installed_package_lacks_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'nowhere_to_be_found'$"):
        needs("half_there")
