"""The package's shape: imports point downwards, and importing it stays cheap."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import thalweg

ROOT = Path(thalweg.__file__).parent

# Lowest first: a folder may import those above it in this list and itself, nothing else of ours.
LAYERS = [
    *("names", "ranges", "files", "forks", "rule", "transforms", "schedules", "engine", "losses"),
    *("optim", "in_place", "checkpoint"),
    *("diagnosis", "page", "range_test", "landscape", "race", "cli"),
]
OUTSIDE = ("__init__", "__main__")  # the package's own front doors

MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = [
    *("llvmlite", "triton", "typer", "rich", "sklearn", "matplotlib", "plotly"),
    *("safetensors", "xxhash"),
]


def module_name(path: Path) -> str:
    parts = ["thalweg", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at its top or inside functions."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    return imported_names(path.read_text(encoding="utf-8"), package)


def imported_names(source: str, package: list[str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} - {"thalweg"}
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "thalweg":
            found.add(f"thalweg.{node.attr}")  # what `import thalweg` is used for
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from thalweg import optim` imports a module by its last name.
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def layer(name: str) -> str | None:
    """The folder of ``thalweg`` that a dotted name belongs to; None outside of it."""
    parts = name.split(".")
    if parts[0] != "thalweg":
        return None
    found = len(parts) > 1 and any((ROOT / f"{parts[1]}{end}").exists() for end in ("", ".py"))
    return parts[1] if found else "__init__"


def test_every_folder_has_a_place() -> None:
    folders = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    files = {p.stem for p in ROOT.glob("*.py")} - set(OUTSIDE)
    assert folders | files == set(LAYERS), "new folder? give it its place in LAYERS"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != ROOT], ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    allowed = LAYERS[: LAYERS.index(own) + 1]
    if own == "cli":
        allowed.append("__init__")  # the command line is a user of the public package
    for name in imports(path) - {"thalweg.__version__"}:
        target = layer(name)
        assert target is None or target in allowed, f"{module_name(path)} imports {name}"


def test_package_itself_stands_below_race_and_cli() -> None:
    assert {layer(name) for name in imports(ROOT / "__init__.py")}.isdisjoint({"race", "cli"})


# Of the engine, lowest first: a part may import those before it, and those of its own line.
ENGINE = [
    {"interrupts", "layout", "observed", "torch_internals"},
    {"modes", "formats", "state"},
    {"readable", "overlaps", "copying"},
    {"slots"},
    {"scalars", "reduced"},
    {"backends"},
    {"passes", "support", "initial_states"},
    {"sums", "plan"},
    {"engine"},
    {"explain"},
]
BACKENDS = {"cpu", "foreach", "eager"}


def parts(names: Iterable[str], package: str) -> set[str]:
    """The parts of a package that are among imported names."""
    found = {name.removeprefix(f"{package}.").split(".")[0] for name in names if name != package}
    folder = ROOT.parent.joinpath(*package.split("."))
    return {
        part for part in found if any((folder / f"{part}{end}").exists() for end in ("", ".py"))
    }


def test_every_part_of_the_engine_has_a_place() -> None:
    folder = ROOT / "engine"
    found = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__init__.py")
    }
    assert found - {"__init__"} == set().union(*ENGINE)


@pytest.mark.parametrize("path", sorted(ROOT.glob("engine/**/*.py")), ids=module_name)
def test_imports_within_the_engine_point_downwards(path: Path) -> None:
    own = path.relative_to(ROOT / "engine").with_suffix("").parts[0]
    place = next((k for k, line in enumerate(ENGINE) if own in line), len(ENGINE))
    allowed = set().union(*ENGINE[: place + 1])
    used = {name for name in imports(path) if name.startswith("thalweg.engine.")}
    assert parts(used, "thalweg.engine") <= allowed


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_back_ends_do_not_know_each_other(name: str) -> None:
    package = "thalweg.engine.backends"
    for path in (ROOT / "engine" / "backends" / name).rglob("*.py"):
        used = {used for used in imports(path) if used.startswith(f"{package}.")}
        assert parts(used, package).isdisjoint(BACKENDS - {name}), path


def test_the_engines_page_lists_its_files() -> None:
    folder = ROOT / "engine"
    text = (folder / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    files = {p.name for p in folder.glob("*.py")} - {"__init__.py"}
    folders = {f"{p.parent.relative_to(folder)}/" for p in folder.rglob("__init__.py")} - {"./"}
    assert listed == files | folders


@pytest.mark.parametrize("path", sorted(ROOT.glob("rule/**/*.py")), ids=module_name)
def test_rule_language_needs_only_the_standard_library_and_torch(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots <= {"thalweg", "torch", *sys.stdlib_module_names}


def test_importing_the_optimizers_loads_nothing_heavy() -> None:
    code = (
        "import sys, torch, torch.optim\n"
        "before = set(sys.modules)\n"
        "import thalweg, thalweg.optim\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "thalweg" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_reader_of_imports_knows_every_spelling() -> None:
    source = (
        "import thalweg.cli\nfrom thalweg import optim\nimport thalweg\n"
        "def f():\n    from ..engine import x\n    from . import task\n    thalweg.rule.trace()\n"
    )
    names = imported_names(source, ["thalweg", "race"])
    assert {layer(name) for name in names} == {"cli", "optim", "engine", "race", "rule"}
