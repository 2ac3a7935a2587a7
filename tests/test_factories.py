"""Every tensor that the library makes names its device: the default may be any."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "thalweg"
FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "ones"),
    *("rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "tril_indices"),
    *("triu_indices", "zeros", "complex", "empty_strided", "normal"),
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
    found = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if (lines := unnamed(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_what_is_looked_for() -> None:
    assert unnamed("torch.zeros(3)\ntorch.tensor(1, dtype=torch.float64)") == [1, 2]
    assert unnamed("torch.zeros(3, device='cpu')\ntorch.zeros_like(x)\nx.new_zeros(3)") == []
