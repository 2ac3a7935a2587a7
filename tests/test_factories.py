"""Every tensor that the library makes names its device: the default may be any."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "thalweg"
FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones"),
    *("rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "tril_indices"),
    *("triu_indices", "zeros", "complex", "empty_strided", "normal"),
}
# Calls that do not, by file. To be emptied.
LEFT = {
    "checkpoint/convert/__init__.py": 4,
    "cli/explain.py": 2,
    "landscape/directions.py": 2,
    "landscape/functions.py": 1,
    "landscape/network.py": 2,
    "landscape/surfaces.py": 3,
    "landscape/trajectory.py": 1,
    "losses/evaluation/ctc.py": 1,
    "losses/example_arguments.py": 7,
    "losses/multilabel_margin.py": 2,
    "optim/catalogue.py": 1,
    "optim/state_dict/loading.py": 1,
    "optim/state_dict/values.py": 1,
    "race/bench.py": 2,
    "race/step_time.py": 2,
    "race/tasks/digits.py": 2,
    "race/tasks/split.py": 2,
    "race/tasks/tabular.py": 3,
    "race/tasks/text.py": 6,
}


def unnamed(source: str) -> list[int]:
    """The lines of calls of torch's factories that name no device."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in FACTORIES
        and not any(keyword.arg in ("device", "out", None) for keyword in node.keywords)
    ]


def test_each_call_of_a_factory_names_its_device() -> None:
    found = Counter(
        {
            str(path.relative_to(ROOT)): len(unnamed(path.read_text(encoding="utf-8")))
            for path in ROOT.rglob("*.py")
        }
    )
    assert +found == Counter(LEFT), +found - Counter(LEFT)


def test_what_is_looked_for() -> None:
    assert unnamed("torch.zeros(3)\ntorch.tensor(1, dtype=torch.float64)") == [1, 2]
    assert unnamed("torch.zeros(3, device='cpu')\ntorch.zeros_like(x)\nx.new_zeros(3)") == []
