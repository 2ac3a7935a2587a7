"""A rule exists once: no second copy of it, none of torch's, and short enough to read."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from pathlib import Path

import pytest

import thalweg
import thalweg.optim as optim
from thalweg.optim.catalogue import classes
from thalweg.rule import Rule

ROOT = Path(thalweg.__file__).parent
RULE_CLASSES = [
    cls
    for name in optim.__all__
    if isinstance(cls := getattr(optim, name), type)
    and isinstance(getattr(cls, "rule", None), Rule)
]
RULE_FILES = sorted({Path(inspect.getfile(cls)) for cls in RULE_CLASSES})
ALL_FILES = sorted(ROOT.rglob("*.py"))
# Those whose rule is another's, composed: where it is and what they are made of.
BORROWED = {"adamw.py": "adam.py", "lamb.py": "adam.py"}


pytestmark = pytest.mark.whole


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def rules_in(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
        and [a.arg for a in node.args.args] == ["p", "g", "s", "h"]
    ]


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    source = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def test_one_optimizer_one_file() -> None:
    assert {cls.__name__ for cls in RULE_CLASSES} == set(classes()) - {"LBFGS"}
    assert len(RULE_FILES) == len(RULE_CLASSES)


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda p: p.name)
def test_a_file_holds_one_rule(path: Path) -> None:
    if path.name in BORROWED:
        assert rules_in(path) == []
        imported = [n.module for n in ast.walk(tree_of(path)) if isinstance(n, ast.ImportFrom)]
        assert f"thalweg.optim.{BORROWED[path.name].removesuffix('.py')}" in imported
    else:
        assert len(rules_in(path)) == 1


@pytest.mark.parametrize("cls", RULE_CLASSES, ids=lambda c: c.__name__)
def test_the_class_runs_the_rule_of_its_file(cls) -> None:
    file = Path(inspect.getfile(cls))
    text = inspect.unwrap(cls.rule.update)
    home = BORROWED.get(file.name, file.name)
    assert Path(inspect.getfile(text)).name == home
    assert text.__name__ == rules_in(file.with_name(home))[0].name


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda p: p.name)
def test_a_file_is_short(path: Path) -> None:
    assert code_lines(path) <= 80


def test_no_rule_is_another_one_again() -> None:
    """Not word by word; SparseAdam differs from Adam in where eps stands."""
    bodies = {}
    for path in RULE_FILES:
        for rule in rules_in(path):
            text = "\n".join(ast.unparse(statement) for statement in rule.body)
            assert text not in bodies, f"{path.name} repeats {bodies[text]}"
            bodies[text] = path.name


def test_only_one_step() -> None:
    """The base class has the only ``step``; a control flow of another kind goes in ``_step``."""
    for path in (ROOT / "optim").glob("*.py"):
        named = [
            n
            for n in ast.walk(tree_of(path))
            if isinstance(n, ast.FunctionDef) and n.name == "step"
        ]
        assert len(named) == (1 if path.name == "optimizer.py" else 0), path.name


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_delegated_to_torchs_optimizers(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    torchs = {name for name in names if name.startswith("torch.optim")}
    # The base class is a type that others ask for, and keeps the hooks' registries.
    allowed = {"torch.optim", "torch.optim.Optimizer"}
    for node in ast.walk(tree_of(path)):  # so is a class of torch's as a base of ours
        if isinstance(node, ast.ClassDef):
            allowed |= {ast.unparse(base) for base in node.bases} & {f"torch.optim.{node.name}"}
    if path.name == "optimizer.py":
        allowed |= {"torch.optim.optimizer.required"}
        allowed |= {f"torch.optim.Optimizer.{name}" for name in ("__init__", "__setstate__")}
    if path.parent.name == "state_dict":  # whether a class has one of its own
        allowed.add("torch.optim.Optimizer.load_state_dict")
    if path.name == "hooks.py":
        hooks = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
        allowed |= {f"torch.optim.optimizer.{name}" for name in hooks}
    if path.parent.name == "lr_scheduler":  # as a base and for isinstance: see its test_one_text
        allowed |= {"torch.optim.lr_scheduler"}
    if path.name == "swa_utils.py":
        allowed |= {"torch.optim.swa_utils", "torch.optim.swa_utils.AveragedModel"}  # as a base
    if path.name == "swa.py":
        allowed |= {"torch.optim.swa_utils"}  # as a base
    if path.name == "in_place.py":  # what it replaces
        allowed |= {"torch.optim.lr_scheduler", "torch.optim.swa_utils"}
    if path == ROOT / "optim" / "__init__.py":  # hands on what is torch's alone
        allowed |= {"torch.optim.__all__"}
    if path.name == "racers.py":
        allowed |= torchs  # it runs torch's optimizers beside ours: that is its purpose
    assert torchs <= allowed
    for name in names:
        last = name.split(".")[-1]
        assert not last.startswith("_fused_"), name
        # Single operations on lists of tensors: that back end's means, and nobody else's.
        assert not last.startswith("_foreach_") or path.parent.name == "foreach", name
        assert last not in ("_functional", "_multi_tensor"), name
