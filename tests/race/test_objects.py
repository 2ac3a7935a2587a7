import sys
from pathlib import Path

import pytest

from thalweg.race import find_object


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("written_"):
            del sys.modules[name]


def test_names_in_files_of_the_current_folder(folder: Path) -> None:
    (folder / "written_here.py").write_text("class A:\n    class B:\n        c = 3\n")
    path = list(sys.path)
    assert find_object("race", "written_here:A.B.c") == 3
    assert find_object("race", "written_here.A.B.c") == 3
    assert find_object("race", "written_here").A.B.c == 3
    assert sys.path == path


def test_names_in_packages(folder: Path) -> None:
    (folder / "written_package").mkdir()
    (folder / "written_package" / "__init__.py").touch()
    (folder / "written_package" / "inside.py").write_text("value = 5\n")
    assert find_object("race", "written_package.inside:value") == 5
    assert find_object("race", "written_package.inside.value") == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("written_gone:A", "there is no module 'written_gone', which 'written_gone:A' asks for"),
        ("written_gone.A", "there is no module 'written_gone'"),
        ("math:flor", "math has no 'flor' for 'math:flor'; did you mean floor"),
        ("math.flor", "math has no 'flor'"),
        ("math:floor.deep", "math has no 'deep'"),
        ("a b:c", "is no importable name; write my_module:MyName"),
        ("a:", "is no importable name"),
        (":a", "is no importable name"),
    ],
)
def test_what_is_not_there(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^race: .*{message}"):
        find_object("race", spec)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0\n", "cannot import 'written_{}' for .*: ZeroDivisionError: division by zero"),
        ("def (\n", "cannot import .*: SyntaxError"),
        ("import no_such_package\n", "cannot import .*: ModuleNotFoundError: No module named 'no_"),
    ],
    ids=["error", "syntax", "missing"],
)
def test_a_file_that_fails_is_told_from_one_that_is_missing(folder, source, message) -> None:
    name = f"written_{len(source)}"
    (folder / f"{name}.py").write_text(source)
    with pytest.raises(ValueError, match=message.format(len(source))):
        find_object("race", f"{name}:A")
